"""Closed-form statistics of a group: weights, means and covariances on a Gaussian mixture shared by all groups.

Every statistic is a smooth function of weighted means over the group's cells, so it is invariant to the order and to
the proportional duplication of cells, and asymptotically normal.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from scgde.nn._component_types import component_types
from scgde.nn.mixtures import Mixtures, positive_part, symmetric_root

#: With at most this many features covariances are full; above, they are diagonal.
MAX_FULL_COVARIANCE = 6

#: Where covariances are diagonal, so many leading features enter the correlations within components. So many principal
#: components of these, or of moments of whole populations, enter an embedding.
MAX_CROSSED, MAX_OTHERS = 20, 16

#: Weight in the embedding of the mean and covariance of whole populations of several components. Squared distances add
#: up: those of the mixtures, which see types of cells, and those of the Gaussians, which see where all cells are.
WHOLE_SCALE = 2**0.5

#: Part of the pooled covariance within groups that is taken from the shared mixture.
SHARED_SHARE = 0.1


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
    Where covariances are diagonal, sum_k p_k S_k of the leading features is kept as the group's correlations.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_components
        Number of mixture components shared by all groups.
    n_coordinates
        Number of coordinates of the statistics in the embedding; :meth:`fit_basis` sets it.
    n_crossed
        Number of leading features whose correlations are measured: by default up to :data:`MAX_CROSSED`, and none
        where covariances are full.
    n_whole
        Number of moments of the whole population in the embedding: by default mean and covariance where covariances
        are full and there are several components, else none.
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

    def __init__(
        self,
        n_features: int,
        n_components: int,
        n_coordinates: int = 0,
        n_crossed: int | None = None,
        n_whole: int | None = None,
    ) -> None:
        super().__init__()
        self.n_features, self.n_components = n_features, n_components
        self.full = n_features <= MAX_FULL_COVARIANCE
        self.n_crossed = (0 if self.full else min(n_features, MAX_CROSSED)) if n_crossed is None else n_crossed
        unit = torch.eye(n_features)[None] if self.full else torch.ones(1, n_features)
        unit = unit.repeat(n_components, *[1] * (unit.ndim - 1))
        self.register_buffer("weight", torch.full((n_components,), 1 / n_components))
        self.register_buffer("mean", torch.zeros(n_components, n_features))
        self.register_buffer("root", unit)
        self.register_buffer("pooled_weight", torch.full((n_components,), 1 / n_components))
        self.register_buffer("pooled_mean", torch.zeros(n_components, n_features))
        self.register_buffer("pooled_within", unit.clone())
        self.register_buffer("prior_mass", torch.tensor(0.03))
        self.shared_share = SHARED_SHARE
        n_roots = n_features * (n_features + 1) // 2 if self.full else n_features
        if n_whole is None:
            n_whole = n_features + n_roots if self.full and n_components > 1 else 0
        self.n_vector, self.n_whole = n_components * (1 + n_features + n_roots), n_whole
        n_statistics = self.n_vector + self.n_pairs + n_whole
        self.register_buffer("feature_scale", torch.ones(n_features))
        self.register_buffer("center", torch.zeros(n_statistics))
        self.register_buffer("basis", torch.zeros(n_coordinates, n_statistics))
        self.register_buffer("spread", torch.ones(n_coordinates))

    @property
    def lower(self) -> Tensor:
        """Indices of the lower triangle of a covariance root."""
        return torch.tril_indices(self.n_features, self.n_features, device=self.weight.device)

    @property
    def n_pairs(self) -> int:
        """Number of pairs of features whose correlations are measured."""
        return self.n_crossed * (self.n_crossed - 1) // 2

    def pairs(self, like: Tensor) -> Tensor:
        """Indices of these pairs, (2, pairs), on the device of ``like``."""
        return torch.tril_indices(self.n_crossed, self.n_crossed, -1, device=like.device)

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
    def n_sums(self) -> int:
        """Number of :meth:`sums` of a group."""
        second = self.n_features**2 if self.full else self.n_features
        return self.n_components * (1 + self.n_features + second) + self.n_pairs

    def sums(self, x: Tensor, weight: Tensor) -> Tensor:
        """Weighted sums that all statistics are made of, (groups, n_sums), in the dtype and on the device of weights.

        Parameters
        ----------
        x
            (groups, cells, features).
        weight
            (groups, cells); sums of parts of a group add up.
        """
        shares = self.responsibilities(x).to(weight) * weight[..., None]
        x = x.to(weight)
        parts = shares.transpose(1, 2) @ self._monomials(x)
        leading = x[..., : self.n_crossed]
        crossed = (leading * weight[..., None]).transpose(1, 2) @ leading
        i, j = self.pairs(x)
        return torch.cat([parts.flatten(1), crossed[:, i, j]], dim=-1)

    def sums_of_parts(self, x: Tensor, weight: Tensor, sizes: list[int]) -> Tensor:
        """:meth:`sums` of parts of any ``sizes``, (parts, n_sums), whose cells follow one another.

        Parameters
        ----------
        x
            (cells, features).
        weight
            (cells,).
        sizes
            Cells of each part.
        """
        shares, leading = self.responsibilities(x) * weight[:, None], x[:, : self.n_crossed]
        columns = (shares, self._monomials(x), leading * weight[:, None], leading)
        split = zip(*(column.split(sizes) for column in columns), strict=True)
        moments, crossed = zip(*((a.T @ b, c.T @ d) for a, b, c, d in split), strict=True)
        i, j = self.pairs(x)
        return torch.cat([torch.stack(moments).flatten(1), torch.stack(crossed)[:, i, j]], dim=-1)

    def terms(self, x: Tensor) -> Tensor:
        """What each cell adds to :meth:`sums` for a weight of 1, (..., n_sums)."""
        parts = self.responsibilities(x)[..., :, None] * self._monomials(x)[..., None, :]
        i, j = self.pairs(x)
        return torch.cat([parts.flatten(-2), x[..., i] * x[..., j]], dim=-1)

    def _monomials(self, x: Tensor) -> Tensor:
        """1, the features and their squares or products, (..., 1 + features + second moments)."""
        second = (x[..., :, None] * x[..., None, :]).flatten(-2) if self.full else x.square()
        return torch.cat([torch.ones_like(x[..., :1]), x, second], dim=-1)

    def mixtures(self, sums: Tensor) -> Mixtures:
        """The groups' own mixtures from their :meth:`sums` (any total mass)."""
        mass, first, second, product = self._split(sums)
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
        if not self.n_pairs:
            return Mixtures(weight, mean, root)
        i, j = self.pairs(sums)
        leading, own = mean[..., : self.n_crossed], first[..., : self.n_crossed]
        explained = leading.transpose(1, 2) @ own + (own - mass * leading).transpose(1, 2) @ leading
        return Mixtures(weight, mean, root, product - explained[:, i, j])

    def predictive(self, mixtures: Mixtures, sums: Tensor) -> Mixtures:
        """What single Gaussians, measured on a sample, say about cells that are not in it; mixtures as they are.

        In units of a covariance C measured on n cells in d features, another cell scatters around their mean by
        (n + 1) / (n - d - 2), on average over samples (d is 1 where covariances are diagonal). A network that learns to
        correct Gaussians on cells left out would learn that factor, which is wrong for a group of another size. The
        error of a mixture is less well known, and mostly not that of a small sample.

        Parameters
        ----------
        mixtures
            (groups,) measured, or read back.
        sums
            The :meth:`sums` that they were made of, of cells that weigh 1.
        """
        if self.n_components > 1:
            return mixtures
        n_cells = sums[:, :1].to(mixtures.root)
        freedom = n_cells - 2 - (self.n_features if self.full else 1)
        factor = ((n_cells + 1) / torch.maximum(freedom, 0.5 * n_cells)).sqrt()
        return replace(mixtures, root=mixtures.root * factor[(..., *[None] * (mixtures.root.ndim - 2))])

    def _split(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mass (groups, components, 1), first and second moments, and products of pairs, for a total mass of 1."""
        parts, product = sums.tensor_split([self.n_sums - self.n_pairs], dim=1)
        parts = parts.unflatten(1, (self.n_components, -1))
        total = parts[..., 0].sum(1)[:, None]
        mass, first, second = (parts / total[..., None]).tensor_split([1, 1 + self.n_features], dim=-1)
        return mass, first, second.unflatten(-1, (self.n_features, -1)) if self.full else second, product / total

    def _within(self, mass: Tensor, first: Tensor, second: Tensor, mean: Tensor) -> Tensor:
        """Mass times the second moment around ``mean``."""
        if not self.full:
            return (second - 2 * mean * first + mass * mean.square()).clamp_min(0)
        cross = mean[..., :, None] * first[..., None, :]
        square = mean[..., :, None] * mean[..., None, :]
        return second - cross - cross.transpose(-1, -2) + mass[..., None] * square

    # --- fitting: everything is closed form --------------------------------------------------------------------------

    def fit_pooled(self, sums: Tensor, weight: Tensor | None = None) -> None:
        """Set the pooled population from the :meth:`sums` of the training groups, which count by weight, or equally."""

        def mean(values: Tensor) -> Tensor:
            return values.mean(0) if weight is None else torch.tensordot(weight.to(values) / weight.sum(), values, 1)

        mass, first, second, _ = self._split(sums)
        pooled_mass = mean(mass)
        self.pooled_weight.copy_(pooled_mass[:, 0])
        # A component without any mass (an outlier that is held out, say) stays where the shared mixture has it.
        used, pooled_mass = pooled_mass > 1e-12, pooled_mass.clamp_min(1e-12)
        self.pooled_mean.copy_(torch.where(used, mean(first) / pooled_mass, self.mean))
        own = torch.where(mass > 0, first / mass.clamp_min(1e-12), self.pooled_mean)
        within = mean(self._within(mass, first, second, own)) / (pooled_mass[..., None] if self.full else pooled_mass)
        # Groups of one or two cells have no spread of their own: a share of the component's shared covariance stays.
        shared = self.root @ self.root if self.full else self.root.square()
        share = torch.where(used, self.shared_share, SHARED_SHARE)
        share = share[..., None] if self.full else share
        self.pooled_within.copy_((1 - share) * within + share * shared)

    def fit_basis(self, mixtures: Mixtures, max_coordinates: int, weight: Tensor | None = None) -> None:
        """Set the embedding's coordinates, in blocks: means and spreads, weights, correlations or whole populations.

        Means and spreads enter by their principal components over the training groups, and so do correlations, or the
        mean and covariance of the whole population; weights enter as they are, unless there are more than
        :func:`most_weights`.

        A few groups span few directions, and a new group differs in others. The covariance of means and spreads is
        therefore shrunk towards a structured one, in which all components of a group shift (and spread) together along
        each feature; with n groups the structured part has weight 30 / (30 + n). Groups count by ``weight``, or
        equally.
        """
        vector = self.all_statistics(mixtures)
        factor = torch.ones(len(vector), 1) if weight is None else (weight / weight.mean()).sqrt()[:, None]
        self.center.copy_((factor.square() * vector).mean(0))
        deviation = factor * (vector - self.center)
        parts, others = (
            deviation[:, : self.n_vector].unflatten(1, (self.n_components, -1)),
            deviation[:, self.n_vector :],
        )
        share = 30 / (30 + len(vector))
        common = self._component_scale(vector)
        spread = (parts[..., 1:] * common).sum(1).square().mean(0).sqrt()
        together = (common * torch.diag(spread)[:, None]).flatten(1)
        own = math.sqrt((1 - share) / len(vector)) * parts[..., 1:].flatten(1)
        n_weights = 0 if self.n_components == 1 else min(self.n_components, most_weights(max_coordinates))
        n_others = min(MAX_OTHERS, max_coordinates // 6) if others.shape[1] else 0
        others = principal_axes(others, n_others)
        moments = principal_axes(
            torch.cat([own, math.sqrt(share) * together]), max_coordinates - n_weights - len(others)
        )
        exact = n_weights in (0, self.n_components)
        weights = torch.eye(self.n_components)[:n_weights] if exact else principal_axes(parts[..., 0], n_weights)
        basis = torch.zeros(len(moments) + len(weights) + len(others), vector.shape[1])
        rows = basis[:, : self.n_vector].unflatten(1, (self.n_components, -1))
        rows[: len(moments), :, 1:] = moments.unflatten(1, (self.n_components, -1))
        rows[len(moments) : len(moments) + len(weights), :, 0] = weights
        basis[len(moments) + len(weights) :, self.n_vector :] = others
        self.basis = basis
        spread = (factor * self.coordinates(mixtures)).square().mean(0).sqrt().clamp_min(1e-3)
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
        vector = self.all_statistics(mixtures)
        return (vector - self.center.to(vector)) @ self.basis.T.to(vector)

    def read_back(self, coordinates: Tensor) -> Mixtures:
        """The mixtures that ``coordinates`` stand for: an embedding alone is enough to decode."""
        vector = self.center + coordinates @ self.basis
        return self.devectorize(vector[:, : self.n_vector])

    def blocks(self, coordinates: Tensor) -> dict[str, Tensor]:
        """Parts of what ``coordinates`` say, for heads to read: each is (groups, n), and a smooth function of them.

        Of several components the logarithms of the weights, which show rare ones; the weights themselves, which show
        common ones; and the weights of types, which no head has to put together from few labels. Of a single one mean
        and standard deviation of all cells. Coordinates of the correlations.
        """
        mixtures = self.read_back(coordinates)
        crossed = self.basis[:, self.n_vector : self.n_vector + self.n_pairs].any(1)
        found = {"correlations": coordinates[:, crossed]}
        if self.n_components > 1:
            types = component_types(self.pooled_mean, self.pooled_within).to(coordinates)
            weights = {"log_weights": mixtures.weight.log(), "weights": mixtures.weight}
            if 1 < len(types) < self.n_components:
                weights["types"] = mixtures.weight @ types.T
            found = weights | found
        else:
            covariance = mixtures.covariance()[:, 0]
            variance = covariance.diagonal(dim1=-2, dim2=-1) if self.full else covariance
            moments = torch.cat([mixtures.mean[:, 0], variance.sqrt()], dim=-1)
            found = {"moments": moments * self.feature_scale.repeat(2)} | found
        return {name: block for name, block in found.items() if block.shape[1]}

    def all_statistics(self, mixtures: Mixtures) -> Tensor:
        """The vector of :meth:`vectorize`, and correlations at their natural scale, or moments of whole populations.

        To first order correlations are the entries of the root of the covariance within components, off its diagonal.
        """
        blocks = [self.vectorize(mixtures)]
        if self.n_pairs:
            blocks.append(self._correlations(mixtures, blocks[0]))
        if self.n_whole:
            blocks.append(WHOLE_SCALE * self._whole(mixtures))
        return torch.cat(blocks, dim=1)

    def _correlations(self, mixtures: Mixtures, like: Tensor) -> Tensor:
        """Correlations within components; the pooled ones where they were not measured."""
        if mixtures.cross is None:
            return self.center[self.n_vector : self.n_vector + self.n_pairs].to(like).expand(len(like), -1)
        i, j = self.pairs(like)
        units = self.feature_scale.to(like)
        root = (self.pooled_weight[:, None] * self.pooled_within).sum(0).sqrt().to(like) * units
        return math.sqrt(2) * units[i] * units[j] / (root[i] + root[j]).clamp_min(1e-6) * mixtures.cross

    def _whole(self, mixtures: Mixtures) -> Tensor:
        """Mean and covariance root of the whole population, where covariances are full: distances approximate W2."""
        units, (i, j) = self.feature_scale.to(mixtures.mean), self.lower
        weight = mixtures.weight[..., None]
        mean = (weight * mixtures.mean).sum(1)
        centred = mixtures.mean - mean[:, None]
        between = (weight * centred).transpose(1, 2) @ centred
        covariance = between + (weight[..., None] * mixtures.covariance()).sum(1)
        root = symmetric_root(covariance * units[:, None] * units)[:, i, j] * self._off_diagonal(mean)
        return torch.cat([mean * units, root], dim=1)

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


def most_weights(max_coordinates: int) -> int:
    """Number of weights that enter an embedding as they are. Principal components of more miss what new groups have."""
    return max_coordinates // 2


def principal_axes(deviation: Tensor, n: int) -> Tensor:
    """At most ``n`` principal axes of (rows, statistics), orthonormal, those along which rows differ at all."""
    _, size, axes = torch.linalg.svd(deviation.double(), full_matrices=False)
    axes = axes[: min(n, int((size > 1e-4 * size[:1]).sum()))].float()
    # The sign of a singular vector is arbitrary: its largest entry is made positive, so that results repeat.
    return axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign() if len(axes) else axes
