"""Relative growth: how many cells a group will have at the target time for each cell it has at the source time."""

from __future__ import annotations

from itertools import product
from typing import Any, Self

import numpy as np
from sklearn.linear_model import PoissonRegressor

from scgde.forecasting._pairs import MIN_PAIRS, Pairs, as_matrix, as_vector, choose, folds
from scgde.forecasting._ridge import basis, features

#: Candidates beside the constant growth: number of principal coordinates of the source, and penalty.
N_COMPONENTS = (1, 2, 4, 8)
PENALTIES = (0.01, 0.1, 1.0, 10.0)


class Growth:
    """Poisson regression of the cells at the target time on the embedding at the source time.

    ``n_target`` has mean ``n_source * depth_ratio * exp(log growth)``, and the log growth is linear in leading
    principal coordinates of the standardised source embedding. Their number and the penalty are chosen by
    cross-validation over groups, and the mean growth of all groups is left only for a gain that exceeds its standard
    error.

    Parameters
    ----------
    seed
        Seed of the folds.

    Attributes
    ----------
    kind_used
        "poisson", or "constant" where cross-validation prefers the mean growth.
    cv_error_
        Poisson deviance per group in held-out groups: of this ``"forecast"``, of ``"constant"`` growth, and of
        ``"no_change"`` (growth 1).
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.kind_used = "constant"
        self.cv_error_: dict[str, float] = {}
        self._parameters: dict[str, Any] = {}

    def fit(
        self, source: np.ndarray, n_source: np.ndarray, n_target: np.ndarray, depth_ratio: float | np.ndarray = 1.0
    ) -> Self:
        """Learn growth from groups seen at the source time.

        Parameters
        ----------
        source
            (groups, latent) embeddings at the source time.
        n_source, n_target
            (groups,) numbers of cells. A group may have none at the target time; to leave such groups out makes
            the forecast one of growth given survival.
        depth_ratio
            Share of all cells that was sampled at the target time, divided by that at the source time.

        Raises
        ------
        ValueError
            If there are fewer than 3 groups, one has no cell at the source time, or none has any at the target time.
        """
        exposure, counts = _checked(source, n_source, n_target, depth_ratio)
        order = np.lexsort(np.column_stack([source, exposure, counts]).T[::-1])
        source, exposure, counts = as_matrix(source, "source")[order], exposure[order], counts[order]
        fold = folds(len(source), self.seed)
        # What one or two groups did tells nothing about a slope.
        counted = [k for k in N_COMPONENTS if k <= source.shape[1] and (counts > 0).sum() >= MIN_PAIRS]
        candidates = [None, *product(counted, PENALTIES)]
        predicted = np.empty((len(candidates), len(source)))
        for k in np.unique(fold):
            test = fold == k
            fits = _fits(source[~test], exposure[~test], counts[~test], candidates)
            predicted[:, test] = [_log_growth(parameters, source[test]) for parameters in fits]
        deviance = _deviance(counts, exposure * np.exp(predicted))
        best, by_group = choose(deviance, np.ones(len(source)), fold)
        self._parameters = next(_fits(source, exposure, counts, [candidates[best]]))
        self.kind_used = "constant" if candidates[best] is None else "poisson"
        self.cv_error_ = {
            "forecast": float(deviance[by_group, np.arange(len(source))].mean()),
            "constant": float(deviance[0].mean()),
            "no_change": float(_deviance(counts, exposure).mean()),
        }
        return self

    def predict_log_growth(self, source: np.ndarray) -> np.ndarray:
        """(groups,) log of the expected cells at the target time per cell at the source time, at equal depth.

        It stays within the range of the fitted groups, as an exponential must not be extrapolated.

        Parameters
        ----------
        source
            (groups, latent) embeddings at the source time.
        """
        if not self._parameters:
            msg = "The growth is not fitted. Call fit(source, n_source, n_target, depth_ratio) first."
            raise RuntimeError(msg)
        source, expected = as_matrix(source, "source"), len(self._parameters["source_mean"])
        if source.shape[1] != expected:
            msg = f"Received embeddings of {source.shape[1]} coordinates, expected {expected} as in fit()."
            raise ValueError(msg)
        return _log_growth(self._parameters, source)

    def state(self) -> dict[str, Any]:
        """All that was fitted, as arrays, numbers and strings."""
        errors = {f"cv_error_{name}": value for name, value in self.cv_error_.items()}
        return {"seed": self.seed, "kind_used": self.kind_used} | errors | self._parameters

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The growth that :meth:`state` describes."""
        state = dict(state)
        growth = cls(seed=int(state.pop("seed")))
        growth.kind_used = str(state.pop("kind_used"))
        names = [name for name in state if name.startswith("cv_error_")]
        growth.cv_error_ = {name.removeprefix("cv_error_"): float(state.pop(name)) for name in names}
        growth._parameters = state
        return growth


def _checked(source, n_source, n_target, depth_ratio) -> tuple[np.ndarray, np.ndarray]:
    n = len(as_matrix(source, "source"))
    exposure = as_vector(n_source, "n_source") * depth_ratio
    counts = as_vector(n_target, "n_target")
    if exposure.shape != (n,) or counts.shape != (n,):
        msg = f"Received {n} embeddings, n_source {exposure.shape} and n_target {counts.shape}; expected one of each."
        raise ValueError(msg)
    if n < MIN_PAIRS or not (exposure > 0).all() or not counts.any():
        msg = (
            f"Received {n} groups, {(exposure <= 0).sum()} without cells (or depth) at the source time and "
            f"{(counts == 0).sum()} without cells at the target time. Expected at least {MIN_PAIRS} groups, all with "
            "cells at the source time and some with cells at the target time."
        )
        raise ValueError(msg)
    return exposure, counts


def _fits(source: np.ndarray, exposure: np.ndarray, counts: np.ndarray, candidates: list):
    """Parameters of each candidate; of a fold that lost all cells, the constant growth of half a cell."""
    empty = np.zeros((len(source), 0))
    shared = basis(Pairs(source, source, np.ones(len(source)), empty, np.zeros(len(source)), source.shape[1]))
    f = features(shared, source, empty)
    mean = np.log(max(counts.sum(), 0.5) / exposure.sum())
    # In units of the mean growth, so that the penalty means the same at any depth.
    expected = exposure * np.exp(mean)
    for candidate in candidates:
        slope, intercept = np.zeros(0), mean
        if candidate is not None and counts.any():
            n_components, penalty = candidate
            model = PoissonRegressor(alpha=penalty, solver="newton-cholesky")
            model.fit(f[:, :n_components], counts / expected, sample_weight=expected)
            slope, intercept = model.coef_, mean + model.intercept_
        fitted = intercept + f[:, : len(slope)] @ slope
        yield shared | {"slope": slope, "intercept": float(intercept), "range": np.array([fitted.min(), fitted.max()])}


def _log_growth(parameters: dict[str, Any], source: np.ndarray) -> np.ndarray:
    slope = parameters["slope"]
    f = features(parameters, source, np.zeros((len(source), 0)))[:, : len(slope)]
    return (parameters["intercept"] + f @ slope).clip(*parameters["range"])


def _deviance(counts: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Poisson deviance of each group."""
    ratio = np.where(counts > 0, counts, 1.0) / np.where(counts > 0, expected, 1.0)
    return 2 * (counts * np.log(ratio) - counts + expected)
