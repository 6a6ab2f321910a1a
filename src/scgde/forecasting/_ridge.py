"""Linear forecasts: weighted ridge regression on leading principal coordinates of the source embedding."""

from __future__ import annotations

from itertools import product
from typing import Any, ClassVar

import numpy as np

from scgde.forecasting._base import Forecaster
from scgde.forecasting._pairs import Pairs, choose

#: Candidates: number of principal coordinates, penalty per pair, and share of the source's deviation from the mean
#: that persists where the regression says nothing. No coordinate and persistence 1 is the mean change of all groups.
N_COMPONENTS = (1, 2, 4, 8, 16, 32, 64)
PENALTIES = np.logspace(-3, 3, 13)
PERSISTENCE = (1.0, 0.75, 0.5, 0.25, 0.0)

Candidate = tuple[int, float]
_MEAN: Candidate = (0, np.inf)


class RidgeForecaster(Forecaster):
    """Linear forecast of the change, all its settings chosen by cross-validation over groups.

    The prediction is ``m_t + c (z - m_s) + B f(z)`` with the mean embeddings ``m_s`` and ``m_t`` at both times, the
    leading principal coordinates ``f`` of the source embedding (and the standardised conditions), a penalised ``B`` and
    a persistence ``c``. With ``B = 0`` and ``c = 1`` it is the mean change, which is left only for a gain
    that exceeds its standard error; with ``c = 0`` it is the mean target.

    Source: Hastie, Tibshirani & Friedman, "The Elements of Statistical Learning", sections 3.4 and 3.5.
    """

    kind: ClassVar[str] = "ridge"

    def _fit(self, pairs: Pairs) -> tuple[dict[str, Any], np.ndarray]:
        return fit_ridge(pairs)

    def _predict(self, source: np.ndarray, condition: np.ndarray) -> np.ndarray:
        return ridge_target(self._parameters, source, condition)


def fit_ridge(pairs: Pairs) -> tuple[dict[str, Any], np.ndarray]:
    """Parameters of the chosen ridge regression, and its (pairs, latent) residuals in held-out groups."""
    p, c = pairs.n_inputs, pairs.condition.shape[1]
    counts = [k for k in N_COMPONENTS if k < p] + [p]
    maps: list[Candidate] = [_MEAN, *product([0] * (c > 0) + counts, PENALTIES)]
    errors = np.empty((len(maps), len(PERSISTENCE), len(pairs.fold)))
    for k in np.unique(pairs.fold):
        test = pairs.fold == k
        errors[:, :, test] = [
            [((pairs.target[test] - prediction) ** 2).sum(axis=1) for prediction in _persisting(*smooth)]
            for smooth in _smooths(pairs.take(~test), pairs.take(test), maps)
        ]
    best, by_group = choose(errors.reshape(-1, len(pairs.fold)), pairs.weight, pairs.fold)
    residual = np.empty_like(pairs.target)
    for k in np.unique(pairs.fold):
        test = pairs.fold == k
        i, j = divmod(by_group[test][0], len(PERSISTENCE))
        smooth = next(_smooths(pairs.take(~test), pairs.take(test), [maps[i]]))
        residual[test] = pairs.target[test] - _persisting(*smooth)[j]
    i, j = divmod(best, len(PERSISTENCE))
    parameters = basis(pairs, common=True)
    to_target, to_source = next(_coefficients(parameters, pairs, [maps[i]]))
    parameters |= {
        "target_mean": np.average(pairs.target, axis=0, weights=pairs.weight),
        "persistence": PERSISTENCE[j],
        "coefficient": to_target - PERSISTENCE[j] * to_source,
    }
    return parameters, residual


def ridge_target(parameters: dict[str, Any], source: np.ndarray, condition: np.ndarray) -> np.ndarray:
    """Predicted target embedding (groups, latent)."""
    coefficient = parameters["coefficient"]
    f = features(parameters, source, condition)[:, : len(coefficient)]
    kept = parameters["persistence"] * (source - parameters["source_mean"])
    return parameters["target_mean"] + kept + f @ coefficient


def basis(pairs: Pairs, *, common: bool = False) -> dict[str, Any]:
    """Centre and scale of source and condition, and principal axes (inputs, rank) of the scaled inputs.

    Each coordinate of the source has a scale of its own, or all have a ``common`` one: an embedding's coordinates share
    a unit, and standardised small ones, which are mostly noise, would count as much as large ones.
    """
    result: dict[str, Any] = {}
    for name, x in (("source", pairs.source), ("condition", pairs.condition)):
        mean = np.average(x, axis=0, weights=pairs.weight)
        scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=pairs.weight))
        # A constant coordinate differs from its mean by rounding alone, which must not be scaled up.
        constant = scale <= 1e-10 * np.abs(x).max(axis=0, initial=0.0)
        if common and name == "source" and not constant.all():
            scale = np.full_like(scale, np.sqrt((scale[~constant] ** 2).mean()))
        result |= {f"{name}_mean": mean, f"{name}_scale": np.where(constant, np.inf, scale)}
    x = ((pairs.source - result["source_mean"]) / result["source_scale"])[:, : pairs.n_inputs]
    values, axes = np.linalg.eigh(x.T @ (pairs.weight[:, None] * x) / pairs.weight.sum())
    kept = values > 1e-10 * max(values.max(initial=0.0), 1e-300)
    return result | {"components": axes[:, kept][:, ::-1]}


def features(parameters: dict[str, Any], source: np.ndarray, condition: np.ndarray) -> np.ndarray:
    """(groups, conditions + rank): standardised conditions, then principal coordinates of the source's inputs."""
    x = (source - parameters["source_mean"]) / parameters["source_scale"]
    c = (condition - parameters["condition_mean"]) / parameters["condition_scale"]
    return np.hstack([c, x[:, : len(parameters["components"])] @ parameters["components"]])


def _smooths(train: Pairs, test: Pairs, maps: list[Candidate]):
    """For each candidate: target and source of the test groups, the latter twice, as the regression smooths them."""
    parameters = basis(train, common=True)
    means = [np.average(x, axis=0, weights=train.weight) for x in (train.target, train.source)]
    f = features(parameters, test.source, test.condition)
    for to_target, to_source in _coefficients(parameters, train, maps):
        k = len(to_target)
        yield means[0] + f[:, :k] @ to_target, test.source, means[1] + f[:, :k] @ to_source


def _persisting(target: np.ndarray, source: np.ndarray, smoothed_source: np.ndarray) -> list[np.ndarray]:
    return [target + c * (source - smoothed_source) for c in PERSISTENCE]


def _coefficients(parameters: dict[str, Any], pairs: Pairs, maps: list[Candidate]):
    """For each candidate: ridge coefficients (features, latent) of the target and of the source."""
    f = features(parameters, pairs.source, pairs.condition)
    n_conditions = pairs.condition.shape[1]
    weighted = f.T * (pairs.weight / pairs.weight.sum())
    gram, cross = weighted @ f, weighted @ np.hstack([pairs.target, pairs.source])
    decomposed: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for n_components, penalty in maps:
        k = 0 if np.isinf(penalty) else min(n_conditions + n_components, f.shape[1])
        if k not in decomposed:
            decomposed[k] = np.linalg.eigh(gram[:k, :k])
        values, vectors = decomposed[k]
        both = vectors @ ((vectors.T @ cross[:k]) / (values + penalty)[:, None])
        yield tuple(np.hsplit(both, 2))
