"""Palettes and names."""

import numpy as np
import pandas as pd
import pytest

from scgde.pl._color import MISSING, encode, palette
from scgde.pl._style import shorten


@pytest.mark.parametrize("n", [1, 2, 8, 9, 18, 19, 300, 3000])
def test_colours_of_categories_are_distinct_and_none_passes_for_missing(n):
    colors = np.array(palette(n))
    assert len(np.unique(colors.round(9), axis=0)) == n
    assert np.abs(colors - MISSING).max(axis=1).min() > 0.05


def test_few_categories_get_the_colour_blind_safe_palette():
    assert len({*palette(8)} & {*palette(3)}) == 3
    assert palette(1) == [pytest.approx((0, 0x72 / 255, 0xB2 / 255, 1))]


@pytest.mark.parametrize(
    ("values", "categories"),
    [
        (["b10", "b2", None], ["b2", "b10"]),
        ([True, None, False], ["False", "True"]),
        (pd.array([True, None, False], dtype="boolean"), ["False", "True"]),
        (pd.Categorical(["lo", "hi", None], categories=["lo", "mid", "hi"], ordered=True), ["lo", "hi"]),
        (["a", np.nan, 1], ["1", "a"]),
    ],
)
def test_categories_keep_their_order_and_missing_ones_are_grey(values, categories):
    colors = encode(values)
    assert list(colors.categories) == categories
    np.testing.assert_array_equal(colors.missing, pd.isna(pd.Series(values)))
    np.testing.assert_array_equal(colors.rgba[colors.missing], [MISSING])


@pytest.mark.parametrize("values", [[1, 2, None], [1.0, np.inf, 2.0], pd.array([3, None, 4], dtype="Int64")])
def test_numbers_are_on_a_scale_and_not_finite_ones_are_grey(values):
    colors = encode(values)
    assert not colors.categories
    assert colors.missing.sum() == 1
    np.testing.assert_allclose(colors.mappable.to_rgba(colors.mappable.get_clim()[0]), colors.rgba[0])
    np.testing.assert_array_equal(colors.rgba[colors.missing], [MISSING])


def test_values_that_are_all_missing_or_all_equal():
    assert encode([np.nan, np.nan]).missing.all()
    assert encode(pd.Categorical([None, None])).missing.all()
    low, high = encode([2.0, 2.0]).mappable.get_clim()
    assert low < 2 < high


def test_long_names_keep_both_ends():
    assert shorten("short") == "short"
    assert shorten("hospital_number_one_donor_17", 12) == "hospital…_17"
    assert shorten("cost $5 and $6") == r"cost \$5 and \$6"
