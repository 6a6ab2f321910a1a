"""Forecasting toys in 2-D: Gaussian groups at two times, seen as pairs in one region and as orphans elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from anndata import AnnData

from ._populations import _CELLS, _FURTHER_CELLS, _PARAMETERS, KINDS, Parameters, _gaussian_noise

_TIMES = ["0", "1"]
_EXTENT = 5.0  # means at the source time are uniform in [0, _EXTENT]^2
_ORPHANS = 3  # the stream of random numbers that chooses their time, after those of `_populations`


def _same_shape(means: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.eye(2), (len(means), 2, 2))


def _shape_by_location(means: np.ndarray) -> np.ndarray:
    first, second = means.T / _EXTENT
    tilt = second - 0.5
    return np.stack([1 + first, tilt, tilt, np.ones_like(tilt)], axis=-1).reshape(-1, 2, 2)


SHIFTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"shift": _same_shape, "shape": _shape_by_location}


def simulate_shifts(kind: str, n_groups: int, n_cells: int, seed: int, *, paired_region: float = 2.5) -> AnnData:
    """Simulate Gaussian groups at two times, of which only those in one region of space are seen at both.

    At time "0" a group has a mean m uniform in [0, 5]^2 and an inverse Wishart(10, I) covariance (``gaussian2`` of
    :func:`simulate_populations`). Between the times each cell x moves to m + (1, 1) + A (x - m), with A the identity
    (`kind` ``shift``) or a stretch whose size and axes change with the location (``shape``)::

        A(m) = [[1 + m_1 / 5,   m_2 / 5 - 1/2],
                [m_2 / 5 - 1/2, 1            ]]

    A is linear in m, so that its course outside the region with pairs can be inferred from the inside. It is positive
    definite in [0, 5]^2. The cells at the two times are independent draws: no cell is seen twice.

    Parameters
    ----------
    kind
        A name in :data:`SHIFTS`: ``shift`` or ``shape``.
    n_groups
        Number of groups.
    n_cells
        Cells of each group at each time at which it is seen. Parameters do not depend on it.
    seed
        Non-negative integer; parameters and cells are a function of it.
    paired_region
        Groups with m in [0, `paired_region`]^2 are seen at both times, all others are orphans: a random half of them is
        seen at time "0", the other half at time "1".

    Returns
    -------
    AnnData with float32 X (cells, 2); `.obs` with ``group``, whose i-th category is the i-th row of the parameters,
    ``time`` ("0" < "1") and ``region`` ("inside", "outside"); `.uns["shifts"]`, the settings and the true ``means``
    (groups, times, 2), ``covs`` (groups, times, 2, 2), ``observed`` (groups, times) and ``inside`` (groups,) of all
    groups, seen or not.

    Raises
    ------
    ValueError
        For an unknown kind and for numbers out of range.

    Notes
    -----
    Source: the supervised toys of arXiv 2603.04736 (region, means, covariances and shift). The paper's second toy is a
    mixture; here the shape of one Gaussian changes, for which the Wasserstein distance is known in closed form.
    """
    if kind not in SHIFTS:
        msg = f"kind={kind!r} is unknown: choose from {sorted(SHIFTS)}."
        raise ValueError(msg)
    if n_groups < 1 or n_cells < 1:
        msg = f"n_groups={n_groups} and n_cells={n_cells}: both must be at least 1."
        raise ValueError(msg)
    if not 0 <= paired_region <= _EXTENT:
        msg = f"paired_region={paired_region} must be between 0 (no pairs) and {_EXTENT:g} (no orphans)."
        raise ValueError(msg)
    truth = _parameters(kind, n_groups, seed, paired_region)
    # Rows of `observed` are groups: the cells of a group stay together, and its times are in order.
    group, time = (np.repeat(index, n_cells) for index in np.nonzero(truth["observed"]))
    width = len(str(n_groups - 1))
    names = pd.Index([f"group_{i:0{width}d}" for i in range(n_groups)])
    outside = np.where(truth["inside"], 0, 1)[group]
    obs = pd.DataFrame(
        {
            "group": pd.Categorical.from_codes(group, names),
            "time": pd.Categorical.from_codes(time, pd.Index(_TIMES), ordered=True),
            "region": pd.Categorical.from_codes(outside, pd.Index(["inside", "outside"])),
        },
        index=pd.RangeIndex(len(group)).astype(str),
    )
    settings = {"kind": kind, "seed": seed, "n_cells": n_cells, "paired_region": paired_region}
    x = _draw(truth, group, time, np.random.default_rng([seed, _CELLS]))
    return AnnData(x, obs=obs, uns={"shifts": settings | truth})


def draw_shift_cells(parameters: dict, time: str, n_cells: int, seed: int) -> np.ndarray:
    """Draw further cells of all groups at one time, also of groups that are not seen at that time.

    Parameters
    ----------
    parameters
        `.uns["shifts"]` of :func:`simulate_shifts`.
    time
        "0" or "1".
    n_cells
        Cells of each group.
    seed
        Non-negative integer. Two draws that differ in seed or time are independent, and no draw repeats the cells of
        :func:`simulate_shifts`.

    Returns
    -------
    float32 cells, shape (groups, n_cells, 2).

    Raises
    ------
    ValueError
        For an unknown time.
    """
    if time not in _TIMES:
        msg = f"time={time!r} is unknown: choose from {_TIMES}."
        raise ValueError(msg)
    index, n_groups = _TIMES.index(time), len(parameters["means"])
    group = np.repeat(np.arange(n_groups), n_cells)
    rng = np.random.default_rng([seed, _FURTHER_CELLS, index])
    return _draw(parameters, group, np.full_like(group, index), rng).reshape(n_groups, n_cells, 2)


def _parameters(kind: str, n_groups: int, seed: int, paired_region: float) -> Parameters:
    source = KINDS["gaussian2"].parameters(n_groups, np.random.default_rng([seed, _PARAMETERS]))
    mean, cov = source["means"][:, 0], source["covs"][:, 0]
    change = SHIFTS[kind](mean)
    inside: np.ndarray = mean.max(axis=1) <= paired_region
    # Drawn for all groups, so that the order of the orphans does not depend on the region.
    order = np.random.default_rng([seed, _ORPHANS]).permutation(n_groups)
    orphans = order[~inside[order]]
    observed = np.ones((n_groups, 2), dtype=bool)
    observed[orphans[::2], 1] = False
    observed[orphans[1::2], 0] = False
    return {
        "means": np.stack([mean, mean + 1], axis=1),
        "covs": np.stack([cov, change @ cov @ np.swapaxes(change, 1, 2)], axis=1),
        "observed": observed,
        "inside": inside,
    }


def _draw(truth: dict, group: np.ndarray, time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return truth["means"].astype(np.float32)[group, time] + _gaussian_noise(truth, group, time, rng)
