"""Cells of groups in blocks: how models walk over groups of any size in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from scgde.data._groups import by_group
from scgde.data._rows import CellRows
from scgde.models._module import GDEModule
from scgde.nn.encoders import Block

#: Cells per chunk where the user does not say, and the longest block: cells of one group that are summed up together.
BATCH_SIZE, BLOCK_SIZE = 4096, 512

#: Cells per chunk on a GPU, which smaller chunks leave idle: an H100 generates 118,000 cells/s with 4096 at a time and
#: 1.05 million with these.
GPU_BATCH_SIZE = 65_536


def cells_at_a_time(batch_size: int | None, device: torch.device) -> int:
    """What the user says, else what suits the device."""
    return batch_size or (GPU_BATCH_SIZE if device.type == "cuda" else BATCH_SIZE)


@dataclass(frozen=True)
class GroupedRows:
    """Rows of the cells of each group, and their masses.

    Parameters
    ----------
    order
        (n,) rows of cells, group by group.
    weight
        (n,) mass of each cell, in the same order and of any scale, or None where all are equal.
    total
        (groups,) sums of these masses.
    starts
        (groups + 1,) where each group starts in ``order``.
    n_effective
        (groups,) effective number of cells, ``1 / sum(mass^2)``: with equal masses, their number.
    counts
        Whether a row stands for several equal cells; these are what is counted then.
    """

    order: np.ndarray
    weight: np.ndarray | None
    total: np.ndarray
    starts: np.ndarray
    n_effective: np.ndarray
    counts: bool = False

    @classmethod
    def from_codes(
        cls,
        codes: np.ndarray,
        n_groups: int,
        weight: np.ndarray | None = None,
        *,
        counts: bool = False,
        cells: np.ndarray | None = None,
    ) -> GroupedRows:
        """Group cells by their codes; -1 leaves a cell out.

        Parameters
        ----------
        codes
            (n_cells,) group of each cell.
        n_groups
            Number of groups.
        weight
            (n_cells,) masses of any scale; by default equal.
        counts
            Whether weights are numbers of equal cells.
        cells
            Row of the cell that each of the codes and weights is about, which may have several; by default its own.
        """
        order, starts = by_group(codes, n_groups)
        total: np.ndarray = np.diff(starts).astype(np.float64)
        square = total
        if weight is not None:
            weight = weight[order].astype(np.float64)
            group = np.repeat(np.arange(n_groups), np.diff(starts))
            total, square = (np.bincount(group, mass, minlength=n_groups) for mass in (weight, weight**2))
        # From the masses as they are given: 30 cells are 30 effective ones, to the last digit.
        n_effective = total if counts else total**2 / square
        return cls(order if cells is None else cells[order], weight, total, starts, n_effective, counts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def select(self, start: int, stop: int) -> GroupedRows:
        """The groups from ``start`` to ``stop``."""
        part = slice(self.starts[start], self.starts[stop])
        weight, starts = None if self.weight is None else self.weight[part], self.starts[start : stop + 1]
        own = slice(start, stop)
        return GroupedRows(
            self.order[part], weight, self.total[own], starts - starts[0], self.n_effective[own], self.counts
        )

    @property
    def mass(self) -> np.ndarray:
        """(n,) mass of each cell in its group, in the order of the rows; sums to 1 in each group."""
        total = np.repeat(self.total, np.diff(self.starts))
        return 1 / total if self.weight is None else self.weight / total

    def chunks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Rows (blocks, cells), masses (blocks, cells) and groups (blocks,): at most about ``size`` cells at a time.

        A block is padded to the longest of its chunk by cells of mass 0.
        """
        longest = min(size, BLOCK_SIZE)
        n_blocks = -(-np.diff(self.starts) // longest)
        group = np.repeat(np.arange(len(self)), n_blocks)
        within = np.arange(len(group)) - np.repeat(np.cumsum(n_blocks) - n_blocks, n_blocks)
        start = self.starts[group] + longest * within
        length = np.minimum(longest, self.starts[group + 1] - start)
        by_length = np.argsort(-length, kind="stable")
        first = 0
        while first < len(by_length):
            width = int(length[by_length[first]])
            part = by_length[first : first + max(1, size // width)]
            first += len(part)
            place = start[part, None] + np.arange(width)
            inside = np.arange(width) < length[part, None]
            place = np.where(inside, place, start[part, None])
            mass = (1.0 if self.weight is None else self.weight[place]) / self.total[group[part], None]
            yield self.order[place], np.where(inside, mass, 0.0), group[part]

    def blocks(self, module: GDEModule, x: CellRows, size: int) -> Iterator[Block]:
        """Standardised cells on the module's device, about ``size`` at a time; masses and groups stay on the CPU.

        Parameters
        ----------
        module
            A built module.
        x
            (n_cells, features) representation, in the user's units.
        size
            Cells at a time.
        """
        for rows, mass, group in self.chunks(size):
            cells = torch.from_numpy(np.asarray(x[rows])).to(module.device)
            yield Block(module.standardize(cells), torch.from_numpy(mass), torch.from_numpy(group))
