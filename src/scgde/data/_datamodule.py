"""Cells in memory, sorted by group, and the Lightning data module that serves them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from scgde.data._batch import GroupBatch
from scgde.data._pairs import Pairing, PairSampler
from scgde.data._sampler import N_FOLDS, GroupSampler, strata
from scgde.nn._random import CounterRandom
from scgde.nn.statistics import MixtureStatistics

#: Share of the cells of a training group that is kept for early stopping, and of a held-out group that is scored.
HELD_OUT_CELLS, SCORED_CELLS = 0.1, 0.2

#: At most this many groups are scored at each validation.
MAX_VALIDATION_GROUPS = 256


@dataclass(frozen=True)
class GroupedCells:
    """All cells as one group-sorted tensor; in random order inside each group.

    Parameters
    ----------
    x
        (n_cells, features), float32.
    weight
        (n_slots,) mass of each cell, or None where all are equal.
    batch
        (n_slots,) batch codes, or None.
    offsets
        (n_groups + 1,) first slot of each group.
    cell
        Where groups overlap, (n_slots,) cell in each slot: features are kept once. None where slot i holds cell i.
    """

    x: Tensor
    weight: Tensor | None
    batch: Tensor | None
    offsets: Tensor
    cell: Tensor | None = None

    @classmethod
    def from_arrays(
        cls,
        x: np.ndarray,
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
        used = codes >= 0 if weight is None else (codes >= 0) & (weight > 0)
        rows = np.flatnonzero(used)
        rows = rows[np.argsort(codes[rows], kind="stable")]
        group = codes[rows]
        shared = cells is not None and len(np.unique(cells[rows])) < len(rows)
        offsets = np.concatenate([[0], np.bincount(group, minlength=n_groups).cumsum()])
        # The order inside a group is a function of the seed, the group and the number of the cell in it alone: what is
        # held out, or left out, has no influence on the others. An odd multiplier spreads groups over the counters.
        # A cell that groups share has one place in the order of all of them: where it is held out of one of them, it is
        # held out of the others too, but for groups' different shares near the border.
        number = cells[rows] if cells is not None and shared else np.arange(len(rows)) - offsets[group]
        key = torch.from_numpy(number if shared else group * 0x9E3779B1 + number)
        rows = rows[np.lexsort((CounterRandom(seed, 0, key).uniform("order", 1)[:, 0].numpy(), group))]
        cell = rows if cells is None else cells[rows]
        return cls(
            torch.from_numpy(x if shared else x[cell]),
            None if weight is None else torch.from_numpy(weight[rows].astype(np.float32)),
            None if batch is None else torch.from_numpy(batch[rows].astype(np.int64)),
            torch.from_numpy(offsets),
            torch.from_numpy(cell) if shared else None,
        )

    @property
    def counts(self) -> Tensor:
        """Number of cells of each group."""
        return self.offsets.diff()

    def to(self, device: torch.device) -> GroupedCells:
        """The same cells with their features on ``device``."""
        weight, batch = (None if value is None else value.to(device) for value in (self.weight, self.batch))
        cell = None if self.cell is None else self.cell.to(device)
        return GroupedCells(self.x.to(device), weight, batch, self.offsets, cell)

    def features(self, slots: Tensor | slice) -> Tensor:
        """Features of the cells in some slots."""
        return self.x[slots if self.cell is None else self.cell[slots]]

    def gather(self, group: Tensor, position: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Cells at positions of their groups (groups, cells), with weights that sum to 1, and their batches."""
        index = (self.offsets[group][:, None] + position).to(self.x.device)
        weight = share.to(self.x.device)
        if self.weight is not None:
            weight = weight * self.weight[index]
            weight = weight / weight.sum(1, keepdim=True)
        return self.features(index), weight, None if self.batch is None else self.batch[index]


class _Steps(Dataset):
    """Item i is the batch of step i."""

    def __init__(
        self, cells: GroupedCells, sampler: GroupSampler, fold_sums: Tensor, labels: Tensor | None = None
    ) -> None:
        self.cells, self.sampler, self.fold_sums, self.labels = cells, sampler, fold_sums, labels

    def __getitem__(self, step: int) -> GroupBatch:
        sampler = self.sampler
        group, pairs = sampler.pairs_of(step) if isinstance(sampler, PairSampler) else (sampler.groups_of(step), None)
        n_scored = len(group)
        group = torch.cat([group, sampler.labelled_of(step, group)])
        fold, encode, share, score, share_score = sampler.cells_of(step, group)
        x, weight, _ = self.cells.gather(group, encode, share)
        x_score, weight_score, batch = self.cells.gather(group[:n_scored], score[:n_scored], share_score[:n_scored])
        sums = self.fold_sums[group]
        left_out = sums[torch.arange(len(group)), fold.clamp_min(0)] * (fold >= 0)[:, None].to(sums.device)
        labels = None if self.labels is None else self.labels[group]
        importance = sampler.importance(group[:n_scored])
        left = sums.sum(1) - left_out
        return GroupBatch(group, left, x, weight, x_score, weight_score, batch, step, pairs, labels, importance)


class _Batches(Dataset):
    """A fixed list of batches."""

    def __init__(self, batches: list[GroupBatch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int) -> GroupBatch:
        return self.batches[i]


class _EpochSampler(Sampler):
    """The numbers of the steps of the current epoch. Lightning tells the epoch."""

    def __init__(self, steps_per_epoch: int, first: int = 0, skip: int = 0) -> None:
        self.steps_per_epoch, self.first, self.skip, self.epoch = steps_per_epoch, first, skip, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[int]:
        # Runs at the first step of an epoch, when Lightning has told which one. Only an epoch that was
        # cut short in an earlier process starts in the middle.
        start, skip, self.skip = self.first + self.epoch * self.steps_per_epoch, self.skip, 0
        yield from range(start + skip, start + self.steps_per_epoch)


def training_counts(counts: Tensor, validation_groups: Tensor) -> Tensor:
    """(n_groups,) how many cells of each group are not held out; groups of fewer than 10 cells hold none out."""
    share = torch.full(counts.shape, HELD_OUT_CELLS)
    share[validation_groups] = SCORED_CELLS
    return counts - torch.where(counts >= 10, (share * counts).long(), 0)


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
    group = torch.repeat_interleave(counts)
    position = torch.arange(len(group)) - (counts.cumsum(0) - counts)[group]
    n_folds = counts.clamp(max=N_FOLDS)[group]
    segment = group * N_FOLDS + ((position + 1) * n_folds - 1) // counts[group]
    index = cells.offsets[group] + position
    total = torch.zeros(len(counts) * N_FOLDS, statistics.n_sums)
    for rows, target in zip(index.split(chunk_size), segment.split(chunk_size), strict=True):
        weight = torch.ones(len(rows)) if cells.weight is None else cells.weight[rows]
        total.index_add_(0, target, weight[:, None] * statistics.terms(cells.features(rows)))
    return total.view(len(counts), N_FOLDS, statistics.n_sums)


class GroupDataModule(LightningDataModule):
    """Serves training steps, and fixed validation batches of held-out cells and held-out groups.

    Parameters
    ----------
    cells
        All cells, standardised.
    fold_sums
        (n_groups, folds, n_sums), from :func:`fold_sums`.
    train_groups, validation_groups
        Positions of groups.
    batch_size, cells_per_group, scored_per_group, seed
        As in :class:`GroupSampler`.
    steps_per_epoch
        Steps of an epoch.
    first_step
        Number of the first step, where an earlier call of ``train`` took steps.
    skip
        Steps of the first epoch that were taken before this process began.
    pairing
        Pairs of groups to train on, or None.
    labels
        (n_groups, columns) labels as numbers, NaN where missing or held out, or None where labels take no part.
    group_weight
        (n_groups,) what each group counts, or None where all count equally.
    """

    def __init__(
        self,
        cells: GroupedCells,
        fold_sums: Tensor,
        train_groups: Tensor,
        validation_groups: Tensor,
        *,
        batch_size: int,
        cells_per_group: int,
        scored_per_group: int,
        seed: int,
        steps_per_epoch: int,
        first_step: int = 0,
        skip: int = 0,
        pairing: Pairing | None = None,
        labels: Tensor | None = None,
        group_weight: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.pairing, self.labels, self.group_weight = pairing, labels, group_weight
        self.cells, self.fold_sums, self.seed = cells, fold_sums, seed
        self.train_groups, self.validation_groups = train_groups, validation_groups
        self.batch_size = batch_size
        self.cells_per_group, self.scored_per_group = cells_per_group, scored_per_group
        self.steps_per_epoch, self.first_step, self.skip = steps_per_epoch, first_step, skip

    @property
    def train_counts(self) -> Tensor:
        """Cells of each group that its statistics and the training steps may use; the others are held out."""
        return training_counts(self.cells.counts, self.validation_groups)

    def _sampler(self, batch_size: int) -> GroupSampler:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        labelled = None
        if self.labels is not None:
            labelled = self.train_groups[~self.labels[self.train_groups].isnan().all(1)]
        arguments = (
            self.train_counts,
            self.train_groups,
            batch_size,
            self.cells_per_group,
            self.scored_per_group,
            self.seed,
            rank,
            world_size,
            labelled,
            self.group_weight,
        )
        if self.pairing is None:
            return GroupSampler(*arguments)
        return PairSampler(*arguments, pairing=self.pairing.among(self.train_groups))

    def setup(self, stage: str) -> None:
        """Keep the cells on the device where they fill at most half of its free memory."""
        assert self.trainer is not None
        device = self.trainer.strategy.root_device
        self.fold_sums = self.fold_sums.to(device)
        if device.type == "cuda" and self.cells.x.nbytes < 0.5 * torch.cuda.mem_get_info(device)[0]:
            self.cells = self.cells.to(device)

    def train_dataloader(self) -> DataLoader:
        """One item per step."""
        steps = _Steps(self.cells, self._sampler(self.batch_size), self.fold_sums, self.labels)
        sampler = _EpochSampler(self.steps_per_epoch, self.first_step, self.skip)
        return DataLoader(steps, batch_size=None, sampler=sampler, collate_fn=lambda batch: batch)

    def val_dataloader(self) -> list[DataLoader]:
        """Held-out cells of training groups, then held-out groups; the same draws at every validation."""
        held = self.cells.counts - self.train_counts
        rng = np.random.default_rng(self.seed)
        loaders: list[DataLoader] = []
        for groups in (self.train_groups, self.validation_groups):
            groups = groups[held[groups] > 0]
            if len(groups) > MAX_VALIDATION_GROUPS:
                groups = groups[np.sort(rng.permutation(len(groups))[:MAX_VALIDATION_GROUPS])]
            batches = [self._validation_batch(part) for part in groups.split(64) if len(part)]
            batches = [batch for batch in batches if batch.pairs is None or len(batch.pairs)]
            if batches:
                loaders.append(DataLoader(_Batches(batches), batch_size=None, collate_fn=lambda batch: batch))
        return loaders

    def _validation_batch(self, group: Tensor) -> GroupBatch:
        first, counts = self.train_counts[group], self.cells.counts[group]
        u = torch.full((len(group), self.cells_per_group), 0.5, dtype=torch.float64)
        encode, share = strata(u, torch.zeros(len(group)).double(), first)
        slots = min(4 * self.scored_per_group, int((counts - first).max()))
        score, share_score = strata(u[:, :1].expand(-1, slots), u[:, 0] * 0, counts - first)
        x, weight, _ = self.cells.gather(group, encode, share)
        x_score, weight_score, batch = self.cells.gather(group, first[:, None] + score, share_score)
        pairs = None if self.pairing is None else self.pairing.within(group, torch.full((len(group), 2), 0.5))
        sums = self.fold_sums[group].sum(1)
        importance = None if self.group_weight is None else self.group_weight[group]
        return GroupBatch(group, sums, x, weight, x_score, weight_score, batch, 0, pairs, importance=importance)
