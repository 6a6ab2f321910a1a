"""What every encoder is: a function of a weighted empirical measure, pooled by weighted means, level by level."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

#: A chunk of cells: features (cells, features), weight (cells,), and position of each cell's group (cells,).
Chunk = tuple[Tensor, Tensor, Tensor]


class Level(nn.Module):
    """One pooling level: features of cells, given the context that the levels before have pooled for their group."""

    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Features to pool, (..., n); ``x``, ``hidden`` and ``context`` broadcast over cells."""
        raise NotImplementedError

    def context(self, pooled: Tensor, context: Tensor) -> Tensor:
        """What the next level sees of the group, from this level's pooled features (groups, n)."""
        return pooled


class _Mean(Level):
    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        return x


class _Spread(Level):
    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        return (x - context).square()

    def context(self, pooled: Tensor, context: Tensor) -> Tensor:
        # A constant keeps groups of one cell finite; it must not depend on the number of cells.
        return torch.cat([context, (pooled + 1e-2).rsqrt()], dim=-1)


class Encoder(nn.Module):
    """Base of all encoders: ``code = encoder(x, weight)``.

    An encoder is a list of levels and a readout. A level computes features of each cell from the cell and from its
    group's context, and pools them by weighted means. Permutation invariance, proportional invariance (duplicating
    every cell changes nothing) and a smooth pooling follow by construction; so does the central limit theorem
    (Fishman, Gowri et al. 2025, proposition 4). The first two levels pool mean and spread, so that every encoder sees a
    cell both in common units and relative to its own group.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_code
        Size of the code.

    Examples
    --------
    >>> encoder = DeepSets(n_features=2, n_code=3)
    >>> x = torch.randn(4, 10, 2)
    >>> weight = torch.full((4, 10), 0.1)
    >>> encoder(x, weight).shape
    torch.Size([4, 3])
    """

    def __init__(self, n_features: int, n_code: int, levels: Iterable[Level], readout: nn.Module) -> None:
        super().__init__()
        self.n_features, self.n_code = n_features, n_code
        self.levels = nn.ModuleList([_Mean(), _Spread(), *levels])
        self.readout = readout

    @property
    def _levels(self) -> list[Level]:
        return cast("list[Level]", list(self.levels))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Code of each group, (groups, n_code).

        Parameters
        ----------
        x
            (groups, cells, features).
        weight
            (groups, cells), sums to 1 in each group; padded slots have weight 0.
        """
        hidden, context = x, x.new_zeros(len(x), 1)
        for level in self._levels:
            hidden = level.cells(x, hidden, context[:, None])
            pooled = torch.einsum("gn,gnp->gp", weight, hidden)
            context = level.context(pooled, context)
        return self.readout(context)

    def stream(self, chunks: Callable[[], Iterable[Chunk]], n_groups: int) -> Tensor:
        """The code of groups of any size in bounded memory: one pass over the cells per pooling level.

        Equal to :meth:`forward` up to float order. What belongs to a group is float64, on the CPU (MPS has no float64):
        groups may differ by little, and their differences must not depend on the order or number of cells.

        Parameters
        ----------
        chunks
            Called once per level; yields all cells of the groups in chunks. Weights sum to 1 in each group.
        n_groups
            Number of groups.
        """
        contexts = [torch.zeros(n_groups, 1, dtype=torch.float64)]
        for depth, last in enumerate(self._levels):
            pooled: Tensor | None = None
            for x, weight, group in chunks():
                hidden = x
                for level, context in zip(self._levels[: depth + 1], contexts, strict=True):
                    hidden = level.cells(x, hidden, context[group.cpu()].to(x))
                weighted = weight.cpu().double()[:, None] * hidden.cpu().double()
                pooled = weighted.new_zeros(n_groups, weighted.shape[1]) if pooled is None else pooled
                pooled.index_add_(0, group.cpu(), weighted)
            assert pooled is not None
            contexts.append(last.context(pooled, contexts[-1]))
        return copy.deepcopy(self.readout).cpu().double()(contexts[-1])


class Lift(Level):
    """From cell features, in common units and relative to the group, to ``width`` hidden features."""

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.layers = nn.Sequential(
            nn.Linear(2 * n_features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
        )

    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        mean, precision = context.split(self.n_features, dim=-1)
        return self.layers(torch.cat([x, (x - mean) * precision], dim=-1))


def readout(width: int, n_code: int) -> nn.Module:
    """From pooled features to the code."""
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_code))
