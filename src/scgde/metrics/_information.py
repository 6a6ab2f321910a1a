"""Mutual information between embeddings and values, from distances to nearest neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import digamma
from sklearn.neighbors import KDTree


def mutual_information(
    z: np.ndarray | pd.DataFrame, values: Any, *, n_neighbors: int = 3, discrete: bool | None = None
) -> float:
    """Mutual information between embeddings of groups and a label, a number, or other embeddings of the same groups.

    The estimate is near 0 for independent values, and at times slightly negative. It falls short in many dimensions:
    compare it with that of permuted values.

    Parameters
    ----------
    z
        Embeddings, shape (n_groups, n_latent).
    values
        One value per group, shape (n_groups,), or other embeddings, shape (n_groups, any). Groups without a value are
        left out.
    n_neighbors
        Neighbours: more of them lower the variance and raise the bias.
    discrete
        Whether values are classes. By default, floating-point numbers are not, and all else is.

    Returns
    -------
    Nats (0.693 of them are one bit).

    Raises
    ------
    ValueError
        For shapes that do not fit, NaN in ``z``, and too few groups.

    Notes
    -----
    Sources: Kraskov, Stoegbauer and Grassberger, Estimating mutual information, Phys. Rev. E 2004, algorithm 1, with
    the maximum norm; for classes Ross, Mutual information between discrete and continuous data sets, PLoS ONE 2014.
    Classes of a single group are left out, as they have no neighbour. Both sides are scaled by one number each, which
    keeps the relative sizes of coordinates. With one coordinate it is
    :func:`sklearn.feature_selection.mutual_info_regression` or `mutual_info_classif`, without their clipping at 0.
    """
    points = _matrix(z)
    values = values if isinstance(values, pd.DataFrame) else pd.DataFrame(np.asarray(values))
    if len(points) != len(values) or not np.isfinite(points).all():
        msg = (
            f"z has shape {points.shape} and there are {len(values)} values: expected finite embeddings, one per value."
        )
        raise ValueError(msg)
    if discrete is None:
        discrete = not all(pd.api.types.is_float_dtype(values[name].infer_objects()) for name in values)
    known = values.notna().all(axis=1).to_numpy()
    points, values = points[known], values[known]
    if discrete:
        classes = values.groupby(list(values.columns), observed=True).ngroup().to_numpy()
        several = np.bincount(classes)[classes] > 1
        points, classes = points[several], classes[several]
    if n_neighbors < 1 or len(points) < n_neighbors + 2:
        msg = f"n_neighbors={n_neighbors} with {len(points)} usable groups: expected at least 1, and two groups more."
        raise ValueError(msg)
    if discrete:
        return _with_classes(_scaled(points), classes, n_neighbors)
    return _continuous(points, _matrix(values), n_neighbors)


def _matrix(values: Any) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    return values[:, None] if values.ndim == 1 else values


def _scaled(values: np.ndarray) -> np.ndarray:
    return values / max(float(np.sqrt(values.var(axis=0).mean())), 1e-300)


def _continuous(z: np.ndarray, values: np.ndarray, k: int) -> float:
    sides = _scaled(z), _scaled(values)
    distance = KDTree(np.hstack(sides), metric="chebyshev").query(np.hstack(sides), k + 1)[0][:, -1]
    # Strictly nearer on either side alone, the point itself among them: the + 1 of the formula.
    nearer = [_count(side, np.nextafter(distance, 0)) for side in sides]
    return float(digamma(len(z)) + digamma(k) - sum(digamma(n).mean() for n in nearer))


def _with_classes(z: np.ndarray, classes: np.ndarray, n_neighbors: int) -> float:
    distance, k = np.empty(len(z)), np.empty(len(z))
    size = np.bincount(classes)[classes]
    for label in np.unique(classes):
        own = np.flatnonzero(classes == label)
        k[own] = min(n_neighbors, len(own) - 1)
        distance[own] = KDTree(z[own], metric="chebyshev").query(z[own], int(k[own[0]]) + 1)[0][:, -1]
    within = _count(z, np.nextafter(distance, 0))
    return float(digamma(len(z)) + (digamma(k) - digamma(size) - digamma(within)).mean())


def _count(points: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Points within a radius of each point, itself among them."""
    return np.maximum(KDTree(points, metric="chebyshev").query_radius(points, radius, count_only=True), 1)
