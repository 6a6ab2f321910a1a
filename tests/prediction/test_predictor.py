"""Predictors: calibrated on what was not seen, and honest about embeddings that have seen labels."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss

from scgde.prediction._fit_predictor import LabelledGroups, cross_fit, fit_predictor
from scgde.prediction._heads import LinearMap, fit_head, fit_linear
from scgde.prediction._predictor import ClassPredictor, NumericPredictor, OrderedPredictor, draws, propagate


def plain(z):
    """The embedding is the only block of features."""
    return [z]


def no_error(directions):
    """Covariances of linear functions of embeddings that are known exactly."""
    return np.zeros((*directions.shape[:2], directions.shape[1]))


def prediction(predictor, z, covariance):
    """What is predicted from embeddings with these covariances."""
    return predictor.table(*propagate(predictor.linear, z, lambda a: a @ covariance @ a.transpose(0, 2, 1), plain))


def groups(z, y, **changes):
    n = len(z)
    fields = {
        "z": z,
        "covariance": lambda place, directions: no_error(directions),
        "place": np.arange(n),
        "y": y.astype(float),
        "unit": np.arange(n),
        "train": np.ones(n, dtype=bool),
        "judge": np.zeros(n, dtype=bool),
        "blocks": plain,
    }
    return LabelledGroups(**fields | changes)


@pytest.mark.parametrize("kind", ["categorical", "numeric"])
def test_the_linear_map_is_the_head(kind):
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(40, 6)), rng.normal(size=(10, 6))
    y = (x[:, 0] > 0).astype(float) if kind == "categorical" else x[:, 0]
    outputs = fit_linear(x, y, np.arange(40), kind, 0)(new)
    expected = fit_head(x, y, np.arange(40), kind, 0)(new)
    if kind == "categorical":
        outputs, expected = expit(outputs[:, 1] - outputs[:, 0]), expected[:, 1]
    np.testing.assert_allclose(outputs.ravel(), expected, rtol=1e-6)


def test_overconfident_outputs_are_tempered():
    rng = np.random.default_rng(0)
    score = rng.normal(size=2000)
    y = (rng.random(2000) < expit(score)).astype(float)
    outputs, none = np.stack([0 * score, 5 * score], axis=1), np.zeros((2000, 2, 2))
    predictor = ClassPredictor(["a", "b"], LinearMap(np.eye(2), np.zeros(2)))
    predictor.fit_law(outputs, none, y, y)
    np.testing.assert_allclose(np.exp(predictor.law["log_factor"]), 0.2, rtol=0.15)
    p = prediction(predictor, outputs, none)["b"]
    assert log_loss(y, p) < log_loss(y, expit(5 * score)) - 0.3
    for low in (0.1, 0.3, 0.5, 0.7):  # the standard error is at most 0.03
        chosen = (p > low) & (p < low + 0.2)
        assert abs(y[chosen].mean() - p[chosen].mean()) < 0.09


def test_what_is_uncertain_of_an_embedding_is_averaged():
    predictor = ClassPredictor(["a", "b"], LinearMap(np.eye(2), np.zeros(2)))
    predictor.law = {"log_prior": np.log([0.5, 0.5]), "log_factor": np.zeros(1)}
    z = np.array([[0.0, 2.0]])
    covariance = np.zeros((1, 2, 2))
    sure = prediction(predictor, z, covariance)["b"][0]
    assert sure == pytest.approx(expit(2))
    covariance[0, 1, 1] = 9.0
    t = np.random.default_rng(1).normal(2, 3, 100_000)
    assert prediction(predictor, z, covariance)["b"][0] == pytest.approx(expit(t).mean(), abs=0.03)
    samples = draws(np.zeros((1, 2)), np.array([[[2.0, 1.0], [1.0, 3.0]]]))[:, 0]
    np.testing.assert_allclose(samples.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(samples.T, bias=True), [[2, 1], [1, 3]], rtol=1e-6)


def test_ordered_levels_are_calibrated():
    rng = np.random.default_rng(0)
    score = 3 * rng.normal(size=3000)
    y = (rng.logistic(size=3000) + score > [[-1.0], [2.0]]).sum(axis=0).astype(float)
    predictor = OrderedPredictor(["I", "II", "III"], LinearMap(np.ones((1, 1)), np.zeros(1)))
    none = np.zeros((3000, 1, 1))
    predictor.fit_law(score[:, None], none, y, y)
    table = prediction(predictor, score[:, None], none)
    truth = expit(-1.0 - score)
    np.testing.assert_allclose(table["I"], truth, atol=0.05)
    np.testing.assert_allclose(sum(table.values()), 1)


def test_few_numbers_have_intervals_without_end():
    predictor = NumericPredictor([], LinearMap(np.ones((1, 1)), np.zeros(1)))
    y = np.arange(8.0)
    predictor.fit_law(np.zeros((8, 1)), np.zeros((8, 1, 1)), y, y)
    table = prediction(predictor, np.zeros((1, 1)), np.zeros((1, 1, 1)))
    assert np.isinf(table["upper"][0])
    assert np.isfinite(table["sd"][0])


def test_groups_are_predicted_by_maps_that_have_not_seen_them():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(40, 80)), np.arange(40) % 2
    unseen = cross_fit(groups(z, y), "categorical", [0, 1], 0)
    assert sorted(unseen.rows) == list(range(40))
    right = (unseen.outputs.argmax(axis=1) == unseen.y).mean()
    assert 0.2 < right < 0.8  # there is nothing to learn: 40 coins, 4 standard errors
    once = np.where(np.arange(40) == 7, 2, y)
    unseen = cross_fit(groups(z, once), "categorical", [0, 1, 2], 0)
    assert sorted(set(range(40)) - set(unseen.rows)) == [7]


def memorised(*, informative):
    """Embeddings with 4 frozen entries that say a little, and one that knows the labels of all but the judges."""
    rng = np.random.default_rng(0)
    n = 200
    y = np.arange(n) % 2
    judge = np.arange(n) >= 150
    frozen = rng.normal(size=(n, 4))
    frozen[:, 0] += 0.8 * y
    code = (4.0 if informative else 0.0) * (y - 0.5) + rng.normal(size=n)
    code = np.where(judge, code, 20 * (y - 0.5))
    return groups(np.column_stack([frozen, code]), y, judge=judge)


@pytest.mark.parametrize("informative", [False, True])
def test_entries_that_have_seen_labels_are_judged_by_labels_that_they_have_not(informative):
    data = memorised(informative=informative)
    predictor, name = fit_predictor(data, "categorical", [0, 1], 4, 0)
    assert name == ("joint" if informative else "linear")
    new = memorised(informative=informative)
    z, y = new.z[150:], new.y[150:]
    p = prediction(predictor, z, np.zeros((50, 5, 5)))[1]
    assert log_loss(y, p) < (0.45 if informative else 0.69)
    if not informative:
        assert (predictor.linear.coef[4] == 0).all()


def test_too_few_judges_choose_nothing():
    data = memorised(informative=True)
    few = groups(data.z, data.y, judge=np.arange(200) >= 195)
    assert fit_predictor(few, "categorical", [0, 1], 4, 0)[1] == "linear"
