"""Wasserstein distances against SciPy, POT and closed forms."""

import numpy as np
import ot
import pytest
import scipy.linalg
import scipy.optimize

from scgde.metrics import gaussian_w2, sliced_w2, w2_empirical, w2_gaussian


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.standard_normal((50, 3)), rng.standard_normal((50, 3)) @ np.diag([0.5, 1, 2]) + 1


@pytest.mark.parametrize("sizes", [(40, 40), (40, 25), (7, 1), (12, 36)])
def test_sliced_in_one_dimension_is_exact(sizes):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((sizes[0], 1)), rng.exponential(size=(sizes[1], 1))
    assert sliced_w2(x, y) == pytest.approx(ot.wasserstein_1d(x[:, 0], y[:, 0], p=2), rel=1e-10)
    assert sliced_w2(x, y) == pytest.approx(w2_empirical(x, y), rel=1e-10)


def test_sliced_equals_pot_on_the_same_directions(clouds):
    x, y = clouds[0], clouds[1][:31]
    directions = np.random.default_rng(4).standard_normal((60, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = ot.sliced_wasserstein_distance(x, y, projections=directions.T, p=2) ** 2
    assert sliced_w2(x, y, n_projections=60, seed=4) == pytest.approx(expected, rel=1e-10)
    assert sliced_w2(x, y, n_projections=60, seed=4, chunk_size=7) == pytest.approx(expected, rel=1e-10)
    assert sliced_w2(x, y, n_projections=60, seed=5) != pytest.approx(expected, rel=1e-4)


def test_sliced_of_a_shift_is_its_mean_square_along_a_direction(clouds):
    x, _ = clouds
    shift = np.array([1.0, -2.0, 2.0])
    # E (u.s)^2 = |s|^2 / d for a uniform direction u; its sd here is 2.7, so 5 standard errors at 4,000 directions.
    assert sliced_w2(x, x + shift, n_projections=4000) == pytest.approx(9 / 3, abs=0.22)


@pytest.mark.parametrize("distance", [w2_empirical, gaussian_w2])
def test_shift_costs_its_square(distance, clouds):
    x, _ = clouds
    assert distance(x, x + np.array([1.0, -2.0, 2.0])) == pytest.approx(9, rel=1e-9)


def test_empirical_equals_the_best_assignment(clouds):
    x, y = clouds
    cost = ((x[:, None] - y) ** 2).sum(-1)
    best = cost[scipy.optimize.linear_sum_assignment(cost)].mean()
    assert w2_empirical(x, y) == pytest.approx(best, rel=1e-10)


def test_gaussian_equals_the_formula_with_matrix_roots():
    rng = np.random.default_rng(2)
    roots = rng.standard_normal((2, 4, 4))
    (c_x, c_y), (m_x, m_y) = roots @ roots.transpose(0, 2, 1), rng.standard_normal((2, 4))
    root = scipy.linalg.sqrtm(c_x)
    expected = ((m_x - m_y) ** 2).sum() + np.trace(c_x + c_y - 2 * scipy.linalg.sqrtm(root @ c_y @ root).real)
    assert w2_gaussian(m_x, c_x, m_y, c_y) == pytest.approx(expected, rel=1e-8)
    assert w2_gaussian(m_x, c_x, m_y, c_y) == pytest.approx(
        ot.gaussian.bures_wasserstein_distance(m_x, m_y, c_x, c_y) ** 2
    )


def test_gaussian_with_one_axis_is_the_difference_of_sds():
    zero, flat = np.zeros(2), np.diag([4.0, 0.0])
    assert w2_gaussian(zero, flat, zero, np.diag([25.0, 0.0])) == pytest.approx(9, rel=1e-12)
    assert w2_gaussian(zero, flat, zero, np.diag([0.0, 9.0])) == pytest.approx(13, rel=1e-12)
    assert w2_gaussian(zero, flat, zero, flat) == pytest.approx(0, abs=1e-12)


def test_moments_are_those_of_the_empirical_measure(clouds):
    x, y = clouds
    moments = [moment for cells in clouds for moment in (cells.mean(0), np.cov(cells.T, bias=True))]
    assert gaussian_w2(x, y) == pytest.approx(w2_gaussian(*moments), rel=1e-10)


def test_gaussian_says_which_shapes_do_not_fit():
    with pytest.raises(ValueError, match=r"\(2,\), \(2, 2\), \(3,\), \(2, 2\)"):
        w2_gaussian(np.zeros(2), np.eye(2), np.zeros(3), np.eye(2))


def test_empirical_converges_on_the_size_the_protocol_needs():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 500, 2))
    # Two draws of one Gaussian: the bias is small, and between the Gaussian distance (a lower bound) and the identity.
    assert gaussian_w2(x, y) <= w2_empirical(x, y) < ((x - y) ** 2).sum(-1).mean() / 10
