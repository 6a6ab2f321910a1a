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
    covariances are its weighted moments under that split. They are regularised by constants, never by a number of
    cells, so that they remain a function of the group's distribution alone: with p_k the mass of component k in the
    group, and a constant ``prior_mass`` c::

        weight_k     = (p_k + c P_k) / (1 + c)
        mean_k       = M_k + d + p_k / (p_k + c) (m_k - M_k - d)        d = sum_k p_k (m_k - M_k)
        covariance_k = (p_k S_k + c W_k) / (p_k + c)

    where m_k is the mean of the group's part in component k and S_k its second moment around mean_k; P_k, M_k and W_k
    are the pooled weight, mean and within-group covariance. The common shift d is not shrunk: all cells measure it.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_components
        Number of mixture components shared by all groups.
    n_coordinates
        Number of principal components of the statistics that enter the embedding; :meth:`fit_basis` sets it.
    """

    weight: Tensor
    mean: Tensor
    root: Tensor
    pooled_weight: Tensor
    pooled_mean: Tensor
    pooled_within: Tensor
    prior_mass: Tensor
    feature_scale: Tensor
    center: Tensor
    basis: Tensor
    spread: Tensor

    def __init__(self, n_features: int, n_components: int, n_coordinates: int = 0) -> None:
        super().__init__()
        self.n_features, self.n_components = n_features, n_components
        self.full = n_features <= MAX_FULL_COVARIANCE
        unit = torch.eye(n_features)[None] if self.full else torch.ones(1, n_features)
        unit = unit.repeat(n_components, *[1] * (unit.ndim - 1))
        self.register_buffer("weight", torch.full((n_components,), 1 / n_components))
        self.register_buffer("mean", torch.zeros(n_components, n_features))
        self.register_buffer("root", unit)
        self.register_buffer("pooled_weight", torch.full((n_components,), 1 / n_components))
        self.register_buffer("pooled_mean", torch.zeros(n_components, n_features))
        self.register_buffer("pooled_within", unit.clone())
        self.register_buffer("prior_mass", torch.tensor(0.03))
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

    @property
    def sums_shape(self) -> tuple[int, int]:
        """Shape of one group's :meth:`sums`."""
        second = self.n_features**2 if self.full else self.n_features
        return self.n_components, 1 + self.n_features + second

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
        return torch.einsum("gnk,gnp->gkp", shared, self.monomials(x))

    def monomials(self, x: Tensor) -> Tensor:
        """1, the features and their squares or products, (..., 1 + features + second moments)."""
        second = (x[..., :, None] * x[..., None, :]).flatten(-2) if self.full else x.square()
        return torch.cat([torch.ones_like(x[..., :1]), x, second], dim=-1)

    def mixtures(self, sums: Tensor) -> Mixtures:
        """The groups' own mixtures from their :meth:`sums` (any total mass)."""
        mass, first, second = self._split(sums)
        prior = self.prior_mass.to(sums)
        pooled_mean = self.pooled_mean.to(sums)
        deviation = first - mass * pooled_mean
        shift = deviation.sum(1, keepdim=True)
        mean = pooled_mean + shift + (deviation - mass * shift) / (mass + prior)
        within = self._within(mass, first, second, mean) + prior * self.pooled_within.to(sums)
        if self.full:
            root = symmetric_root(within / (mass + prior)[..., None])
        else:
            root = (within / (mass + prior)).clamp_min(1e-6).sqrt()
        weight = (mass[..., 0] + prior * self.pooled_weight.to(sums)) / (1 + prior)
        return Mixtures(weight, mean, root)

    def _split(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mass (groups, components, 1), first and second moments of the components, for a total mass of 1."""
        sums = sums / sums[..., 0].sum(-1)[:, None, None]
        mass, first, second = sums.split([1, self.n_features, sums.shape[-1] - 1 - self.n_features], dim=-1)
        return mass, first, second.unflatten(-1, (self.n_features, -1)) if self.full else second

    def _within(self, mass: Tensor, first: Tensor, second: Tensor, mean: Tensor) -> Tensor:
        """Mass times the second moment around ``mean``."""
        if not self.full:
            return (second - 2 * mean * first + mass * mean.square()).clamp_min(0)
        cross = mean[..., :, None] * first[..., None, :]
        square = mean[..., :, None] * mean[..., None, :]
        return second - cross - cross.transpose(-1, -2) + mass[..., None] * square

    # --- fitting: everything is closed form --------------------------------------------------------------------------

    def fit_pooled(self, sums: Tensor) -> None:
        """Set the pooled population from the :meth:`sums` of the training groups, which count equally."""
        mass, first, second = self._split(sums)
        pooled_mass = mass.mean(0)
        self.pooled_weight.copy_(pooled_mass[:, 0])
        # A component without any mass (an outlier that is held out, say) stays where the shared mixture has it.
        used, pooled_mass = pooled_mass > 1e-12, pooled_mass.clamp_min(1e-12)
        self.pooled_mean.copy_(torch.where(used, first.mean(0) / pooled_mass, self.mean))
        own = torch.where(mass > 0, first / mass.clamp_min(1e-12), self.pooled_mean)
        within = self._within(mass, first, second, own).mean(0) / (pooled_mass[..., None] if self.full else pooled_mass)
        # Groups of one or two cells have no spread of their own: a share of the component's shared covariance stays.
        shared = self.root @ self.root if self.full else self.root.square()
        self.pooled_within.copy_(0.9 * within + 0.1 * shared)

    def fit_basis(self, mixtures: Mixtures, max_coordinates: int) -> None:
        """Set the embedding's coordinates: principal components of the statistics over the training groups.

        A few groups span few directions, and a new group differs in others. The covariance of the statistics is
        therefore shrunk towards a structured one, in which all components of a group shift (and spread) together along
        each feature and the weights vary one by one; with n groups the structured part has weight 30 / (30 + n).
        """
        vector = self.vectorize(mixtures)
        self.center.copy_(vector.mean(0))
        deviation = (vector - self.center).unflatten(1, (self.n_components, -1))
        share = 30 / (30 + len(deviation))
        common = self._component_scale(vector)
        spread = (deviation * common).sum(1).square().mean(0).sqrt()[1:]
        together = deviation.new_zeros(len(spread), *deviation.shape[1:])
        index = torch.arange(len(spread))
        together[index, :, index + 1] = common[:, 0] * spread[:, None]
        alone = deviation.new_zeros(self.n_components, *deviation.shape[1:])
        index = torch.arange(self.n_components)
        alone[index, index, 0] = deviation[..., 0].square().mean(0).sqrt()
        factors = torch.cat(
            [math.sqrt((1 - share) / len(vector)) * deviation, math.sqrt(share) * together, math.sqrt(share) * alone]
        ).flatten(1)
        _, size, basis = torch.linalg.svd(factors.double(), full_matrices=False)
        basis = basis[: min(max_coordinates, int((size > 1e-4 * size[0]).sum()))].float()
        # The sign of a singular vector is arbitrary: its largest entry is made positive, so that results repeat.
        self.basis = (basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()).contiguous()
        spread = self.coordinates(mixtures).square().mean(0).sqrt().clamp_min(1e-3)
        # Many groups tell which small differences matter; a few do not, and a network that sees them enlarged to unit
        # spread goes astray in new groups. So with few groups coordinates keep more of their natural scale.
        self.spread = spread ** (1 - share) * spread.max() ** share

    # --- coordinates: from mixtures to the embedding and back ------------------------------------------------------

    def vectorize(self, mixtures: Mixtures) -> Tensor:
        """Statistics as a vector whose Euclidean distance approximates the Wasserstein distance, (groups, statistics).

        Means and covariance roots enter in the units of the representation (``feature_scale``), weighted by the square
        root of the shared component weight; weights enter as square roots scaled by the spread between components.
        """
        scale, units = self._component_scale(mixtures.mean), self.feature_scale.to(mixtures.mean)
        if self.full:
            i, j = self.lower
            root = symmetric_root(mixtures.covariance() * units[:, None] * units)
            root = root[..., i, j] * self._off_diagonal(mixtures.mean)
        else:
            root = mixtures.root * units
        weight = self._weight_scale.to(mixtures.mean) * mixtures.weight.sqrt()[..., None]
        return torch.cat([weight, scale * mixtures.mean * units, scale * root], dim=-1).flatten(1)

    def coordinates(self, mixtures: Mixtures) -> Tensor:
        """Principal coordinates of the statistics at their natural scale, (groups, coordinates)."""
        vector = self.vectorize(mixtures)
        return (vector - self.center.to(vector)) @ self.basis.T.to(vector)

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
    values, vectors = torch.linalg.eigh(root)
    return (vectors * values.clamp_min(1e-3)[..., None, :]) @ vectors.transpose(-1, -2)
