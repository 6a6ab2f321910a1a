"""The registry of metrics, and the matrix of distances between many groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ._energy import energy_distance
from ._mmd import mmd_rbf_median
from ._wasserstein import gaussian_w2, sliced_w2, w2_empirical

METRICS: dict[str, Callable[..., float]] = {
    "energy": energy_distance,
    "mmd_rbf_median": mmd_rbf_median,
    "sliced": sliced_w2,
    "w2": w2_empirical,
    "gaussian_w2": gaussian_w2,
}


def pairwise(
    groups: Sequence[Any],
    *,
    metric: str | Callable[..., float] = "energy",
    progress: bool = False,
) -> np.ndarray:
    """Distances between all pairs of groups, one pair at a time.

    Parameters
    ----------
    groups
        Cells of each group, arrays of shape (n_cells of the group, features); or what a function as ``metric`` takes.
    metric
        A name in :data:`METRICS`, or a symmetric function of two groups.
    progress
        Whether to show a progress bar over pairs.

    Returns
    -------
    Symmetric matrix, shape (groups, groups), float64; the diagonal is 0.

    Raises
    ------
    ValueError
        For an unknown metric, and for groups that the metric refuses (which are named).
    """
    if isinstance(metric, str):
        if metric not in METRICS:
            msg = f"metric={metric!r} is unknown: choose from {sorted(METRICS)}, or give a function of two arrays."
            raise ValueError(msg)
        metric = METRICS[metric]
    distances = np.zeros((len(groups), len(groups)))
    pairs = list(combinations(range(len(groups)), 2))
    for i, j in tqdm(pairs, disable=not progress, desc="pairs of groups"):
        try:
            distances[i, j] = distances[j, i] = metric(groups[i], groups[j])
        except ValueError as error:
            msg = f"No distance between groups {i} (x) and {j} (y): {error}"
            raise ValueError(msg) from error
    return distances
