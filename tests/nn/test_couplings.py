"""The contract of every coupling: pairs that respect both weights, and known answers."""

import numpy as np
import ot
import pytest

from scgde.nn.couplings import COUPLINGS

N = 40


def spaced(k, start=0.3):
    return (np.arange(k) + start) / k


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 2)), rng.normal(size=(N, 2)) + [5, 0]


@pytest.mark.parametrize("name", COUPLINGS)
def test_pairs_keep_both_weights(name, cells):
    rng = np.random.default_rng(1)
    w0, w1 = (rng.dirichlet(np.ones(N)) for _ in range(2))
    w0[:3], w1[-2:] = 0, 0
    w0, w1 = w0 / w0.sum(), w1 / w1.sum()
    i, j = COUPLINGS[name](cells[0], w0, cells[1], w1, spaced(20_000))
    for index, weight in ((i, w0), (j, w1)):
        share = np.bincount(index, minlength=N) / len(index)
        np.testing.assert_allclose(share, weight, atol=2e-3)
        assert not share[weight == 0].any()


def test_ot_of_equal_sizes_is_the_best_permutation(cells):
    uniform = np.full(N, 1 / N)
    i, j = COUPLINGS["ot"](cells[0], uniform, cells[1], uniform, spaced(N))
    assert sorted(i) == sorted(j) == list(range(N))
    cost = np.square(cells[0][i] - cells[1][j]).sum(1).mean()
    assert cost == pytest.approx(ot.emd2(uniform, uniform, ot.dist(*cells)))


def test_couplings_cost_what_they_should(cells):
    uniform = np.full(N, 1 / N)
    cost = {}
    for name, couple in COUPLINGS.items():
        i, j = couple(cells[0], uniform, cells[1], uniform, spaced(4000))
        cost[name] = np.square(cells[0][i] - cells[1][j]).sum(1).mean()
    product = ot.dist(*cells).mean()
    assert cost["ot"] < cost["sinkhorn"] < cost["independent"]
    assert cost["independent"] == pytest.approx(product, rel=0.02)
