"""What distinguishes the forecasters, and the weights of pairs."""

import numpy as np
import pytest

from scgde.forecasting import FORECASTERS, precision_weights


def test_a_network_learns_what_is_not_linear():
    rng = np.random.default_rng(0)
    source = rng.standard_normal((300, 4))
    law = lambda z: z + np.column_stack([2 * np.abs(z[:, 0]), z[:, 1] * np.sign(z[:, 2]), 0 * z[:, :2]])  # noqa: E731
    target = law(source) + 0.2 * rng.standard_normal((300, 4))
    forecasters = {kind: FORECASTERS[kind]().fit(source, target, np.ones(300)) for kind in ("ridge", "mlp")}
    new = rng.standard_normal((300, 4))
    error = {kind: ((f.predict(new) - law(new)) ** 2).sum(axis=1).mean() for kind, f in forecasters.items()}
    assert forecasters["mlp"].kind_used == "mlp"
    assert error["mlp"] < 0.5 * error["ridge"]
    noise = 4 * 0.2**2
    for kind, forecaster in forecasters.items():
        assert forecaster.cv_error_["forecast"] - noise == pytest.approx(error[kind], rel=0.35)


def test_a_network_is_not_used_where_the_law_is_linear(linear):
    source, target, _ = linear
    ridge, mlp = (FORECASTERS[kind]().fit(source, target, np.ones(60)) for kind in ("ridge", "mlp"))
    assert mlp.kind_used == "ridge"
    assert np.array_equal(ridge.predict(source), mlp.predict(source))


def test_a_mixture_finds_both_outcomes_and_their_odds(bimodal):
    source, target, _ = bimodal
    forecaster = FORECASTERS["mixture"]().fit(source, target, np.ones(300))
    assert forecaster.kind_used == "mixture"
    new = np.array([[-1.5, 0, 0, 0], [0.0, 0, 0, 0], [1.5, 0, 0, 0]])
    change = forecaster.sample(new, 4000, seed=0) - new
    first = change[:, :, 0]
    odds = 1 / (1 + np.exp(-2 * new[:, 0]))
    np.testing.assert_allclose((first > 0).mean(axis=0), odds, atol=0.12)
    assert (np.abs(np.abs(first) - 3) < 1).mean() > 0.97
    assert np.abs(first[first > 0].std() - 0.3) < 0.15
    np.testing.assert_allclose(change[:, :, 1:].std(axis=0), 0.3, rtol=0.3)
    np.testing.assert_allclose(change.mean(axis=0), forecaster.predict(new) - new, atol=0.2)


def test_a_mixture_is_ridge_where_there_is_one_outcome(linear):
    source, target, _ = linear
    assert FORECASTERS["mixture"]().fit(source, target, np.ones(60)).kind_used == "ridge"


def test_a_mixture_from_few_pairs_says_what_it_does(bimodal):
    source, target, _ = bimodal
    ridge = FORECASTERS["ridge"]().fit(source[:29], target[:29], np.ones(29))
    with pytest.warns(UserWarning, match="Received 29 pairs of groups; a mixture needs 30. Fitted ridge") as record:
        mixture = FORECASTERS["mixture"]().fit(source[:29], target[:29], np.ones(29))
    assert record[0].filename == __file__
    assert mixture.kind_used == "ridge"
    assert np.array_equal(ridge.sample(source, 2, seed=0), mixture.sample(source, 2, seed=0))


def test_precision_weights():
    weight = precision_weights(np.array([10, 10, 1000, 1e9, 0]), np.array([10, 1000, 10, 1e9, 50]), n0=10)
    np.testing.assert_allclose(weight, [1 / 3, 1 / 2.01, 1 / 2.01, 1, 0])
    # Residuals of pairs with known variances: no weights make the weighted mean more precise.
    rng = np.random.default_rng(0)
    n = rng.integers(1, 100, (2, 400)).astype(float)
    variance = 1 + 10 / n[0] + 10 / n[1]
    spread = {n0: np.average(variance, weights=precision_weights(*n, n0=n0) ** 2) for n0 in (0, 10)}
    total = {n0: (precision_weights(*n, n0=n0) ** 2).sum() / precision_weights(*n, n0=n0).sum() ** 2 for n0 in spread}
    assert spread[10] * total[10] == pytest.approx(1 / (1 / variance).sum())
    assert spread[10] * total[10] < spread[0] * total[0]
    with pytest.raises(ValueError, match="n_target holds -1.0"):
        precision_weights(np.ones(2), np.array([1, -1]))
    with pytest.raises(ValueError, match="n0=-1"):
        precision_weights(np.ones(2), np.ones(2), n0=-1)
