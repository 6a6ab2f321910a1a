"""Energy distance against loops, SciPy and its expectation."""

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from anndata import AnnData

from scgde.metrics import energy_distance


def brute_force(x, y):
    def mean(a, b, skip_self):
        distances = [
            np.sqrt(((p - q) ** 2).sum())
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not (skip_self and i == j)
        ]
        return np.mean(distances)

    return 2 * mean(x, y, False) - mean(x, x, True) - mean(y, y, True)


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_equals_the_loop_for_any_chunk(chunk_size):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((23, 4)), rng.standard_normal((17, 4)) + 0.5
    assert energy_distance(x, y, chunk_size=chunk_size) == pytest.approx(brute_force(x, y), rel=1e-12)


def test_one_dimension_is_the_square_of_scipy_up_to_the_self_pairs():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal(40), rng.exponential(size=30)
    self_x, self_y = (np.abs(a[:, None] - a).mean() for a in (x, y))
    # SciPy's V-statistic counts the pairs of a cell with itself.
    correction = self_x / (len(x) - 1) + self_y / (len(y) - 1)
    expected = scipy.stats.energy_distance(x, y) ** 2 - correction
    assert energy_distance(x[:, None], y[:, None]) == pytest.approx(expected, rel=1e-10)


def test_unbiased_at_equality():
    rng = np.random.default_rng(2)
    draws = [energy_distance(rng.standard_normal((20, 2)), rng.standard_normal((30, 2))) for _ in range(400)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(len(draws))
    assert min(draws) < 0


def test_integer_weights_are_repeated_mass_but_not_repeated_pairs():
    rng = np.random.default_rng(3)
    x, y, weight = rng.standard_normal((12, 2)), rng.standard_normal((9, 2)) + 1, rng.integers(0, 4, 12)
    mass = weight / weight.sum()
    distance = np.sqrt(((x[:, None] - x) ** 2).sum(-1))
    self_x = mass @ distance @ mass / (1 - (mass**2).sum())
    cross = mass @ np.sqrt(((x[:, None] - y) ** 2).sum(-1)).mean(axis=1)
    self_y = np.sqrt(((y[:, None] - y) ** 2).sum(-1)).sum() / (9 * 8)
    assert energy_distance(x, y, weight_x=weight) == pytest.approx(2 * cross - self_x - self_y, rel=1e-10)
    assert energy_distance(y, x, weight_y=weight) == pytest.approx(2 * cross - self_x - self_y, rel=1e-10)
    assert energy_distance(x, y, weight_x=np.full(12, 5.0)) == pytest.approx(energy_distance(x, y), rel=1e-12)


def test_self_term_of_a_single_cell_is_zero():
    x, y = np.zeros((1, 2)), np.array([[3.0, 4.0], [3.0, 4.0]])
    assert energy_distance(x, y) == pytest.approx(10)
    two_cells = np.array([[0.0, 0.0], [9.0, 9.0]])
    assert energy_distance(two_cells, y, weight_x=np.array([1.0, 0.0])) == pytest.approx(10)


@pytest.mark.parametrize("weight", [np.ones(3), np.array([1.0, -1.0]), np.zeros(2)])
def test_bad_weights_are_named(weight):
    with pytest.raises(ValueError, match="one non-negative number for each of 2 cells"):
        energy_distance(np.eye(2), np.eye(2), weight_x=weight)


def test_sparse_input_names_the_remedy():
    with pytest.raises(TypeError, match=r"x is a csr_matrix.*toarray"):
        energy_distance(scipy.sparse.csr_matrix(np.eye(2)), np.eye(2))


def test_views_of_an_anndata_are_dense():
    adata = AnnData(np.random.default_rng(0).normal(size=(9, 2)))
    view = adata[[0, 2, 5]]
    assert energy_distance(view.X, adata.X) == energy_distance(np.array(view.X), adata.X)
