"""Transport between unseen simulated populations: ours, closed forms, flows trained on pairs, floor and identity.

Reporting pairs are drawn once with seed 9000 and are the same for all methods: the first half of the groups go to the
second half. A method sees the cells of both; scores are against further cells of the target.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from _plain import PlainFlow
from _report import Record, Report, parser

from scgde import TDE, datasets, metrics
from scgde.nn.transport import gaussian_map

REPORTING_SEED = 9000

#: Pairs whose paths are followed: a path costs ten times as much as its end.
MAX_PATHS = 100


@dataclass(frozen=True)
class Task:
    """Training data, reporting cells, the options that tuning (seeds from 100) chose, and the scores."""

    n_groups: int
    n_cells: int
    n_reported: int
    options: dict[str, Any] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=lambda: {"width": 64, "batch_size": 32})


TASKS = {
    "gaussian2": Task(20_000, 100, 1000),
    "mixture2": Task(20_000, 200, 500),
    "cells50": Task(500, 200, 1000, {"n_components": 10}),
}


class Reporting:
    """Pairs of populations, their cells, and what a method's output is scored against."""

    def __init__(self, kind: str, n_pairs: int, n_cells: int) -> None:
        self.kind, self.n_pairs = kind, n_pairs
        self.adata = datasets.simulate_populations(kind, 2 * n_pairs, n_cells, REPORTING_SEED)
        self.truth = self.adata.uns["populations"]
        names = list(self.adata.obs["group"].cat.categories)
        self.sources, self.targets = names[:n_pairs], names[n_pairs:]
        cells = self.adata.X.reshape(2 * n_pairs, n_cells, -1)
        self.source, self.target = cells[:n_pairs], cells[n_pairs:]
        fresh, again = (datasets.draw_cells(self.truth, n_cells, seed=seed) for seed in (1, 2))
        self.scored, self.floor = fresh[n_pairs:], again[n_pairs:]

    def scores(self, moved: np.ndarray) -> dict[str, np.ndarray]:
        """(pairs,) values by name."""
        pairs = range(self.n_pairs)
        scores = {"energy": np.array([metrics.energy_distance(moved[p], self.scored[p]) for p in pairs])}
        if self.kind == "cells50":
            scores["proportions"] = np.square(self.proportions(moved) - self.truth["weights"][self.n_pairs :]).mean(1)
            return scores
        if self.kind == "gaussian2":
            mean, cov = self.truth["means"][self.n_pairs :, 0], self.truth["covs"][self.n_pairs :, 0]
            own = [(x.mean(0), np.cov(x.T)) for x in moved.astype(float)]
            scores["W2 (Gaussian)"] = np.array([metrics.w2_gaussian(*own[p], mean[p], cov[p]) for p in pairs])
            return scores
        size = 500
        w2 = [[metrics.w2_empirical(x[:size], self.scored[p, :size]) for x in (moved[p], self.floor[p])] for p in pairs]
        scores["W2 excess"] = np.subtract(*np.transpose(w2))
        return scores

    def proportions(self, moved: np.ndarray) -> np.ndarray:
        """(pairs, types) shares of the cell types, by the nearest mean of the target's own types."""
        means = self.truth["means"][self.n_pairs :]
        nearest = np.stack([np.square(x[:, None] - m).sum(-1).argmin(1) for x, m in zip(moved, means, strict=True)])
        return (nearest[..., None] == np.arange(means.shape[1])).mean(1)

    def monge_error(self, path: np.ndarray) -> Record:
        """Squared distance to the optimal map at the end, and to the geodesic on the way, over the target's variance.

        Parameters
        ----------
        path
            (positions, pairs, cells, features) of the first pairs, at equally spaced t, both ends included.
        """
        n = path.shape[1]
        mean, cov = (torch.from_numpy(np.asarray(self.truth[name][:, 0])).double() for name in ("means", "covs"))
        (m0, m1), (c0, c1) = ([part[:n] for part in values.split(self.n_pairs)] for values in (mean, cov))
        x0 = torch.from_numpy(self.source[:n]).double()
        x1 = m1[:, None] + (x0 - m0[:, None]) @ gaussian_map(c0, c1).transpose(1, 2)
        size = c1.diagonal(dim1=1, dim2=2).sum(1)

        def error(t: float, x: np.ndarray) -> float:
            return float(((torch.from_numpy(x) - torch.lerp(x0, x1, t)).square().sum(-1).mean(1) / size).mean())

        errors = [error(t, x) for t, x in zip(np.linspace(0, 1, len(path)), path, strict=True)]
        return {"Monge error": errors[-1], "path error": float(np.mean(errors[1:-1]))}


def summary(scores: dict[str, np.ndarray]) -> Record:
    """Mean of each score, and the upper end of its 95% interval over pairs."""
    record = {}
    for name, values in scores.items():
        record[name] = float(values.mean())
        record[f"{name}, upper"] = float(values.mean() + 1.96 * values.std(ddof=1) / len(values) ** 0.5)
    return record


def gaussian_transport(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The optimal map between Gaussians with the moments of the cells: needs no training."""
    x0, x1 = (torch.from_numpy(x).double() for x in (source, target))
    m0, m1 = x0.mean(1, keepdim=True), x1.mean(1, keepdim=True)
    c0, c1 = ((x - m).transpose(1, 2) @ (x - m) / x.shape[1] for x, m in ((x0, m0), (x1, m1)))
    return (m1 + (x0 - m0) @ gaussian_map(c0, c1).transpose(1, 2)).float().numpy()


def moved(
    model: TDE, reporting: Reporting, *, exact_moments: bool, trust: float | None = None, path: bool = False
) -> np.ndarray:
    """Cells of the sources at the targets (pairs, cells, features), or on the way (positions, pairs, ...)."""
    n = min(MAX_PATHS, reporting.n_pairs) if path else reporting.n_pairs
    result = model.transport(
        reporting.sources[:n],
        reporting.targets[:n],
        reporting.adata,
        exact_moments=exact_moments,
        trust=trust,
        return_trajectory=path,
    )
    shape = (n, *reporting.source.shape[1:])
    return result.X.reshape(-1, *shape) if path else result.X.reshape(shape)


def trained(task: Task, kind: str, method: str, seed: int, steps: int) -> tuple[Any, float]:
    """A trained model and the seconds it took, data aside."""
    adata = datasets.simulate_populations(kind, task.n_groups, task.n_cells, seed)
    start = time.monotonic()
    if method == "plain":
        x = torch.from_numpy(adata.X).view(task.n_groups, task.n_cells, -1)
        return PlainFlow(x.shape[-1], seed=seed, **task.plain).fit(x, steps), time.monotonic() - start
    TDE.setup_anndata(adata, "group")
    model = TDE(adata, method=method, seed=seed, **task.options)
    model.train(max_steps=steps, enable_progress_bar=False)
    return model, time.monotonic() - start


def run(report: Report, kind: str, task: Task, seeds: list[int], steps: int, n_pairs: int) -> None:
    """Measure every method; a trained model is scored in all its uses before the next one is trained."""
    data: list[Reporting] = []

    def reporting() -> Reporting:
        if not data:
            data.append(Reporting(kind, n_pairs, task.n_reported))
        return data[0]

    plain: dict[str, Callable[[Reporting], np.ndarray]] = {
        "floor": lambda r: r.floor,
        "identity": lambda r: r.source,
        "Gaussian moments": lambda r: gaussian_transport(r.source, r.target),
    }
    for name, move in plain.items():
        report.measure(name, lambda move=move: summary(reporting().scores(move(reporting()))))

    for seed in seeds:
        models: dict[str, tuple[Any, float]] = {}

        def model(method: str, seed: int = seed, models: dict = models) -> tuple[Any, float]:
            if method not in models:
                models.clear()
                models[method] = trained(task, kind, method, seed, steps)
            return models[method]

        def ours(method: str, exact: bool, learned: bool = True, model: Callable = model) -> Record:
            made, seconds = model(method)
            start = time.monotonic()
            record = summary(
                reporting().scores(moved(made, reporting(), exact_moments=exact, trust=None if learned else 0.0))
            )
            record["transport s"] = time.monotonic() - start
            if kind == "gaussian2" and method == "composition":
                record |= reporting().monge_error(
                    moved(made, reporting(), exact_moments=exact, trust=None if learned else 0.0, path=True)
                )
            return record | ({"train s": seconds} if learned else {})

        first = seed == seeds[0]
        report.measure(f"composition, seed {seed}", lambda: ours("composition", False))
        if first:
            report.measure("composition, exact moments", lambda: ours("composition", True))
            report.measure("statistics alone", lambda: ours("composition", False, learned=False))
            report.measure("statistics alone, exact moments", lambda: ours("composition", True, learned=False))
        report.measure(f"flow on pairs, seed {seed}", lambda: ours("flow", False))

        def rival(model: Callable = model) -> Record:
            made, seconds = model("plain")
            r = reporting()
            x = made.transport(torch.from_numpy(r.source), torch.from_numpy(r.target)).numpy()
            return summary(r.scores(x)) | {"train s": seconds}

        report.measure(f"plain flow on pairs, seed {seed}", rival)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__, steps=1000)
    options.add_argument("--kinds", nargs="+", choices=TASKS, default=list(TASKS))
    options.add_argument("--pairs", type=int, default=500, help="reporting pairs (default: 500)")
    arguments = options.parse_args()
    seeds, steps, n_pairs = arguments.seeds, arguments.steps, arguments.pairs
    if arguments.quick:
        seeds, steps, n_pairs = seeds[:1], 20, 4
    for kind in arguments.kinds:
        task = TASKS[kind]
        if arguments.quick:
            task = Task(60, 60, 100, task.options, task.plain)
        path = arguments.json and arguments.json.with_name(f"{arguments.json.stem}-{kind}{arguments.json.suffix}")
        settings = {"kind": kind, "steps": steps, "pairs": n_pairs, "quick": arguments.quick}
        report = Report(f"Transport between unseen populations: {kind}", settings, path)
        run(report, kind, task, seeds, steps, n_pairs)
        report.show(by="row")


if __name__ == "__main__":
    main()
