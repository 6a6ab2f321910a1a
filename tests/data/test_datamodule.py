"""Cells in memory, their folds, and what a step and a validation see."""

import numpy as np
import pytest
import torch

from scgde.data import GroupDataModule, GroupedCells
from scgde.data._cells import fold_sums
from scgde.data._datamodule import training_counts
from scgde.nn.statistics import MixtureStatistics

COUNTS = (40, 1, 25, 7)


@pytest.fixture
def grouped():
    """Feature 0 is the group, feature 1 the number of the cell in the file."""
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat(np.arange(4), COUNTS))
    x = np.stack([codes, np.arange(len(codes))], axis=1).astype(np.float32)
    return GroupedCells.from_arrays(x, codes, 4, None, None, seed=0)


def one_component():
    statistics = MixtureStatistics(2, 1)
    statistics.root.copy_(torch.eye(2))
    return statistics


def module(cells, validation=(), **kwargs):
    statistics = one_component()
    held = torch.tensor(validation, dtype=torch.int64)
    train = torch.tensor([i for i in range(4) if i not in validation])
    sums = fold_sums(cells, training_counts(cells.counts, held), statistics)
    options = {"batch_size": 4, "cells_per_group": 16, "scored_per_group": 8, "seed": 0, "steps_per_epoch": 5, **kwargs}
    data = GroupDataModule(cells, sums, train, held, **options)
    data.trainer = None
    return data


def test_cells_are_sorted_by_group_and_shuffled_inside(grouped):
    assert grouped.counts.tolist() == list(COUNTS)
    for i in range(4):
        own = grouped.x[grouped.offsets[i] : grouped.offsets[i + 1]]
        assert (own[:, 0] == i).all()
    numbers = grouped.x[:40, 1]
    assert not torch.equal(numbers, numbers.sort().values)
    assert sorted(grouped.x[:, 1].tolist()) == list(range(sum(COUNTS)))


def test_cells_without_group_or_weight_are_left_out():
    codes, weight = np.array([0, -1, 1, 1, 0]), np.array([1.0, 1.0, 0.0, 2.0, 3.0])
    x = np.arange(5, dtype=np.float32)[:, None]
    cells = GroupedCells.from_arrays(x, codes, 2, weight, np.array([4, 5, 6, 7, 8]), seed=0)
    assert sorted(cells.x[:, 0].tolist()) == [0, 3, 4]
    assert cells.offsets.tolist() == [0, 2, 3]
    assert sorted(zip(cells.x[:, 0].tolist(), cells.weight.tolist(), cells.batch.tolist(), strict=True)) == [
        (0, 1, 4),
        (3, 2, 7),
        (4, 3, 8),
    ]


def test_gathered_weights_sum_to_one():
    codes, weight = np.repeat([0, 1], 6), np.arange(1.0, 13.0)
    cells = GroupedCells.from_arrays(weight[:, None].astype(np.float32), codes, 2, weight, None, seed=0)
    position, share = torch.tensor([[0, 3, 5]] * 2), torch.tensor([[0.5, 0.5, 0.0]] * 2)
    x, gathered, batch = cells.gather(torch.tensor([0, 1]), position, share)
    torch.testing.assert_close(gathered.sum(1), torch.ones(2))
    torch.testing.assert_close(gathered, x[..., 0] * share / (x[..., 0] * share).sum(1, keepdim=True))
    assert batch is None


def test_a_step_scores_no_cell_that_it_encodes_or_counts(grouped):
    data = module(grouped)
    steps = list(data.train_dataloader())
    assert [batch.step for batch in steps] == list(range(5))
    for batch in steps:
        for i, group in enumerate(batch.group.tolist()):
            assert (batch.x[i, :, 0] == group).all()
            assert (batch.x_score[i, :, 0] == group).all()
            encoded = set(batch.x[i][batch.weight[i] > 0][:, 1].tolist())
            scored = set(batch.x_score[i][batch.weight_score[i] > 0][:, 1].tolist())
            assert COUNTS[group] == 1 or not encoded & scored
            # The statistics are made of all training cells but those of the scored fold.
            n = int(data.train_counts[group])
            assert int(batch.sums[i, 0].round()) in n - np.diff(np.arange(6) * n // 5) * (n > 1)


def test_sums_of_the_folds_add_up_to_those_of_the_group(grouped):
    data = module(grouped)
    first = data.fold_sums.sum(1)
    for group, count in enumerate(data.train_counts.tolist()):
        own = grouped.x[grouped.offsets[group] : grouped.offsets[group] + count]
        torch.testing.assert_close(first[group, :3], torch.cat([torch.tensor([float(count)]), own.sum(0)]))


def test_fold_sums_do_not_depend_on_the_chunks(grouped):
    statistics = one_component()
    small = fold_sums(grouped, grouped.counts, statistics, chunk_size=3)
    torch.testing.assert_close(small, fold_sums(grouped, grouped.counts, statistics))


def test_held_out_cells_are_never_trained_on(grouped):
    data = module(grouped, validation=[2])
    assert data.train_counts.tolist() == [36, 1, 20, 7]  # a tenth, a fifth of a held-out group, none below 10 cells
    trained, validated = set(), []
    for epoch in range(40):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            assert 2 not in batch.group
            for x, weight in ((batch.x, batch.weight), (batch.x_score, batch.weight_score)):
                trained |= set(x[weight > 0][:, 1].tolist())
    for loader in data.val_dataloader():
        validated += [set(b.x_score[b.weight_score > 0][:, 1].tolist()) for b in loader]
    assert [len(cells) for cells in validated] == [4, 5]
    assert not trained & set.union(*validated)
    assert len(trained) == 36 + 1 + 7


def test_validation_is_the_same_every_time(grouped):
    data = module(grouped, validation=[2])
    for one, two in zip(data.val_dataloader(), data.val_dataloader(), strict=True):
        for left, right in zip(one, two, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True) if isinstance(a, torch.Tensor))


def test_later_training_takes_later_steps(grouped):
    assert [batch.step for batch in module(grouped, first_step=70).train_dataloader()] == list(range(70, 75))
