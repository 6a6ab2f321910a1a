"""What a forecast is to be compared with: forecasts that no model of embeddings over time makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import ot
from sklearn.neighbors import NearestNeighbors

#: Training cells per time that an optimal transport plan is computed for; more are subsampled to this number.
MAX_PLAN_CELLS = 2000


class Given(NamedTuple):
    """What a baseline knows.

    Parameters
    ----------
    cells
        (n_cells, features) cells of the groups to forecast, at the source time.
    source, target
        (n, features) cells of all training groups at the source time, and (m, features) at the target time.
    source_weight, target_weight
        (n,) and (m,) their masses, or None where all are equal.
    seed
        Seed of draws.
    """

    cells: np.ndarray
    source: np.ndarray
    target: np.ndarray
    source_weight: np.ndarray | None
    target_weight: np.ndarray | None
    seed: int


def identity(given: Given) -> np.ndarray:
    """Cells stay where they are."""
    return given.cells


def pooled(given: Given) -> np.ndarray:
    """Each cell becomes a random cell of the pooled target population: right on average, and blind to the group."""
    mass = _masses(given.target_weight, len(given.target))
    return given.target[np.random.default_rng(given.seed).choice(len(given.target), len(given.cells), p=mass)]


def nearest_ot(given: Given) -> np.ndarray:
    """Each cell goes where the optimal transport plan of all training cells sends the training cell nearest to it.

    The plan is exact, for squared distances and equal total masses; where it splits the nearest cell's mass, one end is
    drawn. Ends are real cells.

    Notes
    -----
    Optimal transport between time points: Schiebinger et al., "Optimal-transport analysis of single-cell gene
    expression" (Cell, 2019), there with entropy and growth.
    """
    rng = np.random.default_rng(given.seed)
    (source, a), (target, b) = (
        _subsample(x, weight, rng)
        for x, weight in ((given.source, given.source_weight), (given.target, given.target_weight))
    )
    plan = ot.emd(a, b, ot.dist(source, target), numItermax=10_000_000)
    nearest = NearestNeighbors(n_neighbors=1).fit(source).kneighbors(given.cells, return_distance=False)[:, 0]
    # One sorted table of all rows: row i runs from i to i + 1 as its mass cumulates.
    table = (np.arange(len(plan))[:, None] + plan.cumsum(axis=1) / plan.sum(axis=1, keepdims=True)).ravel()
    place = np.searchsorted(table, nearest + rng.random(len(nearest)), side="right")
    return target[np.minimum(place - nearest * len(target), len(target) - 1)].astype(given.cells.dtype)


#: Baselines that make cells of cells. Every entry is found by the contract tests.
BASELINES: dict[str, Callable[[Given], np.ndarray]] = {
    "identity": identity,
    "pooled": pooled,
    "nearest_ot": nearest_ot,
}


def _masses(weight: np.ndarray | None, n: int) -> np.ndarray:
    mass = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
    return mass / mass.sum()


def _subsample(x: np.ndarray, weight: np.ndarray | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """At most :data:`MAX_PLAN_CELLS` cells of positive mass in float64, and their masses."""
    mass = _masses(weight, len(x))
    kept = np.flatnonzero(mass)
    if len(kept) > MAX_PLAN_CELLS:
        kept = np.sort(rng.choice(kept, MAX_PLAN_CELLS, replace=False))
    return x[kept].astype(np.float64), mass[kept] / mass[kept].sum()
