"""Cross-validated scores, and what drives predictions."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba

from scgde import pl
from scgde.pl._attribution import AGAINST, FOR
from scgde.pl._cross_validation import TRIVIAL
from scgde.prediction import CrossValidation
from scgde.prediction._summary import compare, summarize

MODELS = {"pseudobulk": 0.7, "gde": 0.9, "majority": 0.5, "permuted": 0.45}


@pytest.fixture
def result(rng):
    rows = []
    for fold in range(8):
        for model, level in MODELS.items():
            auc = level + 0.02 * rng.normal()
            rows += [(0, fold, model, "auc", auc), (0, fold, model, "log_loss", 1 - auc)]
    scores = pd.DataFrame(rows, columns=["repeat", "fold", "model", "metric", "value"])
    baselines = ["pseudobulk", "majority", "permuted"]
    table = compare(scores, baselines, {"auc": True, "log_loss": False}, 0.25)
    return CrossValidation(scores, summarize(scores, 0.25), table, pd.DataFrame(), {})


def _names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def _points(ax):
    """Means by row: (row, x, colour, filled), and intervals by row."""
    dots = [line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    bars = [line for line in ax.lines if line.get_marker() == "None" and line.get_linestyle() == "-"]
    return dots, [line for line in bars if len(set(line.get_ydata())) == 1]


@pytest.mark.parametrize("metric", [None, "log_loss"])
def test_the_best_model_comes_first_with_its_interval(result, metric):
    ax = pl.cross_validation(result, metric=metric)
    assert _names(ax) == ["gde", "pseudobulk", "majority", "permuted"]
    dots, bars = _points(ax)
    summary = result.summary[result.summary["metric"] == (metric or "auc")].set_index("model").loc[_names(ax)]
    np.testing.assert_allclose([dot.get_xdata()[0] for dot in dots], summary["mean"])
    np.testing.assert_allclose([bar.get_xdata() for bar in bars], summary[["lower", "upper"]])
    assert [dot.get_markerfacecolor() for dot in dots[2:]] == [to_rgba(TRIVIAL)] * 2
    dashed = next(line for line in ax.lines if line.get_linestyle() == "--")
    assert dashed.get_xdata()[0] == pytest.approx(summary.loc["majority", "mean"])
    assert ("lower" if metric else "higher") in ax.get_xlabel()


def test_models_colours_and_folds(result):
    ax = pl.cross_validation(result, models=["gde", "majority"], color={"majority": "red"}, folds=False)
    dots, _ = _points(ax)
    assert [dot.get_markerfacecolor() for dot in dots] == [to_rgba(TRIVIAL), to_rgba("red")]
    assert not [line for line in ax.lines if len(line.get_xdata()) == 8]
    folds = [line for line in pl.cross_validation(result).lines if len(line.get_xdata()) == 8]
    assert len(folds) == 4


def test_differences_to_each_baseline(result):
    ax = pl.cross_validation(result, kind="differences")
    assert _names(ax) == ["pseudobulk", "majority", "permuted"]
    table = result.comparison
    own = table[(table["metric"] == "auc") & (table["model"] == "gde")].set_index("baseline").loc[_names(ax)]
    dots, _ = _points(ax)
    found = sorted((dot.get_ydata()[0], dot.get_xdata()[0]) for dot in dots)
    np.testing.assert_allclose([x for _, x in found], own["advantage"])
    assert [label.get_color() for label in ax.get_yticklabels()] == ["black", "0.45", "0.45"]
    # an interval that holds 0 is an open circle: majority and permuted against each other may not differ
    table.loc[(table["model"] == "gde") & (table["baseline"] == "pseudobulk"), "lower"] = -0.1
    dots, _ = _points(pl.cross_validation(result, kind="differences"))
    faces = {round(dot.get_ydata()[0]): dot.get_markerfacecolor() for dot in dots}
    assert faces[0] == "white"
    assert faces[1] != "white"


def test_the_best_baseline_is_compared_where_there_is_nothing_else(result):
    keep = {"pseudobulk", "majority", "permuted"}
    only = CrossValidation(
        result.scores[result.scores["model"].isin(keep)],
        result.summary[result.summary["model"].isin(keep)],
        result.comparison[result.comparison["model"].isin(keep)],
        result.predictions,
        {},
    )
    ax = pl.cross_validation(only, kind="differences")
    assert ax.get_title(loc="left").startswith("pseudobulk")
    assert _names(ax) == ["majority", "permuted"]


def test_bad_results(result):
    with pytest.raises(KeyError, match="Did you mean 'auc'"):
        pl.cross_validation(result, metric="aucs")
    with pytest.raises(KeyError, match="Did you mean 'gde'"):
        pl.cross_validation(result, models="gd")
    with pytest.raises(ValueError, match="`kind` 'score' not found"):
        pl.cross_validation(result, kind="score")


def test_influence_has_the_colour_of_its_sign(rng):
    table = pd.DataFrame({"mean": [0.5, -0.2, np.nan], "share": [0.1, 0.8, 0.1]}, index=["T", "B", "NK"])
    ax = pl.attribution(table)
    (dots,) = [c for c in ax.collections if isinstance(c, PathCollection)]
    np.testing.assert_allclose(dots.get_offsets(), [[0.5, 0], [-0.2, 1]])
    np.testing.assert_allclose(dots.get_facecolors(), [to_rgba(FOR), to_rgba(AGAINST)])
    assert dots.get_sizes()[1] > 4 * dots.get_sizes()[0]
    assert _names(ax) == ["T", "B", "NK"]
    assert [text.get_text() for text in ax.texts] == ["missing"]
    (dots,) = [c for c in pl.attribution(table, color="black").collections if isinstance(c, PathCollection)]
    np.testing.assert_array_equal(np.unique(dots.get_facecolors(), axis=0), [[0, 0, 0, 1]])


def test_only_the_first_genes_are_drawn():
    ax = pl.attribution(pd.Series(np.linspace(1, -1, 50), index=[f"g{i}" for i in range(50)], name="change"), n_top=5)
    assert _names(ax) == ["g0", "g1", "g2", "g3", "g4"]
    assert [text.get_text() for text in ax.texts] == ["+ 45 more"]
    assert ax.get_xlabel() == "change"


def test_bad_attributions():
    table = pd.DataFrame({"mean": [1.0]}, index=["T"])
    with pytest.raises(KeyError, match="Known: 'mean'"):
        pl.attribution(table, column="part")
    with pytest.raises(TypeError, match="but got list"):
        pl.attribution([1, 2])
    with pytest.raises(ValueError, match="0 rows"):
        pl.attribution(table[:0])
