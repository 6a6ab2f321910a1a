"""What every forecaster does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.covariance import LedoitWolf

from scgde.forecasting._pairs import Pairs, as_matrix


class Forecaster(ABC):
    """Predicts a group's embedding at the target time from that at the source time.

    Example::

        forecaster = FORECASTERS["ridge"](seed=0).fit(source, target, weight)
        forecaster.predict(new_source)  # (groups, latent)
        forecaster.sample(new_source, 100, seed=1)  # (100, groups, latent)

    Parameters
    ----------
    seed
        Seed of the folds and of the networks' initial values.

    Attributes
    ----------
    kind_used
        The kind that was really fitted: "ridge" where cross-validation finds no use for more, or pairs are too few.
    cv_error_
        Mean squared Euclidean distance from the predicted to the true target embedding in held-out groups, weighted as
        in fitting: of this ``"forecast"``, of ``"no_change"`` (the source embedding), of ``"mean_change"`` (source plus
        mean change of the other groups) and of ``"mean_target"`` (mean target of the other groups). A forecast that
        does not beat the last three says nothing about a group.
    """

    kind: ClassVar[str]

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.kind_used = self.kind
        self.cv_error_: dict[str, float] = {}
        self._parameters: dict[str, Any] = {}

    def fit(
        self,
        source: np.ndarray,
        target: np.ndarray,
        weight: np.ndarray,
        condition: np.ndarray | None = None,
        *,
        n_inputs: int | None = None,
    ) -> Self:
        """Learn from paired groups; the order of rows does not matter, and pairs of weight 0 are left out.

        Parameters
        ----------
        source, target
            (pairs, latent) embeddings of the same groups at both times.
        weight
            (pairs,) how much each pair counts, e.g. from :func:`precision_weights`; only ratios matter.
        condition
            (pairs, conditions) further predictors, such as a dose or 0/1 columns of a treatment.
        n_inputs
            Number of leading coordinates of the source that the forecast depends on; by default all. What follows them
            is forecast too.

        Raises
        ------
        ValueError
            If shapes do not match, an entry is not finite, or fewer than 3 pairs have a positive weight.
        """
        pairs = Pairs.checked(source, target, weight, condition, self.seed, n_inputs)
        self.kind_used = self.kind
        self._parameters, residual = self._fit(pairs)
        self._parameters["covariance"] = residual_covariance(residual, pairs.weight)
        self.cv_error_ = {"forecast": _mean_square(residual, pairs.weight)} | _baseline_errors(pairs)
        return self

    @abstractmethod
    def _fit(self, pairs: Pairs) -> tuple[dict[str, Any], np.ndarray]:
        """Parameters, and the (pairs, latent) residuals of the forecast in held-out groups."""

    @abstractmethod
    def _predict(self, source: np.ndarray, condition: np.ndarray) -> np.ndarray:
        """Mean target embedding (groups, latent)."""

    @property
    def cv_r2_(self) -> float:
        """Share of the variance of changes explained in held-out groups: 1 - error / error of the mean change."""
        return 1 - self.cv_error_["forecast"] / max(self.cv_error_["mean_change"], np.finfo(float).tiny)

    def predict(self, source: np.ndarray, condition: np.ndarray | None = None) -> np.ndarray:
        """Mean of the target embedding, (groups, latent).

        Parameters
        ----------
        source
            (groups, latent) embeddings at the source time.
        condition
            (groups, conditions) as in :meth:`fit`.

        Raises
        ------
        ValueError
            If shapes differ from those in :meth:`fit`.
        """
        return self._predict(*self._checked(source, condition))

    def sample(self, source: np.ndarray, n_draws: int, condition: np.ndarray | None = None, *, seed: int) -> np.ndarray:
        """Draws of the target embedding, (draws, groups, latent).

        Their spread is that of held-out groups around the forecast: what the source does not tell, what the
        pairs are too few to tell, and the error of embeddings estimated from as many cells as the pairs had.

        Parameters
        ----------
        source
            (groups, latent) embeddings at the source time.
        n_draws
            Number of draws.
        condition
            (groups, conditions) as in :meth:`fit`.
        seed
            Seed of the draws.
        """
        source, condition = self._checked(source, condition)
        return self._sample(source, condition, n_draws, np.random.default_rng(seed))

    def _sample(self, source: np.ndarray, condition: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
        return self._predict(source, condition) + self._gaussian_noise((n_draws, len(source)), rng)

    def _gaussian_noise(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        values, vectors = np.linalg.eigh(self._parameters["covariance"])
        return rng.standard_normal((*shape, len(values))) @ (vectors * np.sqrt(values.clip(0))).T

    def _checked(self, source: np.ndarray, condition: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if not self._parameters:
            msg = "The forecaster is not fitted. Call fit(source, target, weight) first."
            raise RuntimeError(msg)
        source = as_matrix(source, "source")
        condition = as_matrix(np.zeros((len(source), 0)) if condition is None else condition, "condition")
        expected = len(self._parameters["source_mean"]), len(self._parameters["condition_mean"])
        if (source.shape[1], condition.shape[1]) != expected or len(source) != len(condition):
            msg = (
                f"Received source {source.shape} and condition {condition.shape}; expected rows of {expected[0]} "
                f"embedding coordinates and {expected[1]} conditions, as in fit()."
            )
            raise ValueError(msg)
        return source, condition

    def state(self) -> dict[str, Any]:
        """All that was fitted, as arrays, numbers and strings."""
        header = {"kind": self.kind, "kind_used": self.kind_used, "seed": self.seed}
        errors = {f"cv_error_{name}": value for name, value in self.cv_error_.items()}
        return header | errors | self._parameters

    @staticmethod
    def from_state(state: dict[str, Any]) -> Forecaster:
        """The forecaster that :meth:`state` describes.

        Raises
        ------
        ValueError
            If there is no forecaster of that kind.
        """
        from scgde.forecasting import FORECASTERS

        state = dict(state)
        kind = str(state.pop("kind"))
        if kind not in FORECASTERS:
            msg = f"Received the state of a forecaster of kind {kind!r}, expected one of {list(FORECASTERS)}."
            raise ValueError(msg)
        forecaster = FORECASTERS[kind](seed=int(state.pop("seed")))
        forecaster.kind_used = str(state.pop("kind_used"))
        names = [name for name in state if name.startswith("cv_error_")]
        forecaster.cv_error_ = {name.removeprefix("cv_error_"): float(state.pop(name)) for name in names}
        forecaster._parameters = state
        return forecaster


def residual_covariance(residual: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted covariance of held-out residuals about 0, (latent, latent), its correlations shrunk.

    Shrinkage acts on coordinates of unit variance, so that small coordinates are not blown up by large ones.

    Source: Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance matrices" (2004).
    """
    weighted = residual * np.sqrt(weight)[:, None]
    scale = np.sqrt((weighted**2).mean(axis=0))
    safe = np.where(scale > 0, scale, 1.0)
    return LedoitWolf(assume_centered=True).fit(weighted / safe).covariance_ * np.outer(scale, scale)


def _baseline_errors(pairs: Pairs) -> dict[str, float]:
    """Errors, in groups held out as for the forecast, of the three predictions that need no model."""
    held_out = {"mean_change": pairs.change.copy(), "mean_target": pairs.target.copy()}
    for k in np.unique(pairs.fold):
        test = pairs.fold == k
        for name, values in (("mean_change", pairs.change), ("mean_target", pairs.target)):
            held_out[name][test] -= np.average(values[~test], axis=0, weights=pairs.weight[~test])
    residuals = {"no_change": pairs.change} | held_out
    return {name: _mean_square(residual, pairs.weight) for name, residual in residuals.items()}


def _mean_square(residual: np.ndarray, weight: np.ndarray) -> float:
    return float(np.average((residual**2).sum(axis=1), weights=weight))
