"""Growth: cells at the target time for each cell at the source time."""

import numpy as np
import pytest

from scgde.forecasting import Growth


def growing(n=200, slope=0.8, depth=0.5, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.standard_normal((n, 5))
    log_growth = 1 + slope * source[:, 0]
    n_source = rng.integers(5, 50, n)
    return source, n_source, rng.poisson(n_source * depth * np.exp(log_growth)), log_growth


def test_growth_is_recovered_at_equal_depth():
    source, n_source, n_target, truth = growing()
    growth = Growth().fit(source, n_source, n_target, 0.5)
    assert growth.kind_used == "poisson"
    inside = np.abs(source[:, 0]) < 1.5
    np.testing.assert_allclose(growth.predict_log_growth(source)[inside], truth[inside], atol=0.4)
    assert growth.cv_error_["forecast"] < 0.5 * growth.cv_error_["constant"] < 0.5 * growth.cv_error_["no_change"]
    per_group = Growth().fit(source, n_source, n_target, np.full(200, 0.5))
    np.testing.assert_array_equal(per_group.predict_log_growth(source), growth.predict_log_growth(source))
    doubled = Growth().fit(source, n_source, n_target, 1.0).predict_log_growth(source)
    np.testing.assert_allclose(doubled, growth.predict_log_growth(source) - np.log(2), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_constant_growth_is_recognised(seed):
    source, n_source, n_target, _ = growing(100, slope=0, seed=seed)
    growth = Growth().fit(source, n_source, n_target, 0.5)
    assert growth.kind_used == "constant"
    np.testing.assert_allclose(growth.predict_log_growth(source), np.log(n_target.sum() / n_source.sum() / 0.5))


def test_growth_does_not_run_away_from_the_groups_it_was_learned_from():
    source, n_source, n_target, _ = growing()
    growth = Growth().fit(source, n_source, n_target)
    assert growth.predict_log_growth(100 * source).max() == growth.predict_log_growth(source).max()


@pytest.mark.parametrize("n", [3, 5, 12, 40])
def test_state_and_order(n):
    source, n_source, n_target, _ = growing(n, seed=1)
    growth = Growth(seed=2).fit(source, n_source, n_target)
    other = Growth.from_state(growth.state())
    assert np.array_equal(other.predict_log_growth(source), growth.predict_log_growth(source))
    assert (other.kind_used, other.seed, other.cv_error_) == (growth.kind_used, 2, growth.cv_error_)
    back = Growth(seed=2).fit(source[::-1], n_source[::-1], n_target[::-1])
    np.testing.assert_allclose(back.predict_log_growth(source), growth.predict_log_growth(source), rtol=1e-9)


def test_groups_that_died_out():
    source, n_source, n_target, _ = growing(8)
    one = np.where(np.arange(8) == 3, 4, 0)
    growth = Growth().fit(source, n_source, one)
    assert growth.kind_used == "constant"
    np.testing.assert_allclose(growth.predict_log_growth(source), np.log(4 / n_source.sum()))


def test_bad_input():
    source, n_source, n_target, _ = growing(10)
    for bad in ((source, 0 * n_source, n_target), (source, n_source, 0 * n_target), (source[:2], [1, 1], [1, 1])):
        with pytest.raises(ValueError, match="Expected at least 3 groups"):
            Growth().fit(*bad)
    with pytest.raises(ValueError, match="expected one of each"):
        Growth().fit(source, n_source[:5], n_target)
    with pytest.raises(RuntimeError, match="not fitted"):
        Growth().predict_log_growth(source)
    with pytest.raises(ValueError, match="of 4 coordinates, expected 5"):
        Growth().fit(source, n_source, n_target).predict_log_growth(source[:, :4])
