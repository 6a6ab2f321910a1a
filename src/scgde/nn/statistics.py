"""Closed-form statistics of a group: weights, means and covariances on a Gaussian mixture shared by all groups.

Every statistic is a smooth function of weighted means over the group's cells, so it is invariant to the order and to
the proportional duplication of cells, and asymptotically normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: With at most this many features covariances are full; above, they are diagonal.
MAX_FULL_COVARIANCE = 6


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
    """

    weight: Tensor
    mean: Tensor
    root: Tensor

    @property
    def full(self) -> bool:
        """Whether covariances are full matrices."""
        return self.root.ndim == 4

    def __getitem__(self, index) -> Mixtures:
        return Mixtures(self.weight[index], self.mean[index], self.root[index])

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


class MixtureStatistics(nn.Module):
    """Statistics of a group on a shared mixture, and their coordinates in the embedding.

    The responsibilities of the shared components split every cell between components; the group's weights, means and
    covariances are its weighted moments under that split. They are regularised by mixing a fixed fraction
    ``pooled_mass`` of the pooled population into the group, never by a number of cells: the statistics remain a
    function of the group's distribution alone.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_components
        Number of mixture components shared by all groups.
    n_coordinates
        Number of principal components of the statistics that enter the embedding.
    """

    def __init__(self, n_features: int, n_components: int, n_coordinates: int) -> None:
        super().__init__()
        self.n_features, self.n_components = n_features, n_components
        self.full = n_features <= MAX_FULL_COVARIANCE
        second = (n_features, n_features) if self.full else (n_features,)
        self.register_buffer("weight", torch.full((n_components,), 1 / n_components))
        self.register_buffer("mean", torch.zeros(n_components, n_features))
        self.register_buffer("root", torch.ones(n_components, *second))
        self.register_buffer("pooled", torch.zeros(n_components, 1 + n_features + math.prod(second)))
        self.register_buffer("pooled_mass", torch.tensor(0.05))
        n_statistics = n_components * (1 + n_features + (self.lower.shape[1] if self.full else n_features))
        self.register_buffer("feature_scale", torch.ones(n_features))
        self.register_buffer("center", torch.zeros(n_statistics))
        self.register_buffer("basis", torch.zeros(n_coordinates, n_statistics))
        self.register_buffer("spread", torch.ones(n_coordinates))

    @property
    def lower(self) -> Tensor:
        """Indices of the lower triangle of a covariance root."""
        return torch.tril_indices(self.n_features, self.n_features)

    def responsibilities(self, x: Tensor) -> Tensor:
        """Share of each component in each cell under the shared mixture, (..., components)."""
        flat = x.reshape(-1, self.n_features)
        if self.full:
            whitened = torch.einsum("nki,kij->nkj", flat[:, None] - self.mean, self.root.inverse())
            distance, log_det = whitened.square().sum(-1), 2 * self.root.logdet()
        else:
            precision = self.root.square().reciprocal()
            linear = self.mean * precision
            distance = flat.square() @ precision.T - 2 * flat @ linear.T + (self.mean * linear).sum(-1)
            log_det = 2 * self.root.log().sum(-1)
        logits = self.weight.log() - 0.5 * (distance + log_det)
        return logits.softmax(-1).reshape(*x.shape[:-1], self.n_components)

    def sums(self, x: Tensor, weight: Tensor) -> Tensor:
        """Weighted sums that all statistics are made of: (groups, components, 1 + features + second moments).

        Parameters
        ----------
        x
            (groups, cells, features).
        weight
            (groups, cells); sums of parts of a group add up.
        """
        shared = self.responsibilities(x) * weight[..., None]
        return torch.einsum("gnk,gnp->gkp", shared, self._monomials(x))

    def _monomials(self, x: Tensor) -> Tensor:
        second = (x[..., :, None] * x[..., None, :]).flatten(-2) if self.full else x.square()
        return torch.cat([torch.ones_like(x[..., :1]), x, second], dim=-1)

    def mixtures(self, sums: Tensor) -> Mixtures:
        """The groups' own mixtures from their :meth:`sums` (any total mass)."""
        mass = sums[..., 0].sum(-1)[:, None, None]
        sums = (1 - self.pooled_mass) * sums / mass + self.pooled_mass * self.pooled.to(sums)
        weight, first, second = sums.split([1, self.n_features, sums.shape[-1] - 1 - self.n_features], dim=-1)
        mean = first / weight
        if self.full:
            second = second.unflatten(-1, (self.n_features, -1)) / weight[..., None]
            root = symmetric_root(second - mean[..., :, None] * mean[..., None, :])
        else:
            root = (second / weight - mean.square()).clamp_min(1e-6).sqrt()
        return Mixtures(weight[..., 0], mean, root)

    # --- coordinates: from mixtures to the embedding and back ------------------------------------------------------

    def vectorize(self, mixtures: Mixtures) -> Tensor:
        """Statistics as a vector whose Euclidean distance approximates the Wasserstein distance, (groups, statistics).

        Means and covariance roots enter in the units of the representation (``feature_scale``), weighted by the square
        root of the shared component weight; weights enter as square roots scaled by the spread between components.
        """
        scale = self._component_scale(mixtures.mean)
        if self.full:
            units = self.feature_scale[:, None] * self.feature_scale
            i, j = self.lower
            root = symmetric_root(mixtures.covariance() * units)[..., i, j] * self._off_diagonal(mixtures.mean)
        else:
            root = mixtures.root * self.feature_scale
        weight = self._weight_scale * mixtures.weight.sqrt()[..., None]
        return torch.cat([weight, scale * mixtures.mean * self.feature_scale, scale * root], dim=-1).flatten(1)

    def coordinates(self, mixtures: Mixtures) -> Tensor:
        """Principal coordinates of the statistics at their natural scale, (groups, coordinates)."""
        return (self.vectorize(mixtures) - self.center) @ self.basis.T

    def read_back(self, coordinates: Tensor) -> Mixtures:
        """The mixtures that ``coordinates`` stand for: an embedding alone is enough to decode."""
        return self.devectorize(self.center + coordinates @ self.basis)

    def devectorize(self, vector: Tensor) -> Mixtures:
        """The mixtures of a statistics vector; the nearest valid ones where it lies outside their range."""
        scale = self._component_scale(vector)
        parts = vector.unflatten(1, (self.n_components, -1))
        weight, mean, root = parts.split([1, self.n_features, parts.shape[-1] - 1 - self.n_features], dim=-1)
        weight = (weight[..., 0] / self._weight_scale).clamp_min(1e-3).square()
        root = root / scale
        if self.full:
            units = self.feature_scale[:, None] * self.feature_scale
            i, j = self.lower
            lower = root.new_zeros(*root.shape[:-1], self.n_features, self.n_features)
            lower[..., i, j] = root / self._off_diagonal(root)
            lower = positive_part(lower + lower.tril(-1).transpose(-1, -2))
            root = symmetric_root(lower @ lower / units)
        else:
            root = (root / self.feature_scale).clamp_min(0.05 * self.root)
        return Mixtures(weight / weight.sum(-1, keepdim=True), mean / (scale * self.feature_scale), root)

    def _component_scale(self, like: Tensor) -> Tensor:
        return self.weight.sqrt()[:, None].to(like)

    def _off_diagonal(self, like: Tensor) -> Tensor:
        """The factor that makes the lower triangle isometric to the symmetric matrix."""
        i, j = self.lower
        return torch.where(i == j, 1.0, math.sqrt(2)).to(like)

    @property
    def _weight_scale(self) -> Tensor:
        mean = self.mean * self.feature_scale
        center = (self.weight[:, None] * mean).sum(0)
        return (self.weight[:, None] * (mean - center).square()).sum().sqrt().clamp_min(1e-3)

def symmetric_root(covariance: Tensor) -> Tensor:
    """Symmetric square root of (..., features, features) covariances."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(1e-6).sqrt()[..., None, :]) @ vectors.transpose(-1, -2)


def positive_part(root: Tensor) -> Tensor:
    """The nearest symmetric matrix with eigenvalues of at least 1e-3."""
    values, vectors = torch.linalg.eigh(root)
    return (vectors * values.clamp_min(1e-3)[..., None, :]) @ vectors.transpose(-1, -2)
