"""Mutual information against scikit-learn and closed forms."""

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from scgde.metrics import mutual_information


@pytest.mark.parametrize("k", [3, 7])
def test_one_coordinate_equals_sklearn(k):
    rng = np.random.default_rng(0)
    z = rng.standard_normal(300)
    y, label = z + 0.5 * rng.standard_normal(300), (z + 0.5 * rng.standard_normal(300) > 0.3).astype(int)
    continuous = mutual_info_regression(z[:, None], y, n_neighbors=k, random_state=0)[0]
    # scikit-learn adds noise of 1e-10 against ties, and scales by the sd.
    assert mutual_information(z, y, n_neighbors=k) == pytest.approx(continuous, rel=1e-6)
    classes = mutual_info_classif(z[:, None], label, discrete_features=False, n_neighbors=k, random_state=0)[0]
    assert mutual_information(z, label, n_neighbors=k) == pytest.approx(classes, rel=1e-6)


def test_gaussians_have_a_closed_form():
    rng = np.random.default_rng(1)
    z = rng.standard_normal((4000, 2))
    other = 0.8 * z + 0.6 * rng.standard_normal((4000, 2))
    # Two pairs of correlation .8, each with -log(1 - .64) / 2 nats; the standard error is about .02.
    assert mutual_information(z, other) == pytest.approx(-np.log(1 - 0.64), abs=0.08)
    assert mutual_information(z, rng.standard_normal((4000, 2))) == pytest.approx(0, abs=0.08)


def test_classes_apart_give_their_entropy():
    rng = np.random.default_rng(2)
    label = np.repeat(["a", "b", "c", "d"], 100)
    z = rng.standard_normal((400, 3)) + 50 * np.repeat(np.arange(4), 100)[:, None]
    assert mutual_information(z, label) == pytest.approx(np.log(4), abs=0.01)
    assert mutual_information(z, pd.Categorical(label)) == mutual_information(z, label)
    # No signal: the standard error is about .05.
    assert abs(mutual_information(z, rng.permutation(label))) < 0.2


def test_scale_and_groups_without_a_value_change_nothing():
    rng = np.random.default_rng(3)
    z, y = rng.standard_normal((80, 2)), rng.standard_normal(80)
    expected = mutual_information(z, y)
    assert mutual_information(pd.DataFrame(100 * z), 3 * y + 1) == pytest.approx(expected, rel=1e-9)
    longer = np.concatenate([y, [np.nan, np.nan]])
    assert mutual_information(np.vstack([z, z[:2]]), longer) == expected
    label = np.array(["a", "b"] * 40 + [None, "alone"], dtype=object)
    assert mutual_information(np.vstack([z, z[:2]]), label) == mutual_information(z, label[:80])


def test_whole_numbers_are_classes_unless_told():
    rng = np.random.default_rng(4)
    age = rng.integers(20, 80, 200)
    z = age[:, None] + rng.standard_normal((200, 1))
    assert mutual_information(z, age, discrete=False) == mutual_information(z, age.astype(float))
    assert mutual_information(z, age) != mutual_information(z, age, discrete=False)


@pytest.mark.parametrize(
    ("z", "values", "message"),
    [
        (np.zeros((5, 2)), np.zeros(4), "there are 4 values"),
        (np.full((5, 2), np.nan), np.zeros(5), "expected finite embeddings"),
        (np.zeros((4, 2)), np.array([1.0, 2.0, np.nan, np.nan]), "with 2 usable groups"),
        (np.zeros((4, 2)), np.array(["a", "b", "c", "d"]), "with 0 usable groups"),
    ],
)
def test_bad_input_is_named(z, values, message):
    with pytest.raises(ValueError, match=message):
        mutual_information(z, values)
