"""Forecasts against the truth, and fates."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_rgba

from scgde import pl
from scgde.pl._color import MISSING, OKABE_ITO
from scgde.pl._forecast import FORECAST, TRUE


@pytest.fixture
def forecast(rng):
    """Forecast of clones a, b, c from day 4 to day 6, of two cells each, with 200 draws of two dimensions."""
    obs = pd.DataFrame({"source": np.repeat(["a, 4", "b, 4", "c, 4"], 2), "target": "6", "kind": list("xyxyxy")})
    cells = AnnData(rng.normal(size=(6, 2)).astype(np.float32), obs=obs.set_index(obs.index.astype(str)))
    draws = rng.normal(size=(200, 3, 2)) * [[[1, 2]], [[3, 1]], [[1, 1]]][:1] + np.arange(6).reshape(3, 2)
    table = pd.DataFrame({"clone": list("abc"), "day": [4, 4, 4], "log_growth": [0.0, np.nan, 1.0]})
    cells.uns["forecast"] = {"embedding": draws.mean(axis=0), "draws": draws, "groups": table}
    return cells


@pytest.fixture
def truth(rng):
    """Clones a, b, c on day 4, and c, a on day 6 (in a categorical column of text)."""
    groups = pd.DataFrame({"clone": list("abcca"), "day": pd.Categorical(list("44466"))})
    adata = AnnData(rng.normal(size=(5, 2)).astype(np.float32), obs=groups.set_index(groups.index.astype(str)))
    settings = {"groupby": "clone", "time_key": "day"}
    adata.uns["tde"] = {"embedding": rng.normal(size=(5, 2)), "groups": groups, "settings": settings}
    return adata


def _of(ax, kind):
    return [artist for artist in ax.collections if isinstance(artist, kind)]


def test_a_line_leads_to_the_true_embedding_where_it_is_known(forecast, truth):
    (lines,) = _of(pl.forecast(forecast, truth), LineCollection)
    found = [np.linalg.norm(np.subtract(*segment)) for segment in lines.get_segments()]
    z, true = forecast.uns["forecast"]["embedding"], truth.uns["tde"]["embedding"]
    # a rotation of two dimensions keeps distances; a is row 4 of the truth on day 6, and c row 3
    np.testing.assert_allclose(found, [np.linalg.norm(z[0] - true[4]), np.linalg.norm(z[2] - true[3])])
    truth.uns["tde"]["groups"]["day"] = 4
    assert not _of(pl.forecast(forecast, truth), LineCollection)


def test_ellipses_hold_95_percent_of_the_draws(forecast):
    (ellipses,) = _of(pl.forecast(forecast), PatchCollection)
    for path, draws in zip(ellipses.get_paths(), forecast.uns["forecast"]["draws"].transpose(1, 0, 2), strict=True):
        (x, y) = path.to_polygons()[0].T
        area = np.abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
        # 5.99 is the 95% point of chi squared with two degrees of freedom
        assert area == pytest.approx(np.pi * 5.991 * np.sqrt(np.linalg.det(np.cov(draws.T))), rel=0.01)
    del forecast.uns["forecast"]["draws"]
    assert not _of(pl.forecast(forecast), PatchCollection)


def test_groups_are_coloured_by_the_table_or_by_name(forecast, legend):
    assert legend(pl.forecast(forecast, color="log_growth")) == ["missing", "forecast"]
    sex = pd.Series({"c, 4": "f", "a, 4": "m"}, name="sex")
    ax = pl.forecast(forecast, color=sex)
    assert legend(ax) == ["f", "m", "missing", "forecast"]
    assert len(ax.collections[1].get_offsets()) == 1


def test_true_cells_of_the_same_groups_at_the_same_time(forecast, truth, legend):
    ax = pl.forecast(forecast, truth, kind="cells")
    true, own = ax.collections
    np.testing.assert_allclose(true.get_offsets(), truth.X[3:])
    np.testing.assert_allclose(true.get_facecolors()[0, :3], to_rgba(TRUE)[:3])
    np.testing.assert_allclose(own.get_offsets(), forecast.X)
    np.testing.assert_allclose(own.get_facecolors()[0, :3], to_rgba(FORECAST)[:3])
    assert legend(ax) == ["forecast", "truth"]
    del truth.uns["tde"]
    assert legend(pl.forecast(forecast, truth, kind="cells", color="kind")) == ["x", "y", "other real cells"]


def test_bad_forecasts(forecast, truth):
    with pytest.raises(KeyError, match="log_growth"):
        pl.forecast(forecast, color="growth")
    with pytest.raises(KeyError, match="get_group_embedding"):
        pl.forecast(forecast, truth, key="gde")
    with pytest.raises(KeyError, match=r"model.forecast\(\)"):
        pl.forecast(truth)
    truth.uns["tde"]["embedding"] = np.ones((5, 3))
    with pytest.raises(ValueError, match="2 latent dimensions, `truth` has 3"):
        pl.forecast(forecast, truth)


@pytest.fixture
def fates(forecast):
    groups = np.array([[0.25, 0.75], [np.nan, np.nan], [0.9, 0.1]])
    forecast.obsm["fates"] = np.repeat(groups, 2, axis=0)
    forecast.uns["fates"] = {"labels": np.array(["left", "right"]), "groups": groups}
    return forecast


def test_bars_are_the_probabilities_and_similar_groups_lie_side_by_side(fates, legend):
    ax = pl.fates(fates)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c, 4", "a, 4", "b, 4"]
    left, right, missing = ([bar.get_width() for bar in bars] for bars in ax.containers)
    np.testing.assert_allclose([left, right, missing], [[0.9, 0.25, 0], [0.1, 0.75, 0], [0, 0, 1]])
    assert legend(ax) == ["left", "right", "missing"]
    np.testing.assert_allclose(ax.containers[2][2].get_facecolor(), MISSING)


def test_one_fate_of_groups(fates):
    ax = pl.fates(fates, color="right")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a, 4", "c, 4", "b, 4"]
    assert ax.get_xlabel() == "probability of right"
    np.testing.assert_allclose([bar.get_width() for bar in ax.containers[0]], [0.75, 0.1, 0])
    np.testing.assert_allclose(ax.containers[0][0].get_facecolor(), to_rgba(OKABE_ITO[1]))


def test_fates_of_cells(fates, legend):
    ax = pl.fates(fates, kind="cells")
    assert legend(ax) == ["left", "right", "missing"]
    _, known = ax.collections
    np.testing.assert_allclose(known.get_facecolors(), [to_rgba(OKABE_ITO[i]) for i in (1, 1, 0, 0)])
    assert any(
        child.get_ylabel() == "probability of left" for child in pl.fates(fates, kind="cells", color="left").child_axes
    )


def test_many_groups_are_columns_without_names(fates, rng):
    many = fates[np.zeros(3000, dtype=int)].copy()
    many.obs_names_make_unique()
    many.obs["source"] = [f"g{i}" for i in range(3000)]
    many.uns["fates"]["groups"] = rng.dirichlet(np.ones(2), size=3000)
    ax = pl.fates(many)
    assert len(ax.patches) == 2
    assert ax.get_xlabel() == "3,000 groups"
    assert not ax.get_xticks().size


def test_bad_fates(fates):
    with pytest.raises(KeyError, match="Did you mean 'right'"):
        pl.fates(fates, color="rigt")
    with pytest.raises(KeyError, match="fate_probabilities"):
        pl.fates(fates, key="fate")
    with pytest.raises(ValueError, match="`kind` 'cell' not found"):
        pl.fates(fates, kind="cell")
