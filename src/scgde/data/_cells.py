"""All cells sorted by group, in memory or where they are stored, and what is summed up over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scgde.data._groups import by_group
from scgde.data._rows import CellRows, StoredRows
from scgde.data._sampler import N_FOLDS
from scgde.nn._random import CounterRandom
from scgde.nn.statistics import MixtureStatistics

#: Cells that are put in order, or read from where they are stored, at a time.
CELLS_AT_A_TIME = 65_536


class StoredCells:
    """Cells that are read where they are asked for: a tensor of which only rows are ever held.

    Parameters
    ----------
    source
        Features of all cells, in the user's units.
    rows
        (n_cells,) rows of the source, sorted by group.
    shift, scale
        What standardises features.
    """

    device = torch.device("cpu")

    def __init__(
        self, source: StoredRows, rows: np.ndarray, shift: Tensor | None = None, scale: Tensor | None = None
    ) -> None:
        self.source, self.rows, self.shift, self.scale = source, rows, shift, scale

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and features."""
        return len(self.rows), self.source.shape[1]

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        x = torch.from_numpy(self.source[self.rows[index]])
        return x if self.shift is None or self.scale is None else (x - self.shift) / self.scale


@dataclass(frozen=True)
class GroupedCells:
    """All cells as one group-sorted tensor; in random order inside each group.

    Parameters
    ----------
    x
        (n_cells, features), float32, or the rows where they are stored.
    weight
        (n_slots,) mass of each cell, or None where all are equal.
    batch
        (n_slots,) batch codes, or None.
    offsets
        (n_groups + 1,) first slot of each group.
    cell
        Where groups overlap, (n_slots,) cell in each slot: features are kept once. None where slot i holds cell i.
    """

    x: Tensor | StoredCells
    weight: Tensor | None
    batch: Tensor | None
    offsets: Tensor
    cell: Tensor | None = None

    @classmethod
    def from_arrays(
        cls,
        x: CellRows,
        codes: np.ndarray,
        n_groups: int,
        weight: np.ndarray | None,
        batch: np.ndarray | None,
        seed: int,
        *,
        cells: np.ndarray | None = None,
    ) -> GroupedCells:
        """Sort cells by group. Cells without a group, or of weight 0, are left out: they have no effect.

        With ``cells``, entry i of ``codes``, ``weight`` and ``batch`` is about ``cells[i]``, which may have several.
        """
        rows, offsets = by_group(codes if weight is None else np.where(weight > 0, codes, -1), n_groups)
        shared = cells is not None and len(np.unique(cells[rows])) < len(rows)
        counts = np.diff(offsets)
        for first, stop in _ranges(counts, CELLS_AT_A_TIME):
            part = slice(offsets[first], offsets[stop])
            group = np.repeat(np.arange(first, stop), counts[first:stop])
            rows[part] = rows[part][_order(group, cells[rows[part]] if cells is not None and shared else None, seed)]
        cell = rows if cells is None else cells[rows]
        features: Tensor | StoredCells
        if isinstance(x, StoredRows):
            features = StoredCells(x, np.arange(len(x)) if shared else cell)
        else:
            features = torch.from_numpy(x if shared else x[cell])
        return cls(
            features,
            None if weight is None else torch.from_numpy(weight[rows].astype(np.float32)),
            None if batch is None else torch.from_numpy(batch[rows].astype(np.int64)),
            torch.from_numpy(offsets),
            torch.from_numpy(cell.astype(np.int64)) if shared else None,
        )

    @property
    def counts(self) -> Tensor:
        """Number of cells of each group."""
        return self.offsets.diff()

    def to(self, device: torch.device) -> GroupedCells:
        """The same cells with their features on ``device``; not where they are stored."""
        assert isinstance(self.x, Tensor)
        weight, batch = (None if value is None else value.to(device) for value in (self.weight, self.batch))
        cell = None if self.cell is None else self.cell.to(device)
        return GroupedCells(self.x.to(device), weight, batch, self.offsets, cell)

    def features(self, slots: Tensor | slice) -> Tensor:
        """Features of the cells in some slots."""
        return self.x[slots if self.cell is None else self.cell[slots]]

    def standardized(self, shift: Tensor, scale: Tensor) -> GroupedCells:
        """The same cells in standardised features."""
        if isinstance(self.x, StoredCells):
            return replace(self, x=StoredCells(self.x.source, self.x.rows, shift, scale))
        return replace(self, x=(self.x - shift) / scale)

    def parts(self, groups: Sequence[int], counts: Tensor) -> list[GroupPart]:
        """The first ``counts`` cells of each of some groups, which are read when they are sliced."""
        return [GroupPart(self, int(self.offsets[g]), int(counts[g])) for g in groups]

    def distinct(self, counts: Tensor) -> Iterator[Tensor]:
        """Features of the first ``counts`` cells of all groups in parts, those of a cell once."""
        if self.cell is None:
            yield from (x for _, _, x, _ in self.chunks(counts, CELLS_AT_A_TIME))
            return
        seen = [self.cell[first : first + n] for first, n in zip(self.offsets.tolist(), counts.tolist(), strict=False)]
        yield from (self.x[part] for part in torch.cat(seen).unique().split(CELLS_AT_A_TIME))

    def chunks(self, counts: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        """Groups, positions in them, features and weights of the first ``counts`` cells of all groups, ``size`` a time.

        What is stored is read in larger parts: the cells of a group lie in random order.
        """
        ends = counts.cumsum(0)
        total = int(ends[-1])
        read = size if isinstance(self.x, Tensor) else max(size, CELLS_AT_A_TIME // size * size)
        for first in range(0, total, read):
            place = torch.arange(first, min(first + read, total))
            group = torch.searchsorted(ends, place, right=True)
            position = place - (ends - counts)[group]
            index = self.offsets[group] + position
            x, weight = self.features(index), None if self.weight is None else self.weight[index]
            for start in range(0, len(place), size):
                part = slice(start, start + size)
                yield group[part], position[part], x[part], None if weight is None else weight[part]

    def gather(self, group: Tensor, position: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Cells at positions of their groups (groups, cells), with weights that sum to 1, and their batches."""
        index = (self.offsets[group][:, None] + position).to(self.x.device)
        weight = share.to(self.x.device)
        if self.weight is not None:
            weight = weight * self.weight[index]
            weight = weight / weight.sum(1, keepdim=True)
        return self.features(index), weight, None if self.batch is None else self.batch[index]


@dataclass(frozen=True)
class GroupPart:
    """The first cells of a group, as a sequence that is read when it is sliced."""

    cells: GroupedCells
    first: int
    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, part: slice) -> Tensor:
        start, stop, _ = part.indices(self.n)
        return self.cells.features(slice(self.first + start, self.first + stop))


def moments(cells: GroupedCells, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (features,), of the first ``counts`` cells of all groups; cells count once each."""
    n, mean, square = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for x in cells.distinct(counts):
        x = x.double()
        own, total = x.mean(0), n + len(x)
        # Sums of squares around the means of the parts: nothing large is subtracted (Chan et al., 1983).
        square = square + (x - own).square().sum(0) + (own - mean).square() * n * len(x) / total
        mean = mean + (own - mean) * len(x) / total
        n = total
    return mean.float(), (square / max(n - 1, 1)).sqrt().float() if n > 1 else torch.ones_like(mean).float()


def _order(group: np.ndarray, cell: np.ndarray | None, seed: int) -> np.ndarray:
    """Random order of the cells of some groups, inside each.

    It is a function of the seed, the group and the number of the cell in it alone: what is held out, or left out, has
    no influence on the others. A ``cell`` that groups share has one place in the order of all of them: where it is held
    out of one of them, it is held out of the others too, but for groups' different shares near the border.
    """
    if cell is None:
        start = np.flatnonzero(np.diff(group, prepend=-1))
        number = np.arange(len(group)) - np.repeat(start, np.diff(start, append=len(group)))
        # An odd multiplier spreads groups over the counters.
        cell = group * 0x9E3779B1 + number
    return np.lexsort((CounterRandom(seed, 0, torch.from_numpy(cell)).uniform("order", 1)[:, 0].numpy(), group))


def _ranges(counts: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of groups that have about ``size`` cells, or a single group."""
    first, ends = 0, counts.cumsum()
    while first < len(counts):
        before = ends[first - 1] if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, before + size, side="right")))
        yield first, stop
        first = stop


def fold_sums(cells: GroupedCells, counts: Tensor, statistics: MixtureStatistics, chunk_size: int = 4096) -> Tensor:
    """Sums of the statistics over each fold of each group's training cells, (n_groups, folds, n_sums).

    Parameters
    ----------
    cells
        Standardised cells.
    counts
        (n_groups,) number of training cells of each group: its first ones.
    statistics
        The shared mixture.
    chunk_size
        Cells per chunk.
    """
    total = torch.zeros(len(counts) * N_FOLDS, statistics.n_sums)
    for group, position, x, weight in cells.chunks(counts, chunk_size):
        n_folds = counts[group].clamp(max=N_FOLDS)
        segment = group * N_FOLDS + ((position + 1) * n_folds - 1) // counts[group]
        weight = torch.ones(len(x)) if weight is None else weight
        # The cells of a fold lie together: a product of matrices sums them up, which pays where they are not too few.
        fold, size = segment.unique_consecutive(return_counts=True)
        if len(x) < 8 * len(fold):
            total.index_add_(0, segment, weight[:, None] * statistics.terms(x))
        else:
            total.index_add_(0, fold, statistics.sums_of_parts(x, weight, size.tolist()))
    return total.view(len(counts), N_FOLDS, statistics.n_sums)
