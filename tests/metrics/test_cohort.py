"""Cohort metrics against scikit-learn's neighbours and cases that are known."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from sklearn.metrics import f1_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from scgde.metrics import batch_removal, replicate_robustness, signal_retention


@pytest.fixture
def groups():
    rng = np.random.default_rng(0)
    label = rng.permutation(np.arange(60) % 3)
    z = rng.standard_normal((60, 2)) + 1.2 * label[:, None]
    return z, cdist(z, z), label


# With three classes and an odd number of neighbours ties remain, which are broken differently; one neighbour has none.
@pytest.mark.parametrize("k", [1, 5])
def test_two_classes_equal_sklearn(k, groups):
    z, distances, label = groups
    label = label > 0
    predicted = cross_val_predict(KNeighborsClassifier(k), z, label, cv=LeaveOneOut())
    expected = 2 * f1_score(label, predicted, average="macro") - 1
    assert signal_retention(distances, label, n_neighbors=k) == pytest.approx(expected)
    assert batch_removal(distances, label, n_neighbors=k) == pytest.approx(1 - expected)


def test_numbers_equal_sklearn(groups):
    z, distances, _ = groups
    values = z[:, 0] + 0.1 * np.arange(60)
    predicted = cross_val_predict(KNeighborsRegressor(5), z, values, cv=LeaveOneOut())
    assert signal_retention(distances, values) == pytest.approx(spearmanr(values, predicted).statistic)
    assert signal_retention(distances, np.arange(60), discrete=False) == signal_retention(distances, np.arange(60.0))


def test_classes_far_apart_are_kept_and_shuffled_ones_are_not():
    z = np.repeat([0.0, 10, 20], 40)[:, None] + np.random.default_rng(1).standard_normal((120, 1))
    distances, label = cdist(z, z), np.repeat(["a", "b", "c"], 40)
    assert signal_retention(distances, label) == 1
    assert batch_removal(distances, label) == 0
    shuffled = np.random.default_rng(2).permutation(label)
    # Three classes of 40: a standard error of about .07.
    assert abs(signal_retention(distances, shuffled)) < 0.25
    assert 0.75 < batch_removal(distances, shuffled) <= 1


def test_groups_without_a_value_are_left_out(groups):
    _, distances, label = groups
    some = pd.Series(label.astype(float)).where(np.arange(60) < 50)
    expected = signal_retention(distances[:50, :50], label[:50])
    assert signal_retention(pd.DataFrame(distances), some, discrete=True) == expected


def test_a_tied_vote_goes_to_the_nearest():
    z = np.array([0.0, 1.0, 2.5, 100.0, 101.0, 102.0])[:, None]
    label = ["a", "a", "b", "b", "b", "b"]
    # Two neighbours of the first: "a" at 1 and "b" at 2.5; of the third: "a" and "a".
    predicted = ["a", "a", "a", "b", "b", "b"]
    expected = 2 * f1_score(label, predicted, average="macro") - 1
    assert signal_retention(cdist(z, z), label, n_neighbors=2) == pytest.approx(expected)


def test_replicates():
    z = np.array([0.0, 0.1, 5.0, 5.1, 9.0])[:, None]
    units = ["p", "p", "q", "q", "r"]
    assert replicate_robustness(cdist(z, z), units) == 1
    # From 0, the replicate at 10 and others at 1 and 20; from 10, the replicate at 0 and others at 9 and, tied, at 10.
    ends = np.array([0.0, 10, 1, 2, 20])[:, None]
    assert replicate_robustness(cdist(ends, ends), ["p", "p", "q", None, "s"]) == pytest.approx((0.5 + 0.25) / 2)


def test_replicates_at_random_and_ties_are_one_half():
    rng = np.random.default_rng(3)
    z = rng.standard_normal((400, 3))
    # 200 pairs, of standard error .29 / sqrt(200) = .02 each.
    assert replicate_robustness(cdist(z, z), np.repeat(np.arange(200), 2)) == pytest.approx(0.5, abs=0.08)
    assert replicate_robustness(1 - np.eye(6), [0, 0, 1, 1, 2, 2]) == 0.5


@pytest.mark.parametrize(
    ("function", "distances", "values", "message"),
    [
        (signal_retention, np.zeros((3, 4)), [0, 1, 0], r"shape \(3, 4\): expected \(3, 3\)"),
        (signal_retention, np.full((9, 9), np.nan), [0, 1, 1] * 3, "81 NaN or infinite"),
        (signal_retention, np.zeros((9, 9)), [1] * 9, "1 of them distinct"),
        (batch_removal, np.zeros((4, 4)), [0, 1, 1, 0], "4 groups have a value"),
        (replicate_robustness, np.zeros((3, 3)), [0, 1, 2], "3 groups belong to 3 units"),
        (replicate_robustness, np.zeros((3, 3)), [0, 0, 0], "3 groups belong to 1 units"),
    ],
)
def test_bad_input_is_named(function, distances, values, message):
    with pytest.raises(ValueError, match=message):
        function(distances, values)
