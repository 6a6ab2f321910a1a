"""Maximum mean discrepancy against scikit-learn and its closed form."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from scgde.metrics import mmd_rbf, mmd_rbf_median


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.standard_normal((41, 3)), 1.5 * rng.standard_normal((28, 3)) + 1


@pytest.mark.parametrize("chunk_size", [5, 1000])
def test_equals_the_kernels_of_sklearn(chunk_size, clouds):
    x, y = clouds
    gamma = 1 / (2 * 0.8**2)
    expected = rbf_kernel(x, gamma=gamma).mean() + rbf_kernel(y, gamma=gamma).mean()
    expected -= 2 * rbf_kernel(x, y, gamma=gamma).mean()
    assert mmd_rbf(x, y, bandwidth=0.8, chunk_size=chunk_size) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("chunk_size", [7, 1000])
def test_the_bandwidth_is_the_median_distance(chunk_size, clouds):
    x = clouds[0][:28]
    y = clouds[1]
    # Equal sizes: all pairs count the same, and the median is that of numpy.
    both = np.concatenate([x, y])
    distances = np.linalg.norm(both[:, None] - both, axis=2)[np.triu_indices(len(both), 1)]
    low, high = (mmd_rbf(x, y, bandwidth=b) for b in np.quantile(distances, [0.499, 0.501]))
    assert min(low, high) <= mmd_rbf_median(x, y, chunk_size=chunk_size) <= max(low, high)
    assert mmd_rbf_median(x, y) == pytest.approx(mmd_rbf(x, y, bandwidth=float(np.median(distances))), rel=1e-3)


def test_gaussians_have_a_closed_form():
    rng = np.random.default_rng(1)
    x, y, shift, b = rng.standard_normal((3000, 2)), rng.standard_normal((3000, 2)), np.array([1.0, 0.5]), 1.2
    # E k(x, y) of N(0, I) and N(s, I) in two dimensions: b^2 / (b^2 + 2) exp(-|s|^2 / (2 (b^2 + 2))).
    kernel = [b**2 / (b**2 + 2) * np.exp(-square / (2 * (b**2 + 2))) for square in (0, shift @ shift)]
    # Its standard error at this size is about .005.
    assert mmd_rbf(x, y + shift, bandwidth=b) == pytest.approx(2 * (kernel[0] - kernel[1]), abs=0.02)
    assert mmd_rbf(x, y, bandwidth=b) < 4 / 3000


def test_groups_in_one_place_are_equal():
    same = np.ones((4, 2))
    assert mmd_rbf_median(same, same[:2]) == 0


@pytest.mark.parametrize("bandwidth", [0, -1.0, np.nan, np.inf])
def test_bad_bandwidth_is_named(bandwidth, clouds):
    with pytest.raises(ValueError, match="expected a positive number, in units of the features"):
        mmd_rbf(*clouds, bandwidth=bandwidth)
