"""What distances between groups say about their attributes: signal kept, batches removed, replicates found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import f1_score


def signal_retention(
    distances: np.ndarray | pd.DataFrame, values: Any, *, n_neighbors: int = 5, discrete: bool | None = None
) -> float:
    """How well an attribute of groups is told from that of their nearest neighbours, other groups alone.

    Parameters
    ----------
    distances
        Between groups, shape (n_groups, n_groups).
    values
        One value per group. Groups without a value are left out.
    n_neighbors
        Neighbours, which count equally.
    discrete
        Whether values are classes. By default, floating-point numbers are not, and all else is.

    Returns
    -------
    For classes, the F1 score of the neighbours' majority, averaged over classes and scaled so that 1 is perfect and 0
    is 1 / n_classes. For numbers, the Spearman correlation with the neighbours' mean.

    Raises
    ------
    ValueError
        For shapes that do not fit, NaN in distances, too few groups, and values that are all the same.

    Notes
    -----
    As in patpy and its benchmark (Shitov et al., LMRL at ICLR 2025). A group's own value is missing among its
    neighbours, so that without any signal the expectation lies slightly below 0; compare with permuted values.
    """
    matrix, values = _checked(distances, values)
    if len(matrix) <= n_neighbors or n_neighbors < 1 or values.nunique() < 2:
        msg = (
            f"{len(matrix)} groups have a value, {values.nunique()} of them distinct, with n_neighbors={n_neighbors}: "
            "expected more groups than neighbours, and two distinct values."
        )
        raise ValueError(msg)
    np.fill_diagonal(matrix, np.inf)
    neighbors = np.argsort(matrix, axis=1, kind="stable")[:, :n_neighbors]
    if discrete is None:
        discrete = not pd.api.types.is_float_dtype(values)
    if not discrete:
        predicted = values.to_numpy()[neighbors].mean(axis=1)
        return float(spearmanr(values, predicted).statistic) if np.ptp(predicted) > 0 else 0.0
    codes, classes = pd.factorize(values, sort=True)
    votes = (codes[neighbors][:, :, None] == np.arange(len(classes))).sum(axis=1)
    # The nearest group of a tied class decides.
    nearest_first = votes[np.arange(len(codes))[:, None], codes[neighbors]].argmax(axis=1)
    predicted = codes[neighbors[np.arange(len(codes)), nearest_first]]
    chance = 1 / len(classes)
    return float((f1_score(codes, predicted, average="macro") - chance) / (1 - chance))


def batch_removal(
    distances: np.ndarray | pd.DataFrame, batches: Any, *, n_neighbors: int = 5, discrete: bool | None = None
) -> float:
    """How little a technical attribute is told from neighbours: 1 less its :func:`signal_retention`, from 0 to 1.

    Parameters
    ----------
    distances
        Between groups, shape (n_groups, n_groups).
    batches
        Technical attribute of each group. Groups without a value are left out.
    n_neighbors, discrete
        As for :func:`signal_retention`.

    Returns
    -------
    1 where neighbours say nothing of the batch, 0 where they say all.

    Raises
    ------
    ValueError
        As :func:`signal_retention`.
    """
    told = signal_retention(distances, batches, n_neighbors=n_neighbors, discrete=discrete)
    return 1 - min(1.0, max(0.0, told))


def replicate_robustness(distances: np.ndarray | pd.DataFrame, units: Any) -> float:
    """How near replicates are: the share of other units' groups that lie farther than a group's nearest replicate.

    Parameters
    ----------
    distances
        Between groups, shape (n_groups, n_groups).
    units
        What each group is a replicate of (a donor, say); missing for none. Groups of one unit are replicates.

    Returns
    -------
    Mean over groups with a replicate: 1 where each has one as its nearest neighbour; for pairs, 0.5 by chance. Ties
    count half.

    Raises
    ------
    ValueError
        For shapes that do not fit, NaN in distances, no replicates, and a single unit.
    """
    matrix, values = _checked(distances, units)
    codes = pd.factorize(values)[0]
    same = codes[:, None] == codes
    np.fill_diagonal(same, False)
    other = codes[:, None] != codes
    rows = same.any(axis=1) & other.any(axis=1)
    if not rows.any():
        msg = (
            f"{len(codes)} groups belong to {len(np.unique(codes))} units: expected at least two units, one of them "
            "with two groups."
        )
        raise ValueError(msg)
    nearest = np.where(same, matrix, np.inf).min(axis=1)[:, None]
    farther = np.where(other, (matrix > nearest) + 0.5 * (matrix == nearest), 0).sum(axis=1)
    return float((farther[rows] / other[rows].sum(axis=1)).mean())


def _checked(distances: np.ndarray | pd.DataFrame, values: Any) -> tuple[np.ndarray, pd.Series]:
    """Distances between the groups that have a value, and these values."""
    matrix = np.array(distances, dtype=np.float64)
    values = pd.Series(values.array if isinstance(values, pd.Series) else values).infer_objects()
    if matrix.shape != (len(values), len(values)):
        msg = f"distances have shape {matrix.shape}: expected ({len(values)}, {len(values)}), for as many values."
        raise ValueError(msg)
    known = values.notna().to_numpy()
    matrix = matrix[np.ix_(known, known)]
    if not np.isfinite(matrix).all():
        msg = f"distances hold {int((~np.isfinite(matrix)).sum())} NaN or infinite numbers: expected finite ones."
        raise ValueError(msg)
    return matrix, values[known].reset_index(drop=True)
