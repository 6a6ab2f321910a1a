"""Simulated lineage tracing: clones that differentiate along a branching tree and grow, most seen on one day only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.special import softmax
from scipy.stats import norm

FATES = ("fate_a", "fate_b", "fate_c")
_CELL_TYPES = ("progenitor", *FATES)

_SPEED = 0.25  # progress of a typical clone per day; the tree branches at progress 1
_PROGRESS_SD = 0.25  # between the cells of a clone
_FATE_GROWTH = np.array([-0.15, 0.0, 0.15])  # per day, added to the growth of the clone
_MAX_FEATURES = 50

# Streams of random numbers: parameters do not depend on what is observed, nor on how many cells are drawn.
_PARAMETERS, _DESIGN, _COUNTS, _CELLS, _TRUTH = range(5)


class _Clones(NamedTuple):
    """Parameters of the clones and the laws that follow from them."""

    factor: np.ndarray  # (clones, 2): visible in all cells, and bends the fates
    shift: np.ndarray  # (clones, 2): visible in all cells, unrelated to the fates
    lineage: np.ndarray  # (clones, days, fates): number of cells that have, or will have, each fate
    progress: np.ndarray  # (clones, days): mean progress of the cells


def simulate_clones(
    n_clones: int = 400,
    n_cells: tuple[float, float] = (10, 60),
    *,
    days: Sequence[float] = (2, 4, 6),
    orphan_fraction: float = 0.9,
    bias: float = 1.5,
    irreducible: float = 0.3,
    growth: float = 0.4,
    sampling_depth: Sequence[float] | None = None,
    n_features: int = 20,
    n_truth_cells: int = 200,
    seed: int = 0,
) -> tuple[AnnData, AnnData]:
    """Simulate clones that differentiate into three fates and grow, observed destructively on some days.

    Cells move along a tree: a stem of progenitors, which at progress 1 splits into three curved branches. On a day, the
    progress of a clone's cells is normal with standard deviation 0.25 around the day x the clone's own speed
    (log-normal around 0.25 per day, 15%). The cells of clone c destined for fate k number, at time t after the first
    day,

        N_ck(t) = N_c p_ck exp(t (growth + g_k + e_c)),    g = (-0.15, 0, 0.15),    e_c ~ N(0, 0.1^2) per day

    with fate probabilities p_c = softmax(`bias` V (sqrt(1 - `irreducible`) u_c + sqrt(`irreducible`) h_c)), V three
    unit vectors 120 degrees apart, and u_c, h_c ~ N(0, I_2). All cells of the clone, early ones too, are displaced by
    its factor u_c and by a shift that has nothing to do with fate; h_c, e_c and the fate of a single progenitor leave
    no trace in its position. What is observed on a day are independent draws (sequencing destroys cells), their number
    Poisson with mean sampling depth x clone size: it can be 0.

    Parameters
    ----------
    n_clones
        Number of clones.
    n_cells
        Smallest and largest clone size N_c on the first day (log-uniform between them).
    days
        Days of observation, positive and increasing, at least two.
    orphan_fraction
        Share of clones, rounded to a whole number, that are observed on a single day, each on a random one. The others
        are observed on all days.
    bias
        How strongly clones differ in their fates; 0 gives each fate one third.
    irreducible
        Share of the variance of the clones' log odds that cannot be seen in early cells, between 0 and 1.
    growth
        Typical growth rate per day.
    sampling_depth
        Expected share of a clone's cells that are observed on each day, one number per day. By default it makes up for
        `growth`: exp(-`growth` x time after the first day).
    n_features
        Number of features, 8 to 50: a linear map of tree, factor and shift (the same for all seeds) plus noise, the
        j-th at scale j^(-1/2), much like principal components.
    n_truth_cells
        Cells of each clone on each day in the truth. Parameters and observed cells do not depend on it.
    seed
        Non-negative integer; both results are a function of it.

    Returns
    -------
    observed
        AnnData with float32 X (cells, features); `.obs` with ``clone``, ``day`` (ordered categorical: "2" < "4" < …)
        and ``cell_type`` ("progenitor" up to progress 1, then the fate); the settings in `.uns["simulate_clones"]`.
    truth
        AnnData of further, independent cells of every clone on every day, with the destined ``fate`` and the
        ``progress`` of each cell in `.obs` too. `.uns["clones"]` holds the names ``clone``, ``day`` and ``cell_type``
        and the exact ``fate_proportions`` (clones, days, cell types), expected ``size`` (clones, days), ``log_growth``
        (clones, days - 1; log ratio of sizes on consecutive days), ``factor`` (clones, 2), ``paired`` (clones,) and the
        number of cells in `observed`, ``n_observed`` (clones, days).

    Raises
    ------
    ValueError
        For numbers out of range, naming all of them.
    """
    low, high = n_cells
    day = np.asarray(days, dtype=float)
    _check(n_clones, low, high, day, orphan_fraction, bias, irreducible, growth, n_features, n_truth_cells)
    depth = np.exp(-growth * (day - day[0])) if sampling_depth is None else np.asarray(sampling_depth, dtype=float)
    if depth.shape != day.shape or not (np.isfinite(depth) & (depth > 0)).all():
        msg = f"sampling_depth={sampling_depth!r} must be one positive number for each of the {len(day)} days."
        raise ValueError(msg)

    clones = _clones(n_clones, low, high, day, bias, irreducible, growth, _rng(seed, _PARAMETERS))
    size = clones.lineage.sum(axis=-1)
    seen, paired = _design(n_clones, len(day), orphan_fraction, _rng(seed, _DESIGN))
    n_observed = _rng(seed, _COUNTS).poisson(depth * size) * seen
    names = {
        "clone": _names("clone", n_clones),
        "day": np.array([f"{value:.15g}" for value in day]),
        "cell_type": np.array(_CELL_TYPES),
    }
    observed = _draw(clones, n_observed, n_features, names, _rng(seed, _CELLS))
    observed.uns["simulate_clones"] = {
        "days": day,
        "orphan_fraction": orphan_fraction,
        "bias": bias,
        "irreducible": irreducible,
        "growth": growth,
        "sampling_depth": depth,
        "seed": seed,
    }
    truth = _draw(clones, np.full(size.shape, n_truth_cells), n_features, names, _rng(seed, _TRUTH))
    truth.uns["clones"] = names | {
        "fate_proportions": _fate_proportions(clones),
        "size": size,
        "log_growth": np.diff(np.log(size), axis=1),
        "factor": clones.factor,
        "paired": paired,
        "n_observed": n_observed,
    }
    observed.obs = observed.obs.drop(columns=["fate", "progress"])
    return observed, truth


def _check(
    n_clones: int,
    low: float,
    high: float,
    day: np.ndarray,
    orphan_fraction: float,
    bias: float,
    irreducible: float,
    growth: float,
    n_features: int,
    n_truth_cells: int,
) -> None:
    n_latent = len(_loadings())
    ordered = day.ndim == 1 and len(day) > 1 and np.isfinite(day).all() and day[0] > 0 and (np.diff(day) > 0).all()
    requirements = {
        f"n_clones={n_clones} must be at least 1": n_clones >= 1,
        f"n_cells={(low, high)} must be (smallest, largest) with 0 < smallest <= largest": 0 < low <= high < np.inf,
        f"days={day.tolist()} must be at least two positive numbers in increasing order": ordered,
        f"orphan_fraction={orphan_fraction} must be between 0 and 1": 0 <= orphan_fraction <= 1,
        f"bias={bias} must be finite and not negative": 0 <= bias < np.inf,
        f"irreducible={irreducible} must be between 0 and 1": 0 <= irreducible <= 1,
        f"growth={growth} must be finite": np.isfinite(growth),
        f"n_features={n_features} must be between {n_latent} and {_MAX_FEATURES}": (
            n_latent <= n_features <= _MAX_FEATURES
        ),
        f"n_truth_cells={n_truth_cells} must be at least 1": n_truth_cells >= 1,
    }
    broken = [text for text, holds in requirements.items() if not holds]
    if broken:
        msg = "; ".join(broken) + "."
        raise ValueError(msg)


def _rng(seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream])


def _names(prefix: str, n: int) -> np.ndarray:
    width = len(str(n - 1))
    return np.array([f"{prefix}_{i:0{width}d}" for i in range(n)])


def _clones(
    n_clones: int,
    low: float,
    high: float,
    day: np.ndarray,
    bias: float,
    irreducible: float,
    growth: float,
    rng: np.random.Generator,
) -> _Clones:
    factor, hidden, shift = rng.standard_normal((3, n_clones, 2))
    angle = _fate_angles()
    directions = np.stack([np.cos(angle), np.sin(angle)])
    mixed = np.sqrt(1 - irreducible) * factor + np.sqrt(irreducible) * hidden
    fate = softmax(bias * mixed @ directions, axis=1)
    speed = _SPEED * np.exp(0.15 * rng.standard_normal(n_clones))
    rate = growth + _FATE_GROWTH + 0.1 * rng.standard_normal((n_clones, 1))
    size = np.exp(rng.uniform(np.log(low), np.log(high), n_clones))
    elapsed = (day - day[0])[:, None]
    lineage = size[:, None, None] * fate[:, None] * np.exp(rate[:, None] * elapsed)
    return _Clones(factor, shift, lineage, speed[:, None] * day)


def _design(
    n_clones: int, n_days: int, orphan_fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose on which days each clone is seen, (clones, days), and whether on all of them, (clones,)."""
    paired = rng.permutation(n_clones) >= round(orphan_fraction * n_clones)
    only_day = rng.integers(n_days, size=n_clones)
    return paired[:, None] | (only_day[:, None] == np.arange(n_days)), paired


def _fate_proportions(clones: _Clones) -> np.ndarray:
    progenitor = norm.cdf((1 - clones.progress) / _PROGRESS_SD)[..., None]
    share = clones.lineage / clones.lineage.sum(axis=-1, keepdims=True)
    return np.concatenate([progenitor, (1 - progenitor) * share], axis=-1)


def _draw(
    clones: _Clones, n_cells: np.ndarray, n_features: int, names: dict[str, np.ndarray], rng: np.random.Generator
) -> AnnData:
    """Draw `n_cells` (clones, days) independent cells of each population."""
    clone, day = (np.repeat(index.ravel(), n_cells.ravel()) for index in np.indices(n_cells.shape))
    levels = np.cumsum(clones.lineage, axis=-1)
    levels = (levels / levels[..., -1:])[..., :-1]
    fate = (rng.random((len(clone), 1)) >= levels[clone, day]).sum(axis=1)
    progress = clones.progress[clone, day] + _PROGRESS_SD * rng.standard_normal(len(clone))
    latent = np.concatenate([_tree(progress, fate), clones.factor[clone], clones.shift[clone]], axis=1)
    x = latent.astype(np.float32) @ _loadings()[:, :n_features].astype(np.float32)
    x += _noise_sd()[:n_features] * rng.standard_normal(x.shape, dtype=np.float32)
    obs = pd.DataFrame(
        {
            "clone": pd.Categorical.from_codes(clone, pd.Index(names["clone"])),
            "day": pd.Categorical.from_codes(day, pd.Index(names["day"]), ordered=True),
            "cell_type": pd.Categorical.from_codes(np.where(progress > 1, fate + 1, 0), pd.Index(_CELL_TYPES)),
            "fate": pd.Categorical.from_codes(fate, pd.Index(FATES)),
            "progress": progress,
        },
        index=pd.RangeIndex(len(clone)).astype(str),
    )
    return AnnData(x, obs=obs)


def _tree(progress: np.ndarray, fate: np.ndarray) -> np.ndarray:
    """Position on the tree, (cells, 4): along the stem, its bend, and the plane in which the branches curl."""
    stem, branch = np.minimum(progress, 1), np.maximum(progress - 1, 0)
    angle = _fate_angles()[fate] + 1.5 * branch
    bend = 0.5 * np.sin(np.pi * stem)
    return np.stack([stem + 0.5 * branch, bend, branch * np.cos(angle), branch * np.sin(angle)], axis=1)


def _fate_angles() -> np.ndarray:
    return 2 * np.pi * np.arange(len(FATES)) / len(FATES)


def _feature_scale() -> np.ndarray:
    return 1 / np.sqrt(np.arange(1, _MAX_FEATURES + 1))


def _noise_sd() -> np.ndarray:
    return (0.25 * _feature_scale() + 0.05).astype(np.float32)


@cache
def _loadings() -> np.ndarray:
    """Map from tree (4), factor (2) and shift (2) to features, the same for all cohorts."""
    latent_scale = np.array([2, 2, 2, 2, 0.5, 0.5, 0.3, 0.3])[:, None]
    return latent_scale * np.random.default_rng(7).standard_normal((8, _MAX_FEATURES)) * _feature_scale()
