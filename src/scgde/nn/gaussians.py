"""Moments of mixtures, and the optimal map between Gaussians."""

from __future__ import annotations

import torch
from torch import Tensor

from scgde.nn.mixtures import Mixtures, symmetric_root


def moments(mixtures: Mixtures) -> tuple[Tensor, Tensor]:
    """Mean (groups, features) and covariance of whole mixtures: variances, or matrices where the mixtures have them."""
    mean = torch.einsum("gk,gkd->gd", mixtures.weight, mixtures.mean)
    centred = mixtures.mean - mean[:, None]
    spread = centred[..., :, None] * centred[..., None, :] if mixtures.full else centred.square()
    return mean, torch.einsum("gk,gk...->g...", mixtures.weight, mixtures.covariance() + spread)


def single(mixtures: Mixtures) -> Mixtures:
    """Mixtures of one component, with the moments of the whole."""
    mean, covariance = moments(mixtures)
    root = symmetric_root(covariance) if mixtures.full else covariance.sqrt()
    return Mixtures(torch.ones_like(mean[:, :1]), mean[:, None], root[:, None])


def gaussian_map(source: Tensor, target: Tensor) -> Tensor:
    """The linear part of the optimal map between Gaussians with these covariances.

    Ratios of standard deviations (groups, features) for variances, else symmetric matrices (groups, features,
    features).

    Notes
    -----
    T(x) = m_1 + A (x - m_0), A = C_0^(-1/2) (C_0^(1/2) C_1 C_0^(1/2))^(1/2) C_0^(-1/2): Peyré and Cuturi,
    "Computational optimal transport", remark 2.31.
    """
    if source.ndim == 2:
        return (target / source).sqrt()
    root = symmetric_root(source)
    inverse = root.inverse()
    return inverse @ symmetric_root(root @ target @ root) @ inverse
