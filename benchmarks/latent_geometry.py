"""Distances between embeddings beside exact W2, and the line between two embeddings beside the OT geodesic.

Reporting groups are drawn once with seed 9000: the first half are paired with the second. Embeddings and closed forms
see the groups' cells; the truth is the closed form (Gaussians) or exact optimal transport between further cells.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import ot
import torch
from _report import Record, Report, parser
from generate_populations import QUICK, W2_CELLS, Models, Reporting, Task
from scipy.stats import spearmanr
from transport_populations import gaussian_transport

from scgde import metrics
from scgde.models._distances import mixtures_of
from scgde.nn.transport import gaussian_map

TASKS = {
    "gaussian2": Task(20_000, 100, 1000),
    "mixture2": Task(20_000, 200, 500),
    "mixture2_centred": Task(20_000, 200, 500),
}

#: Pairs whose paths are followed, and the populations on a path, both ends included.
MAX_PATHS, POSITIONS = 100, np.linspace(0, 1, 11)

#: Resamples of pairs for intervals of rank correlations.
N_BOOTSTRAP = 1000


class Pairs(Reporting):
    """Pairs of groups and their true distances and geodesics."""

    def __init__(self, kind: str, n_pairs: int, n_cells: int) -> None:
        super().__init__(kind, 2 * n_pairs, n_cells)
        self.n_pairs, self.n_paths = n_pairs, min(n_pairs, MAX_PATHS)
        self.names = list(self.adata.obs["group"].cat.categories)

    def distances(self, metric: Callable[[np.ndarray, np.ndarray], float], cells: np.ndarray) -> np.ndarray:
        """(pairs,) a metric between the cells (groups, cells, features) of each pair."""
        return np.array([metric(cells[p], cells[p + self.n_pairs]) for p in range(self.n_pairs)])

    @cached_property
    def exact(self) -> np.ndarray:
        """(pairs,) W2 squared between the populations."""
        if self.kind != "gaussian2":
            return self.distances(self._w2, self.scored)
        mean, cov = self.truth["means"][:, 0], self.truth["covs"][:, 0]
        ends = [(p, p + self.n_pairs) for p in range(self.n_pairs)]
        return np.array([metrics.w2_gaussian(mean[a], cov[a], mean[b], cov[b]) for a, b in ends])

    def geodesic(self, cells: np.ndarray) -> np.ndarray:
        """(positions, paths, cells, features) on the geodesics between the cells of the first pairs."""
        paths = []
        for p in range(self.n_paths):
            x, y = (cells[i, :W2_CELLS].astype(float) for i in (p, p + self.n_pairs))
            plan = ot.emd([], [], ot.dist(x, y), numItermax=10_000_000)
            paths.append([(1 - t) * x + t * y[plan.argmax(1)] for t in POSITIONS])
        return np.swapaxes(np.array(paths), 0, 1)

    @cached_property
    def _true_path(self) -> np.ndarray:
        return self.geodesic(self.scored)

    def path_errors(self, path: np.ndarray) -> np.ndarray:
        """(paths,) W2 squared to the geodesic, averaged over the positions inside.

        Parameters
        ----------
        path
            (positions, paths, cells, features).
        """
        inside = range(1, len(POSITIONS) - 1)
        if self.kind == "gaussian2":
            truth = [self._gaussian_at(t) for t in POSITIONS]
            errors = [
                [
                    metrics.w2_gaussian(x.mean(0), np.cov(x.T, ddof=0), *moments)
                    for x, moments in zip(path[i], truth[i], strict=True)
                ]
                for i in inside
            ]
        else:
            errors = [[self._w2(x, y) for x, y in zip(path[i], self._true_path[i], strict=True)] for i in inside]
        return np.mean(errors, axis=0)

    def _gaussian_at(self, t: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """Mean and covariance of each geodesic at t."""
        mean, cov = self.truth["means"][:, 0], self.truth["covs"][:, 0]
        (m0, m1), (c0, c1) = ((each[: self.n_paths], each[self.n_pairs :][: self.n_paths]) for each in (mean, cov))
        own = torch.eye(mean.shape[1]).double()
        maps = ((1 - t) * own + t * gaussian_map(torch.from_numpy(c0), torch.from_numpy(c1))).numpy()
        return list(zip((1 - t) * m0 + t * m1, maps @ c0 @ np.swapaxes(maps, 1, 2), strict=True))


def rank_agreement(distance: np.ndarray, exact: np.ndarray, other: np.ndarray) -> Record:
    """Spearman correlation with the exact distances, and its difference from that of ``other``, with 95% intervals."""
    rng, n = np.random.default_rng(0), len(exact)
    draws = [rng.integers(n, size=n) for _ in range(N_BOOTSTRAP)]
    own, reference = (np.array([_spearman(d[i], exact[i]) for i in draws]) for d in (distance, other))
    low, high = np.nanquantile(own - reference, [0.025, 0.975])
    return {
        "Spearman": _spearman(distance, exact),
        "lower": float(np.nanquantile(own, 0.025)),
        "minus moments": _spearman(distance, exact) - _spearman(other, exact),
        "from": float(low),
        "to": float(high),
    }


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(spearmanr(a, b).statistic)


def linear_mixing(pairs: Pairs) -> np.ndarray:
    """Paths on which cells of the target replace cells of the source, (positions, paths, cells, features)."""
    x, y = (pairs.seen[s : s + pairs.n_paths] for s in (0, pairs.n_pairs))
    order = np.random.default_rng(0).permutation(x.shape[1])
    return np.stack([np.where((order < t * len(order))[None, :, None], y, x) for t in POSITIONS])


def run(report: Report, kind: str, task: Task, seeds: list[int], steps: int, n_pairs: int) -> None:
    """Measure every method."""
    models, kept = Models(kind, task, steps), {}

    def pairs() -> Pairs:
        if "pairs" not in kept:
            kept["pairs"] = Pairs(kind, n_pairs, task.n_reported)
            kept["moments"] = kept["pairs"].distances(metrics.gaussian_w2, kept["pairs"].seen)
        return kept["pairs"]

    def ranks(distance: np.ndarray) -> Record:
        return rank_agreement(distance, pairs().exact, kept["moments"])

    def path(positions: np.ndarray) -> Record:
        errors = pairs().path_errors(positions)
        return {
            "path error": float(errors.mean()),
            "path error, upper": float(errors.mean() + 1.96 * errors.std(ddof=1) / len(errors) ** 0.5),
        }

    def moment_path() -> np.ndarray:
        x, y = (pairs().seen[s : s + pairs().n_paths] for s in (0, n_pairs))
        moved = gaussian_transport(x, y)
        return np.stack([(1 - t) * x + t * moved for t in POSITIONS])

    report.measure("W2 of the cells seen", lambda: ranks(pairs().distances(pairs()._w2, pairs().seen)))
    report.measure("geodesic of other cells (floor)", lambda: path(pairs().geodesic(pairs().floor)))
    report.measure("linear mixing", lambda: path(linear_mixing(pairs())))
    mean_distance = lambda x, y: float(np.linalg.norm(x.mean(0) - y.mean(0)))  # noqa: E731
    report.measure("mean alone", lambda: ranks(pairs().distances(mean_distance, pairs().seen)))
    report.measure(
        "closed-form moments", lambda: ranks(pairs().distances(metrics.gaussian_w2, pairs().seen)) | path(moment_path())
    )
    for seed in seeds:
        for name, row in _rows(models, seed, pairs, ranks, path).items():
            report.measure(f"{name}, seed {seed}", row)


def _rows(
    models: Models,
    seed: int,
    pairs: Callable[[], Pairs],
    ranks: Callable[[np.ndarray], Record],
    path: Callable[[np.ndarray], Record],
) -> dict[str, Callable[[], Record]]:
    """Rows of the default model: the embedding, its two parts, and what it generates on the way."""

    def distance(part: slice) -> np.ndarray:
        z = models("flow", seed)[0].get_group_embedding(pairs().adata, key_added=None).to_numpy()[:, part]
        return np.linalg.norm(z[: pairs().n_pairs] - z[pairs().n_pairs :], axis=1)

    def between_mixtures() -> np.ndarray:
        model = models("flow", seed)[0]
        z = torch.tensor(model.get_group_embedding(pairs().adata, key_added=None).to_numpy())
        mixtures, n = mixtures_of(model.module, z), pairs().n_pairs
        return np.array([metrics.w2_mixture(x, y) for x, y in zip(mixtures[:n], mixtures[n:], strict=True)])

    def positions(exact: bool, trust: float | None) -> np.ndarray:
        model, names = models("flow", seed)[0], pairs().names
        n, size = len(POSITIONS), pairs().seen.shape[1:]
        paths = [
            model.interpolate(
                names[p],
                names[p + pairs().n_pairs],
                n,
                n_cells=size[0],
                adata=pairs().adata,
                exact_moments=exact,
                trust=trust,
            ).X.reshape(n, *size)
            for p in range(pairs().n_paths)
        ]
        return np.stack(paths, axis=1)

    def n_coordinates() -> int:
        return models("flow", seed)[0].module.n_coordinates

    return {
        "embedding": lambda: (
            ranks(distance(slice(None))) | path(positions(False, None)) | {"train s": models("flow", seed)[1]}
        ),
        # What group_distances(metric="mixture") is, of the pairs alone.
        "embedding, its mixtures": lambda: ranks(between_mixtures()),
        "embedding, measured statistics": lambda: path(positions(True, None)),
        "statistics alone": lambda: ranks(distance(slice(n_coordinates()))) | path(positions(False, 0.0)),
        "code alone": lambda: ranks(distance(slice(n_coordinates(), None))),
    }


def main() -> None:
    """Measure and print."""
    options = parser(__doc__, steps=600)
    options.add_argument("--kinds", nargs="+", choices=TASKS, help="default: all; with --quick two of them")
    options.add_argument("--pairs", type=int, default=500, help="reporting pairs (default: 500)")
    arguments = options.parse_args()
    seeds, steps, n_pairs = arguments.seeds, arguments.steps, arguments.pairs
    if arguments.quick:
        seeds, steps, n_pairs = seeds[:1], 5, 4
    for kind in arguments.kinds or (list(TASKS)[:2] if arguments.quick else TASKS):
        task = Task(**QUICK) if arguments.quick else TASKS[kind]
        path = arguments.json and arguments.json.with_name(f"{arguments.json.stem}-{kind}{arguments.json.suffix}")
        settings = {"kind": kind, "steps": steps, "pairs": n_pairs, "quick": arguments.quick}
        report = Report(f"Geometry of the embedding: {kind}", settings, path)
        run(report, kind, task, seeds, steps, n_pairs)
        report.show(by="row")


if __name__ == "__main__":
    main()
