"""Draws are a function of (seed, step), fair to groups and cells, and disjoint between ranks."""

import numpy as np
import pytest
import torch

from scgde.data import GroupSampler
from scgde.data._sampler import N_FOLDS, strata


def sampler(counts=(40, 3, 1, 200, 12, 7), batch_size=4, **kwargs):
    counts = torch.tensor(counts)
    options = {"cells_per_group": 16, "scored_per_group": 8, "seed": 0, **kwargs}
    return GroupSampler(counts, torch.arange(len(counts)), batch_size, **options)


def test_a_pass_shows_each_group_once():
    draw = sampler(batch_size=2)
    seen = torch.cat([draw.groups_of(step) for step in range(3)])
    assert sorted(seen.tolist()) == list(range(6))
    assert not torch.equal(seen, torch.cat([draw.groups_of(step) for step in range(3, 6)]))


def test_draws_depend_on_seed_and_step_alone():
    one, other = sampler(), sampler()
    list(map(other.groups_of, range(50)))  # earlier calls leave no trace
    for step in (7, 3):
        group = one.groups_of(step)
        assert torch.equal(group, other.groups_of(step))
        for left, right in zip(one.cells_of(step, group), other.cells_of(step, group), strict=True):
            assert torch.equal(left, right)
    assert not torch.equal(sampler(seed=1).cells_of(3, group)[1], one.cells_of(3, group)[1])


def test_no_global_randomness():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    draw = sampler()
    draw.cells_of(0, draw.groups_of(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_ranks_get_disjoint_groups_of_the_same_step():
    whole = sampler().groups_of(5)
    parts = [sampler(rank=rank, world_size=2).groups_of(5) for rank in range(2)]
    assert [len(part) for part in parts] == [2, 2]
    assert sorted(torch.cat(parts).tolist()) == sorted(whole.tolist())


def test_too_few_groups_for_the_ranks():
    with pytest.raises(ValueError, match="1 groups per step cannot be shared by 2 processes"):
        sampler(batch_size=1, world_size=2)


def test_encoded_and_scored_cells_are_apart_and_lie_in_their_group():
    draw, group = sampler(), torch.arange(6)
    for step in range(30):
        fold, encode, share, score, share_score = draw.cells_of(step, group)
        assert encode.shape == (6, 16)
        assert score.shape == (6, 8)
        for i, count in enumerate(draw.counts.tolist()):
            encoded, scored = set(encode[i][share[i] > 0].tolist()), set(score[i][share_score[i] > 0].tolist())
            assert encoded | scored <= set(range(count))
            assert count == 1 or not encoded & scored
            assert (fold[i] == -1) == (count == 1)
        for weight in (share, share_score):
            torch.testing.assert_close(weight.sum(1), torch.ones(6))


def test_small_groups_are_seen_whole_and_padding_weighs_nothing():
    _, encode, share, _, _ = sampler().cells_of(0, torch.tensor([4]))
    used = encode[0][share[0] > 0].tolist()
    assert len(used) == len(set(used)) < 12
    assert (share[0] == 0).sum() == 16 - len(used)


def test_every_cell_is_drawn_as_often():
    draw, group = sampler(), torch.tensor([3])
    mass = np.zeros(200)
    for step in range(2000):
        _, encode, share, _, _ = draw.cells_of(step, group)
        np.add.at(mass, encode[0].numpy(), share[0].numpy())
    # A cell is drawn 160 times on average, with a standard deviation of at most 13: the bound is 6 of these.
    np.testing.assert_allclose(mass / mass.mean(), 1, atol=0.5)
    folds = torch.stack([draw.cells_of(step, group)[0] for step in range(500)])
    assert folds.unique().tolist() == list(range(N_FOLDS))


def test_strata_share_the_mass_by_their_length():
    position, share = strata(torch.full((1, 3), 0.999), torch.zeros(1), torch.tensor([7]))
    assert position.tolist() == [[1, 3, 6]]
    torch.testing.assert_close(share, torch.tensor([[2 / 7, 2 / 7, 3 / 7]]))


def test_each_step_sees_labelled_groups_and_scores_the_same_ones():
    counts, groups = torch.full((200,), 20), torch.arange(200)
    labelled = torch.arange(0, 200, 10)
    plain = GroupSampler(counts, groups, 32, 8, 4, seed=0)
    sampler = GroupSampler(counts, groups, 32, 8, 4, seed=0, labelled=labelled)
    seen = torch.zeros(200)
    for step in range(40):
        group = sampler.groups_of(step)
        torch.testing.assert_close(group, plain.groups_of(step))
        more = sampler.labelled_of(step, group)
        assert not torch.isin(more, group).any()
        assert torch.isin(more, labelled).all()
        assert torch.isin(torch.cat([group, more]), labelled).sum() == 16
        assert len(more.unique()) == len(more)
        seen[more] += 1
    assert (seen[labelled] > 10).all()
    few = GroupSampler(counts, groups, 32, 8, 4, seed=0, labelled=labelled[:3])
    group = few.groups_of(0)
    assert torch.isin(torch.cat([group, few.labelled_of(0, group)]), labelled[:3]).sum() == 3
    assert len(plain.labelled_of(0, group)) == 0
