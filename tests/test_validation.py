"""Messages name what was received, what was expected and the remedy."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scgde import _validation as check

NAMES = pd.Index(["c0", "c1", "c2", "c3"])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        (["a", 1, ("b", 2)], "'a', 1, ('b', 2)"),
        (np.array([3, 4]), "3, 4"),
        (range(7), "0, 1, 2, 3, 4, … (2 more)"),
    ],
)
def test_listing(values, text):
    assert check.listing(values) == text


def test_unknown_keys_find_near_ones_of_any_type():
    error = check.unknown_key("12", [11, 12, 13, "x"], "the days")
    assert error.args[0] == "'12' is not in the days. Did you mean 12, 13, 11? There are: 11, 12, 13, 'x'."
    error = check.unknown_key("zebra", map(str, range(12)), "the days")
    assert error.args[0] == (
        "'zebra' is not in the days. There are: '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', … (2 more)."
    )


@pytest.mark.parametrize("form", [np.array, sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_finite(form, bad):
    x = np.zeros((4, 3), np.float32)
    x[1, 2] = 5
    check.check_finite(form(x), NAMES, "X")
    x[[1, 3], 0] = bad
    with pytest.raises(ValueError, match=r"X holds NaN or infinity in 2 of 4 cells \('c1', 'c3'\). Remove these cells"):
        check.check_finite(form(x), NAMES, "X")


def test_numbers():
    for dtype in (bool, "int8", "float16", "float64"):
        check.check_finite(np.ones((4, 2), dtype), NAMES, "X")
    with pytest.raises(TypeError, match="X holds values of type object, expected numbers. Convert them"):
        check.check_finite(np.full((4, 2), "a", dtype=object), NAMES, "X")


def test_constant_values_keep_their_type_and_may_be_missing():
    codes = np.array([0, 0, 1, 1, -1])
    values = pd.Series(pd.Categorical(["a", None, None, None, "b"], categories=["c", "b", "a"]), name="label")
    result = check.check_constant(values, codes, ["x", "y"], "labels")
    assert result.dtype == values.dtype
    assert result.isna().tolist() == [False, True]
    whole = check.check_constant(pd.Series([1, 1, 2, 2, 9], name="n"), codes, ["x", "y"], "labels")
    assert whole.tolist() == [1, 2]
    assert whole.dtype == np.int64


def test_values_that_vary():
    codes = np.array([0, 0, 1, 1, 2])
    with pytest.raises(
        ValueError, match=r"\['n'\] \(labels=\) is not constant within 2 of 3 groups: 'x', 'y'"
    ) as error:
        check.check_constant(pd.Series([1, 2, 3, 4, 5], name="n"), codes, ["x", "y", "z"], "labels")
    assert "group 'x' has 1, 2" in str(error.value)


def test_group_sizes():
    check.check_group_sizes(np.array([1, 5]), ["a", "b"], 1)
    message = r"2 of 3 groups have fewer than min_cells=4 cells \('a: 1 cells', 'c: 3 cells'\). Lower min_cells"
    with pytest.raises(ValueError, match=message):
        check.check_group_sizes(np.array([1, 5, 3]), ["a", "b", "c"], 4)


def test_positions_of_variables():
    received = pd.Index(["d", "b", "a", "d"])
    assert check.check_var_names(received, ["a", "b"], "the model").tolist() == [2, 1]
    assert check.check_var_names(pd.Index([10, 20]), ["20", "10"], "the model").tolist() == [1, 0]
    with pytest.raises(ValueError, match="1 of the 2 variables that the model reads occur several times .*: 'd'"):
        check.check_var_names(received, ["a", "d"], "the model")
    with pytest.raises(ValueError, match="1 of the 2 variables that the model reads are not in adata.var_names: 'e'"):
        check.check_var_names(received, ["a", "e"], "the model")
