"""The paired groups that a forecaster learns from, checked, in a canonical order and cut into folds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

#: Below this number of pairs nothing can be cross-validated.
MIN_PAIRS = 3

#: Number of folds; below :data:`LEAVE_ONE_OUT` pairs each pair is a fold of its own.
N_FOLDS = 5
LEAVE_ONE_OUT = 20


def precision_weights(n_source: np.ndarray, n_target: np.ndarray, *, n0: float = 10.0) -> np.ndarray:
    """Weight of each pair of groups, by how precisely both embeddings are known.

    ``1 / (1 + n0 / n_source + n0 / n_target)``, which is proportional to the inverse variance of a pair's residual when
    an embedding from ``n`` cells has a sampling variance of ``n0 / n`` times the variance that remains with
    infinitely many cells. It saturates: pairs with many cells count alike.

    Parameters
    ----------
    n_source, n_target
        (groups,) numbers of cells at the source and at the target time, or effective numbers when cells have weights.
    n0
        Number of cells at which sampling alone is as uncertain as the change itself.

    Returns
    -------
    (groups,) weights between 0 and 1; 0 where a group has no cell.

    Raises
    ------
    ValueError
        If a number of cells is negative or not finite, or ``n0`` is negative.
    """
    counts = [as_vector(n_source, "n_source"), as_vector(n_target, "n_target")]
    if n0 < 0:
        msg = f"Received n0={n0}, expected a number of at least 0."
        raise ValueError(msg)
    least = np.minimum(*counts)
    source, target = (np.where(least > 0, n, 1.0) for n in counts)
    return np.where(least > 0, 1 / (1 + n0 / source + n0 / target), 0.0)


@dataclass(frozen=True)
class Pairs:
    """Paired groups of positive weight, sorted by their values so that no result depends on the order of rows.

    ``source`` and ``target`` (pairs, latent), ``weight`` (pairs,) with mean 1, ``condition`` (pairs, conditions) with
    zero columns where there is none, ``fold`` (pairs,); ``n_inputs``, the number of leading source coordinates that a
    forecast depends on.
    """

    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    condition: np.ndarray
    fold: np.ndarray
    n_inputs: int

    @classmethod
    def checked(
        cls,
        source: np.ndarray,
        target: np.ndarray,
        weight: np.ndarray,
        condition: np.ndarray | None,
        seed: int,
        n_inputs: int | None = None,
    ) -> Self:
        """Check what a user passes, drop pairs of weight 0, sort, and draw folds from the seed."""
        source, target, weight = as_matrix(source, "source"), as_matrix(target, "target"), as_vector(weight, "weight")
        condition = as_matrix(np.zeros((len(source), 0)) if condition is None else condition, "condition")
        shapes = {"target": target.shape[:1], "weight": weight.shape, "condition": condition.shape[:1]}
        if any(shape != source.shape[:1] for shape in shapes.values()) or target.shape != source.shape:
            msg = (
                f"Received source {source.shape}, target {target.shape}, weight {weight.shape} and condition "
                f"{condition.shape}; expected one row per pair of groups in each, source and target of one shape."
            )
            raise ValueError(msg)
        used = weight > 0
        if used.sum() < MIN_PAIRS:
            msg = (
                f"Received {used.sum()} pairs of positive weight, expected at least {MIN_PAIRS}: a forecast is learned "
                "from groups seen at both times. Choose other times, or groups that are seen at both."
            )
            raise ValueError(msg)
        latent = source.shape[1]
        n_inputs = latent if n_inputs is None else n_inputs
        if not 0 <= n_inputs <= latent:
            msg = f"Received n_inputs={n_inputs}, expected 0 to {latent}, the number of coordinates of an embedding."
            raise ValueError(msg)
        table = np.column_stack([source, target, condition, weight])[used]
        order = np.flatnonzero(used)[np.lexsort(table.T[::-1])]
        n, w = len(order), weight[order]
        return cls(source[order], target[order], w / w.mean(), condition[order], folds(n, seed), n_inputs)

    @property
    def change(self) -> np.ndarray:
        """(pairs, latent) what is predicted: target minus source."""
        return self.target - self.source

    def take(self, rows: np.ndarray) -> Pairs:
        """Some of the pairs."""
        names = [name for name in self.__dataclass_fields__ if name != "n_inputs"]
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def folds(n: int, seed: int) -> np.ndarray:
    """(n,) fold of each row: leave one out when there are few, else :data:`N_FOLDS` of equal size."""
    k = n if n < LEAVE_ONE_OUT else N_FOLDS
    return np.random.default_rng(seed).permutation(n) % k


def choose(errors: np.ndarray, weight: np.ndarray, fold: np.ndarray) -> tuple[int, np.ndarray]:
    """The candidate with the least held-out error, unless the gain over the first is within its standard error.

    Parameters
    ----------
    errors
        (candidates, groups) held-out error of each group; the first candidate is the simplest.
    weight
        (groups,).
    fold
        (groups,).

    Returns
    -------
    The chosen candidate, and for each group the candidate that the other folds choose. The errors of the latter are
    not flattered by the choice.
    """

    def pick(rows: np.ndarray) -> int:
        best = int(np.argmin(errors[:, rows] @ weight[rows]))
        gain = weight[rows] * (errors[0, rows] - errors[best, rows])
        return best if gain.mean() > gain.std() / np.sqrt(len(gain)) else 0

    by_fold = {k: pick(fold != k) for k in np.unique(fold)}
    return pick(np.ones(len(fold), dtype=bool)), np.array([by_fold[k] for k in fold])


def as_matrix(x: np.ndarray, name: str) -> np.ndarray:
    """Float64 array of two dimensions with finite entries, or an error."""
    return _as_finite(x, name, 2, "(groups, latent)")


def as_vector(x: np.ndarray, name: str) -> np.ndarray:
    """Float64 array of one dimension with finite entries of at least 0, or an error."""
    x = _as_finite(x, name, 1, "(groups,)")
    if (x < 0).any():
        msg = f"{name} holds {x.min()}, expected numbers of at least 0."
        raise ValueError(msg)
    return x


def _as_finite(x: np.ndarray, name: str, ndim: int, shape: str) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != ndim:
        msg = f"{name} has shape {x.shape}, expected {shape}."
        raise ValueError(msg)
    bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if bad.any():
        msg = f"{name} holds NaN or infinity in {bad.sum()} of {len(x)} rows; leave these groups out."
        raise ValueError(msg)
    return x
