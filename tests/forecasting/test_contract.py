"""What every forecaster promises."""

import functools
import warnings

import numpy as np
import pytest
import torch

from scgde.forecasting import FORECASTERS, Forecaster

pytestmark = pytest.mark.filterwarnings("ignore:Received .* pairs of groups; a mixture needs")

KINDS = sorted(FORECASTERS)
CASES = ["linear", "bimodal"]


def fitted(kind, source, target, weight=None, condition=None, seed=0):
    weight = np.ones(len(source)) if weight is None else weight
    return FORECASTERS[kind](seed=seed).fit(source, target, weight, condition)


def noise_pairs(n, p=8, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.standard_normal((n, p))
    return source, source + 2 + rng.standard_normal((n, p))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [3, 5, 19, 40])
@pytest.mark.parametrize("n_conditions", [0, 2])
def test_shapes(kind, n, n_conditions):
    source, target = noise_pairs(n)
    condition = np.eye(2)[np.arange(n) % 2] if n_conditions else None
    new = None if condition is None else condition[:2]
    forecaster = fitted(kind, source, target, condition=condition)
    assert forecaster.predict(source[:2], new).shape == (2, 8)
    assert forecaster.sample(source[:2], 7, new, seed=0).shape == (7, 2, 8)
    assert np.isfinite(forecaster.sample(source[:2], 7, new, seed=0)).all()
    assert set(forecaster.cv_error_) == {"forecast", "no_change", "mean_change", "mean_target"}
    assert np.isfinite(list(forecaster.cv_error_.values())).all()


@pytest.fixture(scope="module")
def fitted_case(request):
    """A forecaster fitted to a fixture's pairs, once."""

    @functools.cache
    def fit(kind, case):
        source, target, _ = request.getfixturevalue(case)
        return fitted(kind, source, target, seed=3), source, target

    return fit


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_order_of_rows_and_global_state_do_not_matter(kind, case, fitted_case):
    first, source, target = fitted_case(kind, case)
    torch.manual_seed(7)
    np.random.seed(7)
    before = np.random.get_state()[1].copy(), torch.get_rng_state(), torch.get_num_threads()
    order = np.random.default_rng(2).permutation(len(source))
    second = fitted(kind, source[order], target[order], seed=3)
    assert np.array_equal(first.predict(source), second.predict(source))
    assert np.array_equal(first.sample(source, 3, seed=1), second.sample(source, 3, seed=1))
    assert not np.array_equal(first.sample(source, 3, seed=1), first.sample(source, 3, seed=2))
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.get_rng_state())
    assert before[2] == torch.get_num_threads()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_state_goes_round(kind, case, fitted_case):
    first, source, _ = fitted_case(kind, case)
    state = first.state()
    assert all(isinstance(value, np.ndarray | float | int | str) for value in state.values())
    second = Forecaster.from_state(state)
    assert type(second) is FORECASTERS[kind]
    assert (second.kind_used, second.seed, second.cv_error_, second.cv_r2_) == (
        (first.kind_used, first.seed, first.cv_error_, first.cv_r2_)
    )
    assert np.array_equal(first.predict(source), second.predict(source))
    assert np.array_equal(first.sample(source, 3, seed=1), second.sample(source, 3, seed=1))


def test_states_of_unknown_kind_are_refused():
    with pytest.raises(ValueError, match="of kind 'oracle', expected one of"):
        Forecaster.from_state({"kind": "oracle", "seed": 0})


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_without_weight_have_no_effect(kind, linear):
    source, target, _ = linear
    with_junk = np.vstack([source, 100 + source[:20]]), np.vstack([target, -100 * source[:20]])
    weight = np.r_[np.ones(len(source)), np.zeros(20)]
    np.testing.assert_array_equal(
        fitted(kind, *with_junk, weight).predict(source), fitted(kind, source, target).predict(source)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_only_ratios_of_weights_matter(kind, linear):
    source, target, _ = linear
    first, second = (fitted(kind, source, target, np.full(len(source), w)) for w in (1.0, 0.01))
    np.testing.assert_allclose(first.predict(source), second.predict(source), rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_imprecise_pairs_count_less(kind):
    rng = np.random.default_rng(0)
    source = rng.standard_normal((100, 4))
    sd = np.repeat([0.1, 5.0], 50)
    target = source + 1 + source @ np.diag([1, -1, 0.5, 0]) + sd[:, None] * rng.standard_normal((100, 4))
    truth = source + 1 + source @ np.diag([1, -1, 0.5, 0])
    error = [((fitted(kind, source, target, w).predict(source) - truth) ** 2).mean() for w in (1 / sd**2, np.ones(100))]
    assert error[0] < 0.01
    assert error[0] < error[1] / 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_linear_map_is_recovered(kind, linear):
    source, target, b = linear
    forecaster = fitted(kind, source, target)
    new = np.random.default_rng(9).standard_normal((50, 6)) + 3
    # The noise has variance 0.01 per coordinate; six coefficients and a mean of 60 pairs add a tenth of it.
    assert ((forecaster.predict(new) - (new + 1 + new @ b)) ** 2).mean() < 0.005
    assert forecaster.cv_error_["forecast"] == pytest.approx(6 * 0.01, rel=0.4)
    assert forecaster.cv_r2_ > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_noise_gives_the_mean_change(kind):
    variance = []
    for seed in range(20 if kind == "ridge" else 3):
        source, target = noise_pairs(60, seed=seed)
        forecaster = fitted(kind, source, target)
        change = forecaster.predict(source) - source
        np.testing.assert_allclose(change.mean(axis=0), (target - source).mean(axis=0), atol=1e-6)
        assert forecaster.kind_used == "ridge"
        assert abs(forecaster.cv_r2_) < 0.15
        variance.append(change.var(axis=0).sum())
    # Least squares gives 1.07: 8 coefficients for each of 8 coordinates, from 60 pairs.
    assert np.mean(variance) < 0.15
    if kind == "ridge":  # a share of three says nothing, and the others are ridge here
        assert np.mean(np.array(variance) < 1e-9) > 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_sources_that_tell_nothing_give_the_mean_target(kind):
    rng = np.random.default_rng(0)
    source, target = 3 * rng.standard_normal((24, 32)), rng.standard_normal((24, 32))
    forecaster = fitted(kind, source, target)
    new = 3 * rng.standard_normal((50, 32))
    assert ((forecaster.predict(new) - target.mean(axis=0)) ** 2).sum(axis=1).mean() < 0.2 * 32
    assert forecaster.cv_error_["mean_target"] < forecaster.cv_error_["mean_change"] / 5


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_covariance_of_the_noise(kind):
    rng = np.random.default_rng(3)
    root = np.array([[2.0, 0, 0], [1.0, 1.0, 0], [0, -0.5, 0.5]])
    source = rng.standard_normal((600, 3))
    target = source + 1 + 0.5 * source + rng.standard_normal((600, 3)) @ root.T
    draws = fitted(kind, source, target).sample(np.zeros((1, 3)), 20_000, seed=0)[:, 0]
    # The standard error of a variance from 600 pairs is 6% of it.
    np.testing.assert_allclose(np.cov(draws.T), root @ root.T, atol=0.2 * 4)
    np.testing.assert_allclose(draws.var(axis=0), np.diag(root @ root.T), rtol=0.25)
    np.testing.assert_allclose(draws.mean(axis=0), 1, atol=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_cover_new_targets_when_pairs_are_few(kind):
    """The squared distance of new targets to the forecast is what the draws say, with 15 pairs in 10 dimensions."""
    ratio = []
    for seed in range(20):
        source, target = noise_pairs(115, 10, seed)
        forecaster = fitted(kind, source[:15], target[:15])
        draws = forecaster.sample(source[15:], 20, seed=0)
        real = ((target[15:] - forecaster.predict(source[15:])) ** 2).mean()
        ratio.append(((draws - forecaster.predict(source[15:])) ** 2).mean() / real)
    assert np.mean(ratio) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_are_used(kind):
    rng = np.random.default_rng(0)
    source, condition = rng.standard_normal((60, 4)), rng.integers(0, 2, (60, 1)).astype(float)
    target = source + 4 * condition + 0.1 * rng.standard_normal((60, 4))
    forecaster = fitted(kind, source, target, condition=condition)
    zero = np.zeros((2, 4))
    np.testing.assert_allclose(forecaster.predict(zero, np.array([[0.0], [1.0]])), [[0] * 4, [4] * 4], atol=0.3)
    with pytest.raises(ValueError, match=r"condition \(2, 0\); expected rows of 4 embedding coordinates and 1"):
        forecaster.predict(zero)


@pytest.mark.parametrize("kind", KINDS)
def test_constant_coordinates_and_exact_changes(kind):
    source = np.random.default_rng(0).standard_normal((40, 3))
    source[:, 1] = 0.1
    forecaster = fitted(kind, source, source + 2)
    np.testing.assert_allclose(forecaster.predict(source + [[0, 5, 0]]), source + [[2, 7, 2]], atol=1e-6)
    assert np.isfinite(forecaster.sample(source, 2, seed=0)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input(kind):
    source, target = noise_pairs(10)
    with pytest.raises(ValueError, match="Received 2 pairs of positive weight, expected at least 3"):
        fitted(kind, source, target, np.r_[1, 1, np.zeros(8)])
    with pytest.raises(ValueError, match=r"source \(10, 8\), target \(9, 8\)"):
        fitted(kind, source, target[:9])
    with pytest.raises(ValueError, match="target holds NaN or infinity in 1 of 10 rows"):
        fitted(kind, source, np.where(np.arange(80).reshape(10, 8) == 13, np.nan, target))
    with pytest.raises(ValueError, match="weight holds -1.0"):
        fitted(kind, source, target, -np.ones(10))
    with pytest.raises(RuntimeError, match="not fitted"):
        FORECASTERS[kind]().predict(source)
    with pytest.raises(ValueError, match=r"source \(10, 7\)"):
        fitted(kind, source, target).predict(source[:, :7])


def test_nothing_but_the_mixture_warns(linear):
    source, target, _ = linear
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in KINDS:
            fitted(kind, source, target)
