"""Which components of a mixture overlap, and so are one type of cells."""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

#: Components whose means are closer than this many standard deviations are one type: of two with equal masses, 0.6% of
#: the cells would be taken for the other at this distance.
TYPE_DISTANCE = 5.0


def component_types(mean: Tensor, covariance: Tensor) -> Tensor:
    """Cluster components by the distances of their means, in units of the mean spread of both (average linkage).

    Parameters
    ----------
    mean
        (components, features).
    covariance
        (components, features, features), or (components, features) variances.

    Returns
    -------
    (types, components) of zeros and ones, float64 on the CPU; each component is of one type.

    Notes
    -----
    Source: Hennig, "Methods for merging Gaussian mixture components" (2010).
    """
    mean, covariance = mean.double().cpu(), covariance.double().cpu()
    difference = mean[:, None] - mean
    pooled = 0.5 * (covariance[:, None] + covariance)
    if covariance.ndim == 3:
        squares = (difference * torch.linalg.solve(pooled, difference[..., None])[..., 0]).sum(-1)
    else:
        squares = (difference.square() / pooled).sum(-1)
    distance = squares.clamp_min(0).sqrt().numpy()
    np.fill_diagonal(distance, 0)
    labels = fcluster(linkage(squareform(distance, checks=False), "average"), TYPE_DISTANCE, "distance")
    return torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)) - 1).T.double()
