"""Mixture Wasserstein distance against POT and closed forms."""

import numpy as np
import ot
import pytest

from scgde.metrics import pairwise, w2_gaussian, w2_mixture


def mixture(k, seed, full=True, d=3):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((k, d, d))
    cov = root @ root.transpose(0, 2, 1) if full else rng.uniform(0.2, 2, (k, d))
    return rng.dirichlet(np.ones(k)), 2 * rng.standard_normal((k, d)), cov


def test_equals_pot():
    (wx, mx, cx), (wy, my, cy) = x, y = mixture(4, 0), mixture(3, 1)
    assert w2_mixture(x, y) == pytest.approx(float(ot.gmm.gmm_ot_loss(mx, my, cx, cy, wx, wy)), rel=1e-6)


def test_variances_are_diagonal_covariances():
    x, y = mixture(4, 2, full=False), mixture(3, 3, full=False)
    full = [(w, m, np.stack([np.diag(v) for v in c])) for w, m, c in (x, y)]
    assert w2_mixture(x, y) == pytest.approx(w2_mixture(*full), rel=1e-9)


def test_single_components_are_gaussians():
    (_, mx, cx), (_, my, cy) = x, y = mixture(1, 4), mixture(1, 5)
    assert w2_mixture(x, y) == pytest.approx(w2_gaussian(mx[0], cx[0], my[0], cy[0]), rel=1e-9)


def test_moved_mass_costs_its_distance():
    means, flat = np.array([[0.0, 0.0], [3.0, 4.0]]), np.zeros((2, 2))
    x, y = (np.array([1.0, 0.0]), means, flat), (np.array([0.7, 0.3]), means, flat)
    assert w2_mixture(x, y) == pytest.approx(0.3 * 25)
    assert w2_mixture(x, x) == 0


def test_pairwise_takes_mixtures():
    groups = [mixture(2, seed) for seed in range(3)]
    distances = pairwise(groups, metric=w2_mixture)
    assert distances[0, 2] == distances[2, 0] == w2_mixture(groups[0], groups[2])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ((np.ones(2) / 2, np.zeros((2, 3)), np.zeros((3, 3))), r"shapes \(2,\), \(2, 3\) and \(3, 3\)"),
        ((np.ones(2), np.zeros((2, 3)), np.ones((2, 3))), "sum to 2: expected non-negative"),
        ((np.ones(2) / 2, np.zeros((2, 3)), -np.ones((2, 3))), "Variances of x are negative, down to -1"),
        ((np.ones(2) / 2, np.zeros((2, 2)), np.ones((2, 2))), "the same features"),
        ((np.ones(2) / 2, np.full((2, 3), np.nan), np.ones((2, 3))), "means of x holds 6 values that are NaN"),
    ],
)
def test_bad_mixtures_are_named(x, message):
    with pytest.raises(ValueError, match=message):
        w2_mixture(x, mixture(2, 0, full=False))
