"""Encoders without anything to train: the baselines that users know."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scgde.nn._shared_mixture import Cells, fit_shared_mixture
from scgde.nn.encoders._base import Encoder, Level
from scgde.nn.statistics import MAX_FULL_COVARIANCE, MixtureStatistics


class _Principal(nn.Module):
    """Fixed linear map onto principal components."""

    center: Tensor
    basis: Tensor

    def __init__(self, n_statistics: int, n_code: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_statistics))
        basis = torch.zeros(n_code, n_statistics)
        # Random directions until it is fitted; entries of the code that the statistics cannot fill stay 0.
        nn.init.orthogonal_(basis[:n_statistics])
        self.register_buffer("basis", basis)

    def fit(self, statistics: Tensor) -> None:
        """Set centre and directions from (groups, statistics)."""
        self.center.copy_(statistics.mean(0))
        vectors = torch.linalg.svd(statistics - self.center, full_matrices=True).Vh
        vectors = vectors[: len(self.basis)]
        self.basis[: len(vectors)] = vectors * vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()

    def forward(self, statistics: Tensor) -> Tensor:
        return (statistics - self.center) @ self.basis.T


class _Moments(Level):
    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features, self.full = n_features, n_features <= MAX_FULL_COVARIANCE

    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        pairs = [(x[..., :, None] * x[..., None, :]).flatten(-2)] if self.full else []
        return torch.cat([x, x.square(), *pairs], dim=-1)

    def context(self, pooled: Tensor, context: Tensor) -> Tensor:
        mean, square, pairs = pooled.tensor_split([self.n_features, 2 * self.n_features], dim=-1)
        # A constant keeps groups of one cell differentiable; it must not depend on the number of cells.
        sd = ((square - mean.square()).clamp_min(0) + 1e-2).sqrt()
        if not self.full:
            return torch.cat([mean, sd], dim=-1)
        i, j = torch.tril_indices(self.n_features, self.n_features, -1)
        covariance = pairs.unflatten(-1, (self.n_features, -1)) - mean[..., :, None] * mean[..., None, :]
        return torch.cat([mean, sd, covariance[..., i, j] / (sd[..., i] * sd[..., j])], dim=-1)


class Moments(Encoder):
    """Means and standard deviations (and, of at most 6 features, correlations): their principal components.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_code
        Size of the code. Entries beyond the number of moments are 0.
    """

    def __init__(self, n_features: int, n_code: int) -> None:
        level = _Moments(n_features)
        n_pairs = n_features * (n_features - 1) // 2 if level.full else 0
        super().__init__(n_features, n_code, [level], _Principal(2 * n_features + n_pairs, n_code))

    def fit(self, groups: Sequence[Cells], seed: int) -> None:
        """Set the principal components; see :meth:`Encoder.fit`."""
        level = self.stages[0]
        assert isinstance(self.readout, _Principal)
        means = torch.stack([level.cells(x, x, x).mean(0) for x in (group[:] for group in groups)])
        self.readout.fit(level.context(means, means))


class _Mixture(Level):
    def __init__(self, statistics: MixtureStatistics) -> None:
        super().__init__()
        self.statistics = statistics

    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        return self.statistics.terms(x)

    def context(self, pooled: Tensor, context: Tensor) -> Tensor:
        return self.statistics.coordinates(self.statistics.mixtures(pooled))


class Mixture(Encoder):
    """Weights, means and spreads of a group on a mixture shared by all groups: their principal components.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_code
        Size of the code. Entries beyond the number of statistics are 0.
    n_components
        Components of the shared mixture.
    """

    def __init__(self, n_features: int, n_code: int, n_components: int = 5) -> None:
        statistics = MixtureStatistics(n_features, n_components, n_code)
        # Random until it is fitted.
        nn.init.normal_(statistics.mean)
        nn.init.orthogonal_(statistics.basis[: statistics.basis.shape[1]])
        statistics.pooled_mean.copy_(statistics.mean)
        super().__init__(n_features, n_code, [_Mixture(statistics)], nn.Identity())

    def fit(self, groups: Sequence[Cells], seed: int) -> None:
        """Fit the shared mixture and the principal components; see :meth:`Encoder.fit`."""
        level = self.stages[0]
        assert isinstance(level, _Mixture)
        own, n_cells = level.statistics, sum(map(len, groups))
        if n_cells < own.n_components:
            msg = f"Received {n_cells} training cells for n_components={own.n_components} of the encoder: pass fewer."
            raise ValueError(msg)
        fitted = fit_shared_mixture(
            list(groups), feature_scale=torch.ones(self.n_features), n_components=own.n_components, seed=seed
        )
        sums = torch.cat(
            [fitted.sums(x[None], x.new_full((1, len(x)), 1 / len(x))) for x in (group[:] for group in groups)]
        )
        fitted.fit_pooled(sums)
        fitted.fit_basis(fitted.mixtures(sums), self.n_code)
        for name in ("basis", "spread"):
            padded = torch.zeros_like(getattr(own, name))
            found = getattr(fitted, name)
            padded[: len(found)] = found
            setattr(fitted, name, padded)
        own.load_state_dict(fitted.state_dict())
