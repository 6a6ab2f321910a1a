"""From features of groups to predictions: ridge and logistic regression that choose their penalty inside the fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scgde.prediction._folds import stratified_splits

#: Penalties to choose from, the one to take where groups are too few to choose, and the number of inner folds.
LOGISTIC_C, DEFAULT_C = 10.0 ** np.arange(-4, 2), 0.01
RIDGE_ALPHA, DEFAULT_ALPHA = 10.0 ** np.arange(-1, 6), 100.0
INNER_FOLDS = 5

#: Share of the labels that counts as evidence for one block of features over another: the full posterior chooses a
#: single block too often.
EVIDENCE = 0.5

#: Training and test positions of folds.
Splits = list[tuple[np.ndarray, np.ndarray]]


class CommonScaler(StandardScaler):
    """Centres features and divides all by one number, so that features keep their relative sizes."""

    def fit(self, x: np.ndarray, y: Any = None, sample_weight: Any = None) -> CommonScaler:
        """Mean of each feature, and the root of the mean variance."""
        super().fit(x, y, sample_weight)
        self.scale_: np.ndarray = np.full(len(self.var_), max(float(np.sqrt(self.var_.mean())), 1e-12))
        return self


class LinearMap(NamedTuple):
    """From features (n_groups, n_features) to outputs (n_groups, n_outputs): log odds, ranks or values."""

    coef: np.ndarray
    intercept: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x @ self.coef + self.intercept


def fit_linear(
    x: np.ndarray, y: np.ndarray, unit: np.ndarray, kind: str, seed: int, sizes: Sequence[int] | None = None
) -> LinearMap:
    """Fit a linear map to labelled groups; of two classes the first has log odds of 0.

    Inner folds choose the penalty, and whether features are standardised one by one or keep their relative sizes.

    Parameters
    ----------
    x
        (n_groups, n_features).
    y, unit
        (n_groups,) labels, and what inner folds keep whole.
    kind
        Kind of label: classes get a logistic regression, ranks and values a ridge regression.
    seed
        Seed of the inner folds.
    sizes
        Sizes of the blocks that the features consist of, in their order. Each block gets a map of its own, with its
        own penalty, and outputs are averaged: what one block tells, others cannot drown. Maps that predict better in
        inner folds count more.
    """
    blocks = np.split(x, np.cumsum(sizes or [x.shape[1]])[:-1], axis=1)
    scores, heads = zip(*(_fit(block, y, unit, kind, seed) for block in blocks), strict=True)
    weights = _block_weights(np.array(scores), len(y), kind)
    maps = [_as_map(head, kind) for head in heads]
    coef = np.concatenate([weight * each.coef for weight, each in zip(weights, maps, strict=True)])
    return LinearMap(coef, sum(weight * each.intercept for weight, each in zip(weights, maps, strict=True)))


def fit_head(
    x: np.ndarray, y: np.ndarray, unit: np.ndarray, kind: str, seed: int, sizes: Sequence[int] | None = None
) -> Callable:
    """The function from features to predictions, probabilities (n_groups, n_classes) or values: :func:`fit_linear`."""
    linear = fit_linear(x, y, unit, kind, seed, sizes)
    return (lambda x: softmax(linear(x), axis=1)) if kind == "categorical" else (lambda x: linear(x)[:, 0])


def _as_map(head: Any, kind: str) -> LinearMap:
    scaler, pca, last = (step for _, step in head.steps)
    coef, intercept = np.atleast_2d(last.coef_), np.atleast_1d(last.intercept_)
    if kind == "categorical" and len(coef) == 1:
        coef, intercept = np.vstack([0 * coef, coef]), np.concatenate([[0.0], intercept])
    rows = coef @ pca.components_
    return LinearMap((rows / scaler.scale_).T, intercept - rows @ (scaler.mean_ / scaler.scale_ + pca.mean_))


def _block_weights(scores: np.ndarray, n: int, kind: str) -> np.ndarray:
    """Weights of heads by their inner scores: posterior ones, but as if the labels were :data:`EVIDENCE` of them."""
    log_likelihood = scores if kind == "categorical" else -0.5 * np.log(np.maximum(-scores, 1e-12))
    # A block that is the same in all groups tells nothing.
    return softmax(EVIDENCE * n * np.maximum(log_likelihood, -1e9))


def _fit(x: np.ndarray, y: np.ndarray, unit: np.ndarray, kind: str, seed: int) -> tuple[float, Any]:
    """The pipeline that inner folds choose, and its score in them."""
    classify = kind == "categorical"
    y = y.astype(int) if classify else y
    strata = y if classify else np.zeros(len(y), dtype=int)
    # Features that are all constant leave nothing to choose.
    varies = np.ptp(x, axis=0).any()
    inner = _inner_splits(strata, unit, classify, seed) if varies else []
    best: tuple[float, Any] = (-np.inf, None)
    # scikit-learn's checks of its input take longer than these fits; PCA divides 0 by 0 where features are constant.
    with config_context(assume_finite=True, skip_parameter_validation=True), np.errstate(invalid="ignore"):
        for scaler in (StandardScaler(), CommonScaler()):
            # The rotation changes no prediction of an L2-penalised head, and cuts features to the number of groups.
            reduce = make_pipeline(scaler, PCA(svd_solver="full"))
            score, head = (_logistic if classify else _ridge)(reduce.fit_transform(x), y, inner)
            if score > best[0]:
                best = (score, make_pipeline(*[step for _, step in reduce.steps], head))
    return best if varies else (-np.inf, best[1])


def _logistic(x: np.ndarray, y: np.ndarray, inner: Splits) -> tuple[float, Any]:
    """The best inner mean log probability of the true class, and the head that has it."""

    def score(head: Any, test: np.ndarray) -> float:
        return float(np.log(head.predict_proba(x[test])[np.arange(len(test)), y[test]].clip(1e-15)).mean())

    heads = [LogisticRegression(C=c, max_iter=2000) for c in (LOGISTIC_C if inner else [DEFAULT_C])]
    return _best(heads, x, y, inner, score)


def _ridge(x: np.ndarray, y: np.ndarray, inner: Splits) -> tuple[float, Any]:
    """The best inner mean squared error, negative, and the head that has it."""

    def score(head: Any, test: np.ndarray) -> float:
        return -float(np.square(head.predict(x[test]) - y[test]).mean())

    heads = [Ridge(alpha=alpha) for alpha in (RIDGE_ALPHA if inner else [DEFAULT_ALPHA])]
    return _best(heads, x, y, inner, score)


def _best(heads: list, x: np.ndarray, y: np.ndarray, inner: Splits, score: Callable) -> tuple[float, Any]:
    """The head with the best mean score over inner folds, fitted to all groups, and its score."""
    scores = [
        np.mean([score(clone(head).fit(x[train], y[train]), test) for train, test in inner]) if inner else 0.0
        for head in heads
    ]
    return max(scores), heads[int(np.argmax(scores))].fit(x, y)


def _inner_splits(strata: np.ndarray, unit: np.ndarray, classify: bool, seed: int) -> Splits:
    """Folds to choose by; none where a class or the units are too few to be split."""
    levels = np.unique(strata)
    least = min(len(np.unique(unit[strata == k])) for k in levels) // (1 if classify else 2)
    if least < 2:
        return []
    splits = stratified_splits(strata, unit, min(INNER_FOLDS, least), seed)
    return [(train, test) for train, test in splits if len(test) and len(np.unique(strata[train])) == len(levels)]
