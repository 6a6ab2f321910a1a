"""Counter-based random numbers: the published generator, and numbers that depend on their own counter only."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from scgde.nn._random import STREAMS, CounterRandom, _philox_elementwise, philox

# Philox4x32-10 in Random123's kat_vectors: counter, key, words.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


def numbers(seed=0, step=0, group=(0,), stream="noise", n=64, kind="uniform", device="cpu"):
    return getattr(CounterRandom(seed, step, torch.tensor(group, device=device)), kind)(stream, n)


# Compiled on the CPU, elementwise on other devices.
implementations = pytest.mark.parametrize("implementation", [philox, _philox_elementwise])


@implementations
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(implementation, counter, key, answer, device):
    counter = tuple(torch.tensor([word, word], device=device) for word in words(counter))
    assert implementation(counter, tuple(words(key))).tolist() == [words(answer), words(answer)]


@implementations
def test_all_known_answers_at_once(implementation):
    counters = tuple(torch.tensor(column) for column in zip(*(words(c) for c, _, _ in KNOWN_ANSWERS), strict=True))
    for i, (_, key, answer) in enumerate(KNOWN_ANSWERS):
        assert implementation(counters, tuple(words(key)))[i].tolist() == words(answer)


def test_both_implementations_give_the_same_bits():
    counter = tuple(torch.randint(2**32, (7, 300), generator=torch.Generator().manual_seed(i)) for i in range(4))
    key = (2**32 - 5, 12345)
    assert torch.equal(philox(counter, key), _philox_elementwise(counter, key))


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("n", [1, 4, 5, 7])
def test_numbers_of_a_group_do_not_depend_on_the_others(kind, n, device):
    together = numbers(3, 11, (5, 9, 2**31, 0), kind=kind, n=n, device=device)
    assert together.shape == (4, n)
    assert together.dtype == torch.float32
    for i, group in enumerate((5, 9, 2**31, 0)):
        assert torch.equal(together[i : i + 1], numbers(3, 11, (group,), kind=kind, n=n, device=device))


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_a_longer_draw_begins_with_the_shorter_one(kind):
    assert torch.equal(numbers(kind=kind, n=101)[:, :37], numbers(kind=kind, n=37))


def test_seed_step_group_and_stream_each_change_every_number():
    keys = [
        {},
        {"seed": 1},
        {"seed": 2**32},
        {"seed": -1},
        {"step": 1},
        {"step": 2**31},
        {"group": (1,)},
        *({"stream": stream} for stream in STREAMS if stream != "noise"),
    ]
    drawn = [numbers(**key) for key in keys]
    # Two 23-bit numbers are equal with probability 1.2e-7: some pair of 64 numbers in 105 comparisons, with 8e-4.
    for a, b in itertools.combinations(drawn, 2):
        assert not (a == b).any()


def test_streams_are_numbered_apart():
    assert len(set(STREAMS.values())) == len(STREAMS)


# The next tests reject a perfect generator with a probability of at most 1e-4 each; the seeds are fixed.
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("kind", "law"), [("uniform", "uniform"), ("normal", "norm")])
def test_numbers_follow_their_law(seed, kind, law):
    x = numbers(seed, group=tuple(range(50)), n=2000, kind=kind).double().numpy()
    assert scipy.stats.kstest(x.ravel(), law).pvalue > 1e-4
    distribution = getattr(scipy.stats, law)
    z = (x - distribution.mean()) / distribution.std()
    excess = float(distribution.stats(moments="k")) + 2
    assert abs(z.mean()) * np.sqrt(z.size) < 3.9
    assert abs((z**2).mean() - 1) * np.sqrt(z.size / excess) < 3.9


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_neighbours_are_uncorrelated(kind):
    """Along draws, groups and steps, the three words of the counter that change."""
    x = torch.stack([numbers(0, step, tuple(range(40)), n=200, kind=kind) for step in range(10)]).double()
    x = (x - x.mean()) / x.std()
    for axis in range(3):
        product = x.narrow(axis, 1, x.shape[axis] - 1) * x.narrow(axis, 0, x.shape[axis] - 1)
        assert abs(product.mean()) * product.numel() ** 0.5 < 3.9


def test_uniform_numbers_never_reach_the_ends(monkeypatch):
    ends = torch.tensor([[0, 2**32 - 1]])
    monkeypatch.setattr(CounterRandom, "_bits", lambda self, stream, n: ends[:, :n])
    low, high = numbers(n=2)[0].tolist()
    assert 0 < low < 1e-6
    assert 1 - 1e-6 < high < 1
    assert torch.isfinite(numbers(n=2, kind="normal")).all()
