"""Labels of groups as numbers."""

import numpy as np
import pandas as pd
import pytest

from scgde.data._labels import Label

MISSING = None


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        (["b", "a", MISSING], "categorical", ["a", "b"]),
        ([True, False, MISSING], "categorical", [False, True]),
        (pd.array([True, False, MISSING], dtype="boolean"), "categorical", [False, True]),
        ([0, 1, 1], "categorical", [0, 1]),
        (pd.array([1, 5, MISSING], dtype="Int64"), "categorical", [1, 5]),
        ([1.5, 2.0, 9.0], "numeric", []),
        (pd.array([1, 5, 7, MISSING], dtype="Int64"), "numeric", []),
        (pd.Categorical(["lo", "hi", "mid"], ["lo", "mid", "hi"], ordered=True), "ordered", ["lo", "mid", "hi"]),
        (pd.Categorical(["x", "y", "z"]), "categorical", ["x", "y", "z"]),
        (pd.array(["x", MISSING, "y"], dtype="string"), "categorical", ["x", "y"]),
    ],
)
def test_kinds_and_classes(values, kind, classes):
    table = pd.DataFrame({"label": values})
    label = Label.of("label", table)
    assert (label.kind, label.classes) == (kind, classes)
    y = label.numbers(table)
    assert y.shape == (len(table), 1)
    np.testing.assert_array_equal(np.isnan(y[:, 0]), table["label"].isna())
    if classes:
        known = table["label"].notna()
        assert [classes[int(i)] for i in y[known.to_numpy(), 0]] == table["label"][known].tolist()


def test_several_binary_columns():
    table = pd.DataFrame({"AD": [True, False, None], "PD": [1.0, np.nan, 0.0]})
    label = Label.of("diagnosis", table, ["AD", "PD"])
    assert (label.kind, label.classes, label.width) == ("multilabel", ["AD", "PD"], 2)
    np.testing.assert_array_equal(label.numbers(table), [[1, 1], [0, np.nan], [np.nan, 0]])


def test_a_label_is_restored_from_its_state():
    label = Label.of("label", pd.DataFrame({"label": ["a", "b"]}))
    assert Label(**label.state()) == label


def test_words_among_numbers_are_refused_by_name():
    label = Label.of("age", pd.DataFrame({"age": [1.0, 2.0, 3.0]}))
    with pytest.raises(ValueError, match="'age' holds 'old', expected numbers"):
        label.numbers(pd.DataFrame({"age": [1.0, "old"]}))
