"""Heads: the same as plain scikit-learn where it can be compared, and the choices they make."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from scgde.prediction import _heads
from scgde.prediction._heads import DEFAULT_ALPHA, fit_head


@pytest.mark.parametrize("n_features", [3, 50])
def test_rotation_changes_no_prediction(n_features, monkeypatch):
    monkeypatch.setattr(_heads, "CommonScaler", StandardScaler)
    monkeypatch.setattr(_heads, "_inner_splits", lambda *_: [])
    rng = np.random.default_rng(0)
    x, y, new = rng.normal(size=(20, n_features)) * 3, rng.normal(size=20), rng.normal(size=(5, n_features))
    scaler = StandardScaler().fit(x)
    plain = Ridge(alpha=DEFAULT_ALPHA).fit(scaler.transform(x), y)
    np.testing.assert_allclose(
        fit_head(x, y, np.arange(20), "numeric", 0)(new), plain.predict(scaler.transform(new)), rtol=1e-8
    )


def made(scale, seed=0, n=80):
    """One informative feature among 300, of a size of its own."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, 300))
    x[:, 0] += 1.5 * y
    return x * np.where(np.arange(300) == 0, scale, 1), y.astype(float)


def test_large_features_count_for_more_where_that_predicts_better():
    def auc(scale):
        (x, y), (new, truth) = made(scale), made(scale, seed=1)
        return roc_auc_score(truth, fit_head(x, y, np.arange(80), "categorical", 0)(new)[:, 1])

    assert auc(10.0) > 0.8 > auc(1.0)


def test_penalty_is_chosen_by_what_predicts():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 30))
    signal, noise = x @ rng.normal(size=30), 3 + rng.normal(size=60)
    new = rng.normal(size=(200, 30))
    assert np.std(fit_head(x, noise, np.arange(60), "numeric", 0)(new)) < 0.3
    np.testing.assert_allclose(fit_head(x, signal, np.arange(60), "numeric", 0)(x), signal, atol=0.5)


@pytest.mark.parametrize(("y", "kind"), [([0, 1], "categorical"), ([0, 1, 1, 1], "categorical"), ([2.0], "numeric")])
def test_few_labels_need_no_choice(y, kind):
    x = np.random.default_rng(0).normal(size=(len(y), 3))
    predicted = fit_head(x, np.array(y, dtype=float), np.arange(len(y)), kind, 0)(x)
    assert np.isfinite(predicted).all()


def test_inner_folds_keep_units_whole():
    unit = np.repeat(np.arange(8), 3)
    splits = _heads._inner_splits(np.repeat(np.arange(8) % 2, 3), unit, True, 0)
    assert splits
    for train, test in splits:
        assert not set(unit[train]) & set(unit[test])


@pytest.mark.parametrize("kind", ["categorical", "numeric"])
def test_a_head_per_block_finds_the_block_that_tells(kind: str) -> None:
    """Few informative features among many without meaning, which are larger."""
    rng = np.random.default_rng(0)
    y = np.repeat([0.0, 1.0], 40)
    told, noise = rng.normal(size=(80, 2)) + 1.5 * y[:, None], 10 * rng.normal(size=(80, 60))
    x, train = np.hstack([noise, told]), np.arange(80) % 2 == 0

    def error(sizes):
        head = fit_head(x[train], y[train], np.arange(40), kind, 0, sizes)
        predicted = head(x[~train])
        assert len(predicted) == 40
        predicted = predicted[:, 1] if kind == "categorical" else predicted
        return np.square(predicted - y[~train]).mean()

    assert error([60, 2]) < 0.9 * error(None)


def test_one_block_is_the_plain_head() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 4)), np.arange(30) % 3.0
    plain, one = (fit_head(x, y, np.arange(30), "categorical", 0, sizes)(x) for sizes in (None, [4]))
    np.testing.assert_array_equal(plain, one)
    np.testing.assert_allclose(plain.sum(1), 1)
