"""Saving, showing, palettes, and the rules that all functions share."""

import inspect

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scgde import pl
from scgde.pl._color import MISSING, encode, palette
from scgde.pl._style import shorten


@pytest.fixture
def calls(make_groups, make_cells):
    groups = make_groups(5)
    distances = pd.DataFrame(1 - np.eye(3), index=list("abc"), columns=list("abc"))
    path = make_cells(40)
    path.obs["t"] = np.repeat([0.0, 1.0], 20)
    return {
        "embedding": lambda **options: pl.embedding(groups, **options),
        "enough_cells": lambda **options: pl.enough_cells(make_groups(5, se=True), **options),
        "generated_vs_real": lambda **options: pl.generated_vs_real(make_cells(30), make_cells(30), **options),
        "group_distances": lambda **options: pl.group_distances(distances, **options),
        "history": lambda **options: pl.history({"train_loss": pd.DataFrame({"train_loss": [2.0, 1.0]})}, **options),
        "interpolation": lambda **options: pl.interpolation(path, **options),
    }


@pytest.mark.parametrize("name", pl.__all__)
def test_ax_show_and_save_as_in_scanpy(calls, name, tmp_path, monkeypatch, assert_inside):
    options = inspect.signature(getattr(pl, name)).parameters
    assert all(options[key].kind is inspect.Parameter.KEYWORD_ONLY for key in ("ax", "show", "save"))

    figure, ax = plt.subplots(layout="constrained")
    assert calls[name](ax=ax) is ax
    assert ax.has_data()
    assert plt.get_fignums() == [figure.number]

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    drawn = calls[name](save=tmp_path / "figure.png", show=False)
    own = np.ravel(drawn)[0].figure
    assert own.get_figwidth() == pytest.approx(3.5)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert_inside(own)
    assert not shown
    assert calls[name](show=True) is None
    assert shown == [True]
    assert len(plt.get_fignums()) == 3


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
