"""Scores of predictions for the groups of one test fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    recall_score,
    roc_auc_score,
    root_mean_squared_error,
)


@dataclass(frozen=True)
class Score:
    """A score and its direction.

    Parameters
    ----------
    function
        From true labels (n_groups,) and predictions to a number; NaN where it is not defined in a fold.
    higher_is_better
        Its direction.
    """

    function: Callable[[np.ndarray, np.ndarray], float]
    higher_is_better: bool = True


def _accuracy(y: np.ndarray, p: np.ndarray) -> float:
    return accuracy_score(y, p.argmax(axis=1))


def _balanced_accuracy(y: np.ndarray, p: np.ndarray) -> float:
    """Mean share of right answers over the classes that the fold has."""
    return recall_score(y, p.argmax(axis=1), labels=np.unique(y), average="macro", zero_division=0)


def _auc(y: np.ndarray, p: np.ndarray) -> float:
    """Area under the ROC curve, one class against the rest, averaged over the classes that the fold has."""
    present = np.unique(y).astype(int)
    if len(present) < 2:
        return np.nan
    return float(np.mean([roc_auc_score(y == k, p[:, k]) for k in present]))


def _log_loss(y: np.ndarray, p: np.ndarray) -> float:
    return log_loss(y, p, labels=np.arange(p.shape[1]))


def _r2(y: np.ndarray, p: np.ndarray) -> float:
    return r2_score(y, p) if np.ptp(y) > 0 else np.nan


def _pearson(y: np.ndarray, p: np.ndarray) -> float:
    """Correlation; 0 for predictions that are all the same, which order nothing."""
    if np.ptp(y) == 0:
        return np.nan
    spread = np.ptp(p) > 1e-9 * max(1.0, np.abs(p).max())
    return float(np.corrcoef(y, p)[0, 1]) if spread else 0.0


def _spearman(y: np.ndarray, p: np.ndarray) -> float:
    spread = np.ptp(p) > 1e-9 * max(1.0, np.abs(p).max())
    return _pearson(rankdata(y), rankdata(p) if spread else np.zeros(len(p)))


def _kappa(y: np.ndarray, p: np.ndarray) -> float:
    """Cohen's kappa with quadratic weights, of the nearest levels."""
    if np.ptp(y) == 0:
        return np.nan
    return cohen_kappa_score(y.astype(int), np.rint(p).astype(int), weights="quadratic")


def _rank_accuracy(y: np.ndarray, p: np.ndarray) -> float:
    return float(np.mean(np.rint(p) == y))


#: Scores by kind of label and name. Classes are predicted by probabilities (n_groups, n_classes), ordered labels by a
#: rank, numeric ones by a value.
SCORES: dict[str, dict[str, Score]] = {
    "categorical": {
        "accuracy": Score(_accuracy),
        "balanced_accuracy": Score(_balanced_accuracy),
        "auc": Score(_auc),
        "log_loss": Score(_log_loss, higher_is_better=False),
    },
    "ordered": {
        "accuracy": Score(_rank_accuracy),
        "kappa": Score(_kappa),
        "spearman": Score(_spearman),
        "mae": Score(mean_absolute_error, higher_is_better=False),
    },
    "numeric": {
        "r2": Score(_r2),
        "rmse": Score(root_mean_squared_error, higher_is_better=False),
        "pearson": Score(_pearson),
        "spearman": Score(_spearman),
    },
}
