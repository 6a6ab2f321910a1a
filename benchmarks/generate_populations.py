"""Cells generated for unseen simulated populations: ours, closed forms, plain generators, other generators and floor.

Reporting groups are drawn once with seed 9000 and are the same for all methods. A method sees cells of a group, and
generates as many; scores are against the truth (Gaussians) or against further cells that no method has seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from _plain_generators import PlainGenerator
from _report import Record, Report, parser

from scgde import GDE, datasets, metrics
from scgde.nn.generators import GENERATORS

REPORTING_SEED = 9000

#: Cells that exact optimal transport is computed on, and groups at most: it is slow.
W2_CELLS, MAX_W2 = 500, 100

#: Rivals that are no generator of the package.
PLAIN = ("plain flow", "plain DDPM")


PLAIN_DEFAULTS = {
    "flow": {"width": 64, "batch_size": 32, "lr": 6e-3, "steps": 2000},
    "ddpm": {"width": 64, "batch_size": 32, "lr": 3e-3, "steps": 2000},
}


@dataclass(frozen=True)
class Task:
    """Training data, reporting cells, the closed form to beat, and options that tuning (seeds from 100) chose.

    The plain rivals' options are by objective; their steps are as many as take about as long as our training.
    """

    n_groups: int
    n_cells: int
    n_reported: int
    #: Training steps of our models where ``--steps`` says nothing else: about a minute of one core.
    steps: int = 600
    reference: str = "own Gaussian"
    options: dict[str, Any] = field(default_factory=dict)
    plain: dict[str, dict[str, Any]] = field(default_factory=lambda: PLAIN_DEFAULTS)


MIXTURE = "closed-form mixture"
TASKS = {
    "gaussian5": Task(20_000, 64, 1000, 800),
    "gaussian2_centred": Task(20_000, 100, 1000, 800),
    "mixture2": Task(20_000, 200, 500, reference=MIXTURE),
    "cells50": Task(
        500,
        200,
        1000,
        reference=MIXTURE,
        options={"n_components": 10},
        plain=dict.fromkeys(("flow", "ddpm"), {"width": 128, "batch_size": 32, "lr": 3e-3, "steps": 700}),
    ),
}
#: What ``--quick`` measures: choosing the number of components takes longer than all else.
QUICK: dict[str, Any] = {"n_groups": 60, "n_cells": 60, "n_reported": 100, "options": {"n_components": 2}}
QUICK_KINDS = ["gaussian5", "cells50"]


class Reporting:
    """Groups, the cells that methods see, and what their output is scored against."""

    def __init__(self, kind: str, n_groups: int, n_cells: int) -> None:
        self.kind, self.n_cells = kind, n_cells
        self.adata = datasets.simulate_populations(kind, n_groups, n_cells, REPORTING_SEED)
        self.truth = self.adata.uns["populations"]
        self.seen = self.adata.X.reshape(n_groups, n_cells, -1)
        self.scored, self.floor = (datasets.draw_cells(self.truth, n_cells, seed=seed) for seed in (1, 2))

    @cached_property
    def _floor_w2(self) -> np.ndarray:
        return np.array([self._w2(x, y) for x, y in self._first(self.floor)])

    def _first(self, made: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(zip(made, self.scored, strict=True))[:MAX_W2]

    @staticmethod
    def _w2(x: np.ndarray, y: np.ndarray) -> float:
        return metrics.w2_empirical(x[:W2_CELLS], y[:W2_CELLS])

    def scores(self, made: np.ndarray) -> dict[str, np.ndarray]:
        """(groups,) values by name, of generated cells (groups, cells, features)."""
        scores = {}
        if self.kind.startswith("gaussian"):
            truth = list(zip(self.truth["means"][:, 0], self.truth["covs"][:, 0], strict=True))
            own = [(x.mean(0), np.cov(x.T, ddof=0)) for x in made.astype(float)]
            both = [(*a, *b) for a, b in zip(own, truth, strict=True)]
            scores["W2"] = np.array([metrics.w2_gaussian(*each) for each in both])
            shift = np.array([np.linalg.norm(m - n) for m, _, n, _ in both])
            # The papers add the distance of the means, not its square, to the squared distance of the covariances.
            scores["papers' metric"] = shift + scores["W2"] - shift**2
            return scores
        scores["energy"] = np.array([metrics.energy_distance(x, y) for x, y in zip(made, self.scored, strict=True)])
        if self.kind.startswith("mixture"):
            scores["W2 excess"] = np.array([self._w2(x, y) for x, y in self._first(made)]) - self._floor_w2
        if self.kind == "cells50":
            scores["proportions"] = np.square(self.proportions(made) - self.truth["weights"]).mean(1)
        return scores

    def proportions(self, made: np.ndarray) -> np.ndarray:
        """(groups, types) shares of the cell types, by the nearest mean of the group's own types."""
        means = self.truth["means"]
        nearest = np.stack([np.square(x[:, None] - m).sum(-1).argmin(1) for x, m in zip(made, means, strict=True)])
        return (nearest[..., None] == np.arange(means.shape[1])).mean(1)


def summary(scores: dict[str, np.ndarray], reference: dict[str, np.ndarray] | None = None) -> Record:
    """Mean of each score, upper end of its 95% interval, and paired difference from a reference with 2 errors."""
    record = {}
    for name, values in scores.items():
        record[name] = float(values.mean())
        record[f"{name}, upper"] = float(values.mean() + 1.96 * _error(values))
        if reference is not None:
            difference = values - reference[name]
            record[f"{name}, difference"] = float(difference.mean())
            record[f"{name}, 2 se"] = float(2 * _error(difference))
    return record


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)


def gaussian_sample(cells: np.ndarray, covariance: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Draw from Gaussians with the groups' means and their own covariances, or one for all; needs no training."""
    x = cells.astype(float)
    mean = x.mean(1, keepdims=True)
    own = np.einsum("gni,gnj->gij", x - mean, x - mean) / x.shape[1] if covariance is None else covariance[None]
    root = np.linalg.cholesky(own + 1e-9 * np.eye(x.shape[-1]))
    noise = np.random.default_rng(seed).standard_normal(x.shape)
    return (mean + noise @ np.swapaxes(root, 1, 2)).astype(np.float32)


def within_covariance(cells: np.ndarray) -> np.ndarray:
    """Covariance around the means of the groups, over all of them."""
    centred = (cells - cells.mean(1, keepdims=True)).reshape(-1, cells.shape[-1])
    return centred.T.astype(float) @ centred / len(centred)


class Models:
    """Trained models of one kind of populations; the last one and the last training data are kept."""

    def __init__(self, kind: str, task: Task, steps: int) -> None:
        self.kind, self.task, self.steps = kind, task, steps
        self._data: tuple[int | None, Any] = (None, None)
        self._model: tuple[Any, Any] = (None, None)

    def data(self, seed: int) -> Any:
        """Training populations."""
        if self._data[0] != seed:
            self._data = (seed, datasets.simulate_populations(self.kind, self.task.n_groups, self.task.n_cells, seed))
        return self._data[1]

    def cells(self, seed: int) -> np.ndarray:
        """The same as an array (groups, cells, features)."""
        return self.data(seed).X.reshape(self.task.n_groups, self.task.n_cells, -1)

    def __call__(self, name: str, seed: int, steps: int | None = None) -> tuple[Any, float]:
        """A trained model, and the seconds that it took."""
        key, steps = (name, seed, steps), self.steps if steps is None else steps
        if self._model[0] != key:
            data, start = self.data(seed), time.monotonic()
            if name in PLAIN:
                x = torch.from_numpy(self.cells(seed))
                objective = name.removeprefix("plain ").lower()
                given = dict(self.task.plain[objective])
                n_steps = given.pop("steps")
                model: Any = PlainGenerator(objective, x.shape[-1], seed=seed, **given).fit(x, n_steps)
            else:
                GDE.setup_anndata(data, "group")
                model = GDE(data, generator=name, seed=seed, **self.task.options)
                model.train(max_steps=steps, enable_progress_bar=False)
            self._model = (key, (model, time.monotonic() - start))
        return self._model[1]


def generated(model: GDE, reporting: Reporting, *, exact: bool = False, trust: float | None = None) -> np.ndarray:
    """Cells of all reporting groups, (groups, cells, features)."""
    made = model.sample(None, reporting.n_cells, adata=reporting.adata, exact_moments=exact, trust=trust, seed=1)
    return made.X.reshape(reporting.seen.shape)


def run(report: Report, kind: str, task: Task, seeds: list[int], steps: int, n_groups: int, names: list[str]) -> None:
    """Measure every method."""
    models, kept = Models(kind, task, steps), {}

    def reporting() -> Reporting:
        if "reporting" not in kept:
            kept["reporting"] = Reporting(kind, n_groups, task.n_reported)
        return kept["reporting"]

    def statistics() -> np.ndarray:
        # One step fits the statistics; at trust 0 nothing else counts.
        return generated(models("flow", seeds[0], 1)[0], reporting(), exact=True, trust=0.0)

    simple: dict[str, Callable[[], np.ndarray]] = {
        "floor": lambda: reporting().floor,
        "another group": lambda: np.roll(reporting().seen, 1, axis=0),
        "own Gaussian": lambda: gaussian_sample(reporting().seen),
        "constant covariance": lambda: gaussian_sample(reporting().seen, within_covariance(models.cells(seeds[0]))),
        MIXTURE: statistics,
    }

    def reference() -> dict[str, np.ndarray]:
        if "reference" not in kept:
            kept["reference"] = reporting().scores(simple[task.reference]())
        return kept["reference"]

    def measure(key: str, make: Callable[[], tuple[np.ndarray, Record]]) -> None:
        def record() -> Record:
            made, more = make()
            return summary(reporting().scores(made), reference()) | more

        report.measure(key, record)

    for key, make in simple.items():
        measure(key, lambda make=make: (make(), {}))
    for seed in seeds:
        for name in names if seed == seeds[0] else [n for n in names if n in ("flow", *PLAIN)]:
            for key, options in _rows(name).items():

                def make(name=name, options=options, seed=seed) -> tuple[np.ndarray, Record]:
                    model, seconds = models(name, seed)
                    start = time.monotonic()
                    if name in PLAIN:
                        made = model.sample(torch.from_numpy(reporting().seen), task.n_reported).numpy()
                    else:
                        made = generated(model, reporting(), **options)
                    return made, {"sample s": time.monotonic() - start, "train s": seconds}

                measure(f"{key}, seed {seed}", make)


def _rows(name: str) -> dict[str, dict[str, Any]]:
    """Rows of a method: the default generator also with the statistics measured on the cells, and with them alone."""
    if name != "flow":
        return {name: {}}
    return {"flow": {}, "flow, measured statistics": {"exact": True}, "flow, statistics alone": {"trust": 0.0}}


def main() -> None:
    """Measure and print."""
    options = parser(__doc__, steps=None)
    known = ["flow", *PLAIN, *(name for name in GENERATORS if name != "flow")]
    options.add_argument("--kinds", nargs="+", choices=TASKS, help="default: all; with --quick two of them")
    options.add_argument("--methods", nargs="+", choices=known, default=known)
    options.add_argument("--groups", type=int, default=500, help="reporting groups (default: 500)")
    arguments = options.parse_args()
    seeds, n_groups = arguments.seeds, arguments.groups
    if arguments.quick:
        seeds, n_groups = seeds[:1], 4
    for kind in arguments.kinds or (QUICK_KINDS if arguments.quick else TASKS):
        task = TASKS[kind]
        steps = arguments.steps or task.steps
        if arguments.quick:
            steps = 5
            plain = {name: {**given, "steps": steps} for name, given in task.plain.items()}
            task = Task(**QUICK, reference=task.reference, plain=plain)
        path = arguments.json and arguments.json.with_name(f"{arguments.json.stem}-{kind}{arguments.json.suffix}")
        settings = {"kind": kind, "steps": steps, "groups": n_groups, "quick": arguments.quick}
        report = Report(f"Generated cells of unseen populations: {kind}", settings, path)
        run(report, kind, task, seeds, steps, n_groups, arguments.methods)
        report.show(by="row")
        print(f"Differences are from: {task.reference}.")


if __name__ == "__main__":
    main()
