"""From features of groups to predictions: ridge and logistic regression that choose their penalty inside the fold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scgde.prediction._folds import stratified_splits

#: Penalties to choose from, where there are groups enough to choose, and the number of inner folds.
LOGISTIC_C = tuple(10.0 ** np.arange(-5, 3))
RIDGE_ALPHA = tuple(10.0 ** np.arange(-1, 6))
INNER_FOLDS = 5


def fit_head(x: np.ndarray, y: np.ndarray, unit: np.ndarray, kind: str, seed: int) -> Callable:
    """Fit a head on labelled groups; returns the function from features to predictions.

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
    """
    classify = kind == "categorical"
    y = y.astype(int) if classify else y
    inner = _inner_splits(y if classify else np.zeros(len(y), dtype=int), unit, classify, seed)
    if classify:
        head, grid, score = LogisticRegression(C=0.01, max_iter=2000), {"C": LOGISTIC_C}, _log_score
    else:
        head, grid, score = Ridge(alpha=100.0), {"alpha": RIDGE_ALPHA}, "neg_mean_squared_error"
    if inner:
        head = GridSearchCV(head, grid, scoring=score, cv=inner, error_score="raise")
    # The rotation changes no prediction of an L2-penalised head, and cuts features to the number of groups.
    pipeline = make_pipeline(StandardScaler(), PCA(svd_solver="full"), head)
    with np.errstate(invalid="ignore"):  # features may all be constant: scikit-learn then divides 0 by 0
        pipeline.fit(x, y)
    return pipeline.predict_proba if classify else pipeline.predict


def _inner_splits(strata: np.ndarray, unit: np.ndarray, classify: bool, seed: int) -> list:
    """Folds to choose the penalty by; none where a class or the units are too few to be split."""
    levels = np.unique(strata)
    least = min(len(np.unique(unit[strata == k])) for k in levels) // (1 if classify else 2)
    if least < 2:
        return []
    splits = stratified_splits(strata, unit, min(INNER_FOLDS, least), seed)
    return [(train, test) for train, test in splits if len(test) and len(np.unique(strata[train])) == len(levels)]


def _log_score(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    return -log_loss(y, model.predict_proba(x), labels=model.classes_)
