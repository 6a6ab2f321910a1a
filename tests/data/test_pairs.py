"""Pairs of populations: their direction, their ends, and that they are a function of seed and step."""

import numpy as np
import pytest
import torch

from scgde.data._pairs import Pairing, PairSampler

UNIT = np.array([0, 0, 0, 1, 1, 2, 3, 4])
TIME = np.array([6.0, 2, 4, 2, 6, 4, 2, 6])


def sampler(pairing, batch_size=6, **kwargs):
    groups = torch.arange(8)
    return PairSampler(torch.full((8,), 20), groups, batch_size, 4, 4, 0, pairing=pairing, **kwargs)


@pytest.mark.parametrize("name", ["any", "forward", "within_group"])
def test_pairs_have_the_direction_they_are_named_after(name):
    pairing = Pairing.by_name(name, UNIT, TIME)
    seen = set()
    for step in range(300):
        group, pairs = sampler(pairing).pairs_of(step)
        assert len(pairs) > 0
        source, target = group[pairs].T.numpy()
        assert (source != target).all()
        if name != "any":
            assert (TIME[source] < TIME[target]).all()
        if name == "within_group":
            assert (UNIT[source] == UNIT[target]).all()
        seen |= set(zip(source.tolist(), target.tolist(), strict=True))
    possible = {
        (i, j)
        for i in range(8)
        for j in range(8)
        if i != j and (name == "any" or TIME[i] < TIME[j]) and (name != "within_group" or UNIT[i] == UNIT[j])
    }
    assert seen == possible


def test_pairs_are_a_function_of_the_step():
    pairing = Pairing.by_name("forward", UNIT, TIME)
    for step in (0, 7):
        first, second = (sampler(pairing).pairs_of(step) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_every_step_has_a_pair_though_all_drawn_groups_have_one_time():
    time = np.array([0.0] * 7 + [1.0])
    pairing = Pairing.by_name("forward", np.arange(8), time)
    for step in range(100):
        group, pairs = sampler(pairing, batch_size=2).pairs_of(step)
        assert len(pairs) > 0
        assert (time[group[pairs[:, 0]]] < time[group[pairs[:, 1]]]).all()


def test_listed_pairs_stay_among_the_groups():
    listed = Pairing(listed=torch.tensor([[0, 1], [2, 3], [1, 6]]))
    assert listed.among(torch.tensor([0, 1, 2])).listed.tolist() == [[0, 1]]
    assert listed.within(torch.tensor([6, 1, 0]), torch.zeros(3, 2)).tolist() == [[2, 1], [1, 0]]


@pytest.mark.parametrize("name", ["forward", "within_group"])
def test_time_is_needed(name):
    with pytest.raises(ValueError, match=f"pairing='{name}' needs times"):
        Pairing.by_name(name, UNIT, None)
