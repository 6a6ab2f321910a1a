"""Intervals that know that folds overlap."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scgde.prediction._summary import compare, corrected_interval, summarize


def test_closed_form():
    values = np.array([0.6, 0.7, 0.8, 0.9, np.nan])
    interval = corrected_interval(values, 0.25)
    sd = np.std(values[:4], ddof=1)
    error = sd * np.sqrt(1 / 4 + 0.25)
    assert interval["mean"] == pytest.approx(0.75)
    assert interval["n_folds"] == 4
    assert interval["upper"] - 0.75 == pytest.approx(stats.t.ppf(0.975, 3) * error)
    assert 0.75 - interval["lower"] == pytest.approx(stats.t.ppf(0.975, 3) * error)
    assert interval["p_value"] == pytest.approx(2 * stats.t.sf(0.75 / error, 3))
    # Without overlap it is the t-test of one sample.
    assert corrected_interval(values, 0.0)["p_value"] == pytest.approx(stats.ttest_1samp(values[:4], 0).pvalue)


def test_few_or_equal_values():
    assert np.isnan(corrected_interval(np.array([0.5]), 0.25)["lower"])
    assert np.isnan(corrected_interval(np.array([np.nan]), 0.25)["mean"])
    assert corrected_interval(np.zeros(3), 0.25)["p_value"] == 1
    assert corrected_interval(np.ones(3), 0.25)["p_value"] == 0


def test_advantage_is_positive_where_the_model_is_better():
    rows = [
        {"repeat": 0, "fold": fold, "model": model, "metric": metric, "value": value + 0.01 * fold * (model == "a")}
        for fold in range(3)
        for model, metric, value in (("a", "auc", 0.9), ("b", "auc", 0.7), ("a", "loss", 0.3), ("b", "loss", 0.6))
    ]
    scores = pd.DataFrame(rows)
    table = compare(scores, ["b"], {"auc": True, "loss": False}, 0.5).set_index("metric")
    assert list(table["model"]) == ["a", "a"]
    assert table.loc["auc", "advantage"] == pytest.approx(0.21)
    assert table.loc["loss", "advantage"] == pytest.approx(0.29)
    own = summarize(scores, 0.5).set_index(["model", "metric"])
    assert own.loc[("a", "auc"), "mean"] == pytest.approx(0.91)


def test_intervals_of_repeated_folds_are_wide_enough():
    """The mean of labels that are coins: nothing is learned, and the naive interval of 40 folds covers too rarely."""
    rng = np.random.default_rng(0)
    covered = naive = 0
    for _ in range(300):
        y = rng.normal(size=40)
        values = np.array([y[order].reshape(4, 10).mean(1) for order in (rng.permutation(40) for _ in range(10))])
        noisy = values.ravel()
        interval = corrected_interval(noisy, 1 / 3)
        covered += interval["lower"] < 0 < interval["upper"]
        naive += abs(stats.ttest_1samp(noisy, 0).statistic) < stats.t.ppf(0.975, 39)
    # Binomial(300, .95) is at least 270 with probability .9997.
    assert covered >= 270
    assert naive < covered
