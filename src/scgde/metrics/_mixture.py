"""Squared 2-Wasserstein distance between Gaussian mixtures."""

from __future__ import annotations

import numpy as np
import ot
import torch

from ._arguments import as_tensor
from ._wasserstein import matrix_root

#: Weights, shape (components,); means, (components, features); and covariances, (components, features, features), or
#: variances, (components, features).
Mixture = tuple[np.ndarray | torch.Tensor, np.ndarray | torch.Tensor, np.ndarray | torch.Tensor]


def w2_mixture(x: Mixture, y: Mixture) -> float:
    """Squared mixture Wasserstein distance: optimal transport between components, at the cost of :func:`w2_gaussian`.

    The plan moves whole components, Gaussian to Gaussian. It is an upper bound of the Wasserstein distance between the
    mixtures, equal to it for single components.

    Parameters
    ----------
    x, y
        Weights, means and covariances (or variances, for diagonal ones) of each mixture: shapes (components,),
        (components, features), and (components, features, features) or (components, features).

    Returns
    -------
    The squared distance, in squared units of the features.

    Raises
    ------
    ValueError
        For NaN, weights that are negative or do not sum to 1, and shapes that do not fit together.

    Notes
    -----
    Source: Delon and Desolneux, A Wasserstein-type distance in the space of Gaussian mixture models, SIAM J. Imaging
    Sciences 2020. The plan is that of `ot.emd2` of POT (Flamary et al., JMLR 2021).

    Examples
    --------
    >>> w2_mixture((w1, means1, variances1), (w2, means2, variances2))
    >>> pairwise(mixtures, metric=w2_mixture)  # of many groups: a list of such triples
    """
    (weight_x, mean_x, cov_x), (weight_y, mean_y, cov_y) = _checked(x, "x"), _checked(y, "y")
    if mean_x.shape[1] != mean_y.shape[1] or cov_x.ndim != cov_y.ndim:
        msg = (
            f"Covariances have shapes {tuple(cov_x.shape)} in x and {tuple(cov_y.shape)} in y: expected the same "
            "features, and full matrices in both or variances in both. `numpy.diag` makes one of the other."
        )
        raise ValueError(msg)
    if cov_x.ndim == 3:
        overlap = torch.linalg.svdvals(matrix_root(cov_x)[:, None] @ matrix_root(cov_y)).sum(-1)
        trace_x, trace_y = (torch.einsum("kii->k", cov) for cov in (cov_x, cov_y))
    else:
        overlap, trace_x, trace_y = cov_x.sqrt() @ cov_y.sqrt().T, cov_x.sum(1), cov_y.sum(1)
    moved = (mean_x[:, None] - mean_y).square().sum(-1)
    cost = (moved + trace_x[:, None] + trace_y - 2 * overlap).clamp_min(0)
    return float(ot.emd2(*(part.cpu().numpy() for part in (weight_x, weight_y, cost)), numItermax=10_000_000))


def _checked(mixture: Mixture, name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    parts = zip(mixture, ("weights", "means", "covariances"), strict=True)
    weight, mean, cov = (as_tensor(part, f"{kind} of {name}").double() for part, kind in parts)
    k, d = len(weight), mean.shape[-1]
    if weight.ndim != 1 or mean.shape != (k, d) or cov.shape not in ((k, d), (k, d, d)):
        msg = (
            f"Weights, means and covariances of {name} have shapes {tuple(weight.shape)}, {tuple(mean.shape)} and "
            f"{tuple(cov.shape)}: expected (k,), (k, d), and (k, d) or (k, d, d)."
        )
        raise ValueError(msg)
    if (weight < 0).any() or abs(float(weight.sum()) - 1) > 1e-4:
        msg = f"Weights of {name} sum to {float(weight.sum()):.4g}: expected non-negative numbers that sum to 1."
        raise ValueError(msg)
    if cov.ndim == 2 and (cov < 0).any():
        msg = f"Variances of {name} are negative, down to {float(cov.min()):.4g}: expected squares, not roots."
        raise ValueError(msg)
    return weight / weight.sum(), mean, cov
