"""One pass over obs makes the groups, in the user's dtypes."""

import numpy as np
import pandas as pd
import pytest

from scgde.data import GroupIndex, _groups
from scgde.data._groups import by_group

COLUMNS = {
    "str": pd.Series(["b", "a", "b", "c"]),
    "string": pd.Series(["b", "a", "b", "c"], dtype="string"),
    "int with gaps": pd.Series([30, -2, 30, 700]),
    "int8": pd.Series([3, 1, 3, 7], dtype="int8"),
    "nullable int": pd.Series([3, 1, 3, 7], dtype="Int64"),
    "float": pd.Series([1.5, 0.25, 1.5, 7.0]),
    "bool": pd.Series([True, False, True, True]),
    "datetime": pd.Series(pd.to_datetime(["2024-02-01", "2024-01-01", "2024-02-01", "2025-01-01"])),
    "categorical": pd.Series(pd.Categorical(list("babc"), categories=list("cxba"))),
    "ordered": pd.Series(pd.Categorical(list("babc"), categories=list("cxba"), ordered=True)),
    "int categorical": pd.Series(pd.Categorical([3, 1, 3, 7], categories=[7, 5, 3, 1])),
}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS.keys())
def test_values_keep_their_dtype_and_order(column):
    index = GroupIndex.from_obs(pd.DataFrame({"g": column}), ["g"])
    assert index.table["g"].dtype == column.dtype
    assert index.index.dtype == column.dtype
    assert index.index.name == "g"
    assert [index.names[code] for code in index.codes] == column.tolist()
    assert index.names == column.sort_values().drop_duplicates().tolist()
    assert index.counts.tolist() == [index.codes.tolist().count(i) for i in range(len(index))]
    np.testing.assert_array_equal(index.positions(index.names), np.arange(len(index)))


def test_values_of_several_types_are_sorted_by_their_text():
    index = GroupIndex.from_obs(pd.DataFrame({"g": pd.Series(["b", 2, "a", 2], dtype=object)}), ["g"])
    assert index.names == [2, "a", "b"]
    assert index.codes.tolist() == [2, 0, 1, 0]


def test_values_without_a_common_order_are_sorted_by_their_text_too():
    stamp = pd.Timestamp("2024-01-01")
    index = GroupIndex.from_obs(pd.DataFrame({"g": pd.Series(["b", stamp, 3, None, "b"], dtype=object)}), ["g"])
    assert index.names == [stamp, 3, "b"]
    assert index.codes.tolist() == [2, 0, 1, -1, 2]


def test_missing_values_make_no_group():
    obs = pd.DataFrame({"g": ["b", None, "a"], "h": pd.Categorical([1, 2, np.nan])})
    index = GroupIndex.from_obs(obs, ["g", "h"])
    assert index.codes.tolist() == [0, -1, -1]
    assert index.names == [("b", 1)]


def test_two_columns_make_tuples_of_the_pairs_that_occur():
    obs = pd.DataFrame({"clone": ["b", "a", "b", "a"], "day": pd.Categorical([6, 4, 4, 4], categories=[6, 4, 2])})
    index = GroupIndex.from_obs(obs, ["clone", "day"])
    assert index.names == [("a", 4), ("b", 6), ("b", 4)]
    assert index.codes.tolist() == [1, 0, 2, 0]
    assert index.table["day"].dtype == obs["day"].dtype
    assert index.index.names == ["clone", "day"]
    assert index.positions(("b", "4")).tolist() == [2]
    assert index.positions([("b", 4), ("a", 4)]).tolist() == [2, 0]


def test_keys_match_by_value_then_by_unique_text():
    index = GroupIndex.from_obs(pd.DataFrame({"g": pd.Series([1, "1", 2, "x"], dtype=object)}), ["g"])
    assert index.positions(1).tolist() == [index.names.index(1)]
    assert index.positions("1").tolist() == [index.names.index("1")]
    assert index.positions("2").tolist() == [index.names.index(2)]
    assert index.positions(np.array(["x", "2"])).tolist() == [index.names.index("x"), index.names.index(2)]


def test_unknown_key_names_near_ones():
    index = GroupIndex.from_obs(pd.DataFrame({"donor": ["donor_1", "donor_2"]}), ["donor"])
    with pytest.raises(KeyError, match=r"'donr_1' is not in the groups \(donor\). Did you mean 'donor_1'"):
        index.positions("donr_1")


def test_key_that_cannot_be_one_says_what_a_key_is():
    index = GroupIndex.from_obs(pd.DataFrame({"donor": ["donor_1", "donor_2"]}), ["donor"])
    with pytest.raises(TypeError, match=r"received dict.*one value.*tuple"):
        index.positions({"donor": 1})


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_cells_are_looked_at_in_parts_of_any_size(monkeypatch, size):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"g": rng.choice(["b", "a", None, "c"], 200), "day": rng.integers(3, 6, 200)})
    whole = GroupIndex.from_obs(obs, ["g", "day"])
    monkeypatch.setattr(_groups, "CODES_AT_A_TIME", size)
    index = GroupIndex.from_obs(obs, ["g", "day"])
    np.testing.assert_array_equal(index.codes, whole.codes)
    assert index.names == whole.names
    order, starts = by_group(index.codes, len(index))
    np.testing.assert_array_equal(order, np.argsort(index.codes, kind="stable")[(index.codes < 0).sum() :])
    np.testing.assert_array_equal(np.diff(starts), np.bincount(index.codes[index.codes >= 0]))
    np.testing.assert_array_equal(np.diff(starts), index.counts)
