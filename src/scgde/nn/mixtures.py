"""Gaussian mixtures of groups, and roots of their covariances."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixtures:
    """A batch of Gaussian mixtures, one per group.

    Parameters
    ----------
    weight
        (groups, components), sums to 1.
    mean
        (groups, components, features).
    root
        Square root of the covariance: standard deviations (groups, components, features), or the symmetric roots
        (groups, components, features, features).
    cross
        (groups, pairs) mean covariance within components of pairs of leading features, where they were measured.
    """

    weight: Tensor
    mean: Tensor
    root: Tensor
    cross: Tensor | None = None

    @property
    def full(self) -> bool:
        """Whether covariances are full matrices."""
        return self.root.ndim == 4

    def __getitem__(self, index) -> Mixtures:
        cross = None if self.cross is None else self.cross[index]
        return Mixtures(self.weight[index], self.mean[index], self.root[index], cross)

    def to(self, *args: Any) -> Mixtures:
        """On another device or in another dtype, as :meth:`torch.Tensor.to`."""
        cross = None if self.cross is None else self.cross.to(*args)
        return Mixtures(self.weight.to(*args), self.mean.to(*args), self.root.to(*args), cross)

    def covariance(self) -> Tensor:
        """Variances, or covariance matrices, in the shape of ``root``."""
        return self.root @ self.root if self.full else self.root.square()

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of cells, (groups, cells), of ``x`` (groups, cells, features)."""
        covariance = self.covariance()
        difference = x[:, :, None] - self.mean[:, None]
        if self.full:
            precision, log_det = covariance.inverse(), covariance.logdet()
            distance = torch.einsum("gnki,gkij,gnkj->gnk", difference, precision, difference)
        else:
            distance = (difference.square() / covariance[:, None]).sum(-1)
            log_det = covariance.log().sum(-1)
        log_prob = -0.5 * (distance + log_det[:, None] + x.shape[-1] * math.log(2 * math.pi))
        return torch.logsumexp(log_prob + self.weight.log()[:, None], dim=-1)


class _SymmetricRoot(torch.autograd.Function):
    """The derivative of an eigenvector is infinite where eigenvalues are equal; that of the root is not."""

    @staticmethod
    def forward(ctx, covariance: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(covariance)
        root = values.clamp_min(1e-6).sqrt()
        ctx.save_for_backward(root, vectors)
        return (vectors * root[..., None, :]) @ vectors.transpose(-1, -2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        # d root solves root (d root) + (d root) root = d covariance: a division in the eigenbasis.
        root, vectors = ctx.saved_tensors
        inner = vectors.transpose(-1, -2) @ gradient @ vectors / (root[..., :, None] + root[..., None, :])
        return vectors @ inner @ vectors.transpose(-1, -2)


def symmetric_root(covariance: Tensor) -> Tensor:
    """Symmetric square root of (..., features, features) covariances."""
    return _SymmetricRoot.apply(covariance)


def positive_part(root: Tensor) -> Tensor:
    """The nearest symmetric matrix with eigenvalues of at least 1e-3."""
    # The derivative is that of the identity: eigenvectors of equal eigenvalues have none.
    values, vectors = torch.linalg.eigh(root.detach())
    return root + (vectors * (1e-3 - values).clamp_min(0)[..., None, :]) @ vectors.transpose(-1, -2)
