"""The order of times."""

import numpy as np
import pandas as pd
import pytest

from scgde.data._times import time_values


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series([10, 2, 10]), [10, 2, 10]),
        (pd.Series([0.5, 2.0]), [0.5, 2]),
        (pd.Series(["10", "2"]), [10, 2]),
        (pd.Series(pd.Categorical(["10", "2"])), [10, 2]),
        (pd.Series(pd.Categorical(["10", "2"], categories=["2", "10", "30"], ordered=True)), [10, 2]),
        (pd.Series(pd.Categorical(["7d", "8h"], categories=["8h", "1d", "7d"], ordered=True)), [2, 0]),
        (pd.Series(pd.Categorical(["1", "2"], categories=["2", "1"], ordered=True)), [1, 0]),
    ],
)
def test_order(column, expected):
    np.testing.assert_array_equal(time_values(column), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["8h", "7d"], "'8h', '7d', which have no order. Pass a numeric column"),
        (pd.Categorical(["early", "late"]), "no order"),
        (["1", "1.0"], "several values for one time"),
    ],
)
def test_no_order(values, message):
    with pytest.raises(ValueError, match=message):
        time_values(pd.Series(values, name="day"))
