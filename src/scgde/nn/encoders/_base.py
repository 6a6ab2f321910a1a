"""What every encoder is: a function of a weighted empirical measure, pooled by weighted means, level by level."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from scgde.nn._shared_mixture import Cells
from scgde.nn.encoders._pooling import Pooling


class Block(NamedTuple):
    """Parts of groups, padded to one length.

    Parameters
    ----------
    x
        (blocks, cells, features).
    weight
        (blocks, cells) masses; those of a whole group sum to 1, padded slots have 0.
    group
        (blocks,) position of each block's group.
    """

    x: Tensor
    weight: Tensor
    group: Tensor


#: All cells of some groups, in blocks: called once for each pass over the cells.
Blocks = Callable[[], Iterable[Block]]


class Level(nn.Module):
    """One pooling level: features of cells, given the context that the levels before have pooled for their group.

    Parameters
    ----------
    pooling
        How the cells are summed up; by default by their weighted mean.
    """

    #: Whether hidden features of the level before are read; else those need not be computed again.
    reads_hidden = False

    def __init__(self, pooling: Pooling | None = None) -> None:
        super().__init__()
        self.pooling = Pooling() if pooling is None else pooling

    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Hidden features (groups, cells, n) of ``x`` and ``hidden``, with the ``context`` (groups, 1, n)."""
        raise NotImplementedError

    def context(self, pooled: Tensor, context: Tensor) -> Tensor:
        """What the next level sees of the group, (groups, n), from what was pooled: smooth, without parameters."""
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


def standardizing() -> list[Level]:
    """The first two levels of neural encoders: they pool mean and spread, for :class:`Lift` to read."""
    return [_Mean(), _Spread()]


class Trace(NamedTuple):
    """What the levels of an encoder have pooled for each group, float64 on the CPU.

    Parameters
    ----------
    means
        (groups, n) weighted means of the features, one per level.
    contexts
        (groups, n): an empty start, then one per level.
    """

    means: list[Tensor]
    contexts: list[Tensor]


class Encoder(nn.Module):
    """Base of all encoders: ``code = encoder(x, weight)``.

    An encoder is a list of levels and a readout. A level computes features of each cell from the cell and from its
    group's context, and pools them by weighted means. Permutation invariance, proportional invariance (duplicating
    every cell changes nothing) and a smooth pooling follow by construction; so does the central limit theorem
    (Fishman, Gowri et al. 2025, proposition 4).

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
        self.levels = nn.ModuleList(levels)
        self.readout = readout

    @property
    def stages(self) -> list[Level]:
        """The levels, as a list."""
        return cast("list[Level]", list(self.levels))

    def fit(self, groups: Sequence[Cells], seed: int) -> None:
        """Set what is closed form, before training; networks have nothing to fit.

        Parameters
        ----------
        groups
            Standardised cells of each training group, (cells, features): tensors, or what is read when it is sliced.
        seed
            Of what is drawn at random.
        """

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
        for level in self.stages:
            hidden = level.cells(x, hidden, context[:, None])
            mean = torch.einsum("gn,gnp->gp", weight, level.pooling.features(hidden))
            context = level.context(level.pooling.value(mean), context)
        return self.readout(context)

    def features(self, x: Tensor, contexts: Sequence[Tensor]) -> list[Tensor]:
        """Features that each level averages, (blocks, cells, n), where the contexts (blocks, n) are known."""
        hidden, features = x, []
        for level, context in zip(self.stages, contexts, strict=False):
            hidden = level.cells(x, hidden, context[:, None])
            features.append(level.pooling.features(hidden))
        return features

    def trace(self, blocks: Blocks, n_groups: int) -> Trace:
        """What each level pools of groups of any size, in bounded memory: one pass over the cells per level.

        What belongs to a group is float64, on the CPU (MPS has no float64): groups may differ by little, and their
        differences must not depend on the order or number of cells.
        """
        trace = Trace([], [torch.zeros(n_groups, 1, dtype=torch.float64)])
        first = 0
        for depth, last in enumerate(self.stages):
            first = first if last.reads_hidden else depth
            total = torch.zeros(())
            for x, weight, group in blocks():
                hidden = x
                for level, context in zip(self.stages[first : depth + 1], trace.contexts[first:], strict=True):
                    hidden = level.cells(x, hidden, context[group.cpu()].to(x)[:, None])
                features = last.pooling.features(hidden).cpu().double()
                part = torch.einsum("bn,bnp->bp", weight.cpu().double(), features)
                total = part.new_zeros(n_groups, part.shape[1]) if total.ndim == 0 else total
                add_by_group(total, group.cpu(), part)
            trace.means.append(total)
            trace.contexts.append(last.context(last.pooling.value(total), trace.contexts[-1]))
        return trace

    def stream(self, blocks: Blocks, n_groups: int) -> Tensor:
        """The code of groups of any size in bounded memory, equal to :meth:`forward` up to float order.

        Parameters
        ----------
        blocks
            Called once per level; yields all cells of the groups.
        n_groups
            Number of groups.
        """
        return self.exact_readout()(self.trace(blocks, n_groups).contexts[-1])

    def exact_readout(self) -> nn.Module:
        """A float64 copy of the readout on the CPU."""
        return copy.deepcopy(self.readout).cpu().double()


def add_by_group(total: Tensor, group: Tensor, parts: Tensor) -> None:
    """Add ``parts`` (blocks, …) to ``total`` (groups, …), in place; ``index_add_`` is slow for a single group."""
    if len(group) and (group == group[0]).all():
        total[group[0]] += parts.sum(0)
    else:
        total.index_add_(0, group, parts)


class Lift(Level):
    """From cell features, in common units and relative to the group, to ``width`` hidden features."""

    def __init__(self, n_features: int, width: int, pooling: Pooling | None = None) -> None:
        super().__init__(pooling)
        self.n_features = n_features
        self.layers = nn.Sequential(
            nn.Linear(2 * n_features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
        )

    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """See :meth:`Level.cells`."""
        mean, precision = context.split(self.n_features, dim=-1)
        return self.layers(torch.cat([x, (x - mean) * precision], dim=-1))


def readout(width: int, n_code: int) -> nn.Module:
    """From pooled features to the code."""
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_code))
