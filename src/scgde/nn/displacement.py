"""How a Gaussian population moves: by an affine map, which says more than a difference of covariances.

A population that is stretched twice moves the same way wherever it starts, but the differences of its covariance differ
with the start. So a move is written as what it makes of the pooled population, in the coordinates of the embedding.
"""

from __future__ import annotations

from torch import Tensor

from scgde.nn.gaussians import gaussian_map
from scgde.nn.mixtures import Mixtures, symmetric_root
from scgde.nn.statistics import MixtureStatistics


def is_affine(statistics: MixtureStatistics) -> bool:
    """Whether populations are single Gaussians with full covariances, all of them known from the coordinates."""
    d = statistics.n_features
    return statistics.full and statistics.n_components == 1 and len(statistics.basis) == d + d * (d + 1) // 2


def displacement(statistics: MixtureStatistics, source: Tensor, target: Tensor) -> Tensor:
    """What the optimal maps between Gaussian populations make of the pooled one, (groups, coordinates).

    Parameters
    ----------
    statistics
        Fitted statistics that are :func:`affine <is_affine>`.
    source, target
        (groups, coordinates) of the same groups before and after.
    """
    pooled = _pooled(statistics)
    moved = _moved(pooled, statistics.read_back(source), statistics.read_back(target))
    return statistics.coordinates(moved) - statistics.coordinates(pooled)


def displaced(statistics: MixtureStatistics, source: Tensor, move: Tensor) -> Tensor:
    """Coordinates of populations after a move: the inverse of :func:`displacement` in its second argument.

    Parameters
    ----------
    statistics
        Fitted statistics that are :func:`affine <is_affine>`.
    source
        (groups, coordinates) before.
    move
        (groups, coordinates), from :func:`displacement` or predicted.
    """
    pooled = _pooled(statistics)
    after = statistics.read_back(statistics.coordinates(pooled) + move)
    return statistics.coordinates(_moved(statistics.read_back(source), pooled, after))


def _pooled(statistics: MixtureStatistics) -> Mixtures:
    root = symmetric_root(statistics.pooled_within)
    return Mixtures(statistics.pooled_weight[None], statistics.pooled_mean[None], root[None])


def _moved(population: Mixtures, before: Mixtures, after: Mixtures) -> Mixtures:
    """The population under the optimal map from ``before`` to ``after``."""
    linear = gaussian_map(before.covariance()[:, 0], after.covariance()[:, 0])[:, None]
    root = symmetric_root(linear @ population.covariance() @ linear)
    return Mixtures(population.weight.expand(len(root), -1), population.mean + after.mean - before.mean, root)
