"""The Lightning data module that serves training steps and validation batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from scgde.data._batch import GroupBatch
from scgde.data._cells import GroupedCells
from scgde.data._pairs import Pairing, PairSampler
from scgde.data._sampler import GroupSampler, strata

#: Share of the cells of a training group that is kept for early stopping, and of a held-out group that is scored.
HELD_OUT_CELLS, SCORED_CELLS = 0.1, 0.2

#: At most this many groups are scored at each validation.
MAX_VALIDATION_GROUPS = 256


class _Steps(Dataset):
    """Item i is the batch of step i."""

    def __init__(
        self, cells: GroupedCells, sampler: GroupSampler, fold_sums: Tensor, labels: Tensor | None = None
    ) -> None:
        self.cells, self.sampler, self.fold_sums, self.labels = cells, sampler, fold_sums, labels
        self.sums = fold_sums.sum(1)

    def __getitem__(self, step: int) -> GroupBatch:
        sampler = self.sampler
        group, pairs = sampler.pairs_of(step) if isinstance(sampler, PairSampler) else (sampler.groups_of(step), None)
        n_scored = len(group)
        group = torch.cat([group, sampler.labelled_of(step, group)])
        fold, encode, share, score, share_score = sampler.cells_of(step, group)
        x, weight, _ = self.cells.gather(group, encode, share)
        x_score, weight_score, batch = self.cells.gather(group[:n_scored], score[:n_scored], share_score[:n_scored])
        left_out = self.fold_sums[group, fold.clamp_min(0)] * (fold >= 0)[:, None].to(self.sums.device)
        labels = None if self.labels is None else self.labels[group]
        importance = sampler.importance(group[:n_scored])
        left = self.sums[group] - left_out
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


class GroupDataModule(LightningDataModule):
    """Serves training steps, and fixed validation batches of held-out cells and held-out groups.

    Parameters
    ----------
    cells
        All cells, standardised.
    fold_sums
        (n_groups, folds, n_sums), from :func:`scgde.data._cells.fold_sums`.
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
        x = self.cells.x
        if isinstance(x, Tensor) and device.type == "cuda" and x.nbytes < 0.5 * torch.cuda.mem_get_info(device)[0]:
            self.cells = self.cells.to(device)

    def train_dataloader(self) -> DataLoader:
        """One item per step."""
        steps = _Steps(self.cells, self._sampler(self.batch_size), self.fold_sums, self.labels)
        sampler = _EpochSampler(self.steps_per_epoch, self.first_step, self.skip)
        return DataLoader(steps, batch_size=None, sampler=sampler, collate_fn=lambda batch: batch)

    def val_dataloader(self) -> list[DataLoader]:
        """One loader for each of :meth:`validation_batches`."""
        return [
            DataLoader(_Batches(batches), batch_size=None, collate_fn=lambda batch: batch)
            for batches in self.validation_batches()
        ]

    def validation_batches(self) -> list[list[GroupBatch]]:
        """Held-out cells of training groups, then held-out groups; the same draws at every validation."""
        held = self.cells.counts - self.train_counts
        rng = np.random.default_rng(self.seed)
        found = []
        for groups in (self.train_groups, self.validation_groups):
            groups = groups[held[groups] > 0]
            if len(groups) > MAX_VALIDATION_GROUPS:
                groups = groups[np.sort(rng.permutation(len(groups))[:MAX_VALIDATION_GROUPS])]
            batches = [self._validation_batch(part) for part in groups.split(64) if len(part)]
            batches = [batch for batch in batches if batch.pairs is None or len(batch.pairs)]
            if batches:
                found.append(batches)
        return found

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
