"""Generated cells along a path."""

import numpy as np
import pandas as pd
import pytest

from scgde import pl


@pytest.fixture
def make_path(make_cells):
    def make(n_steps: int, n_cells: int = 20):
        cells = make_cells(n_steps * n_cells)
        cells.obs["t"] = np.repeat(np.linspace(0, 1, n_steps), n_cells)
        cells.X = cells.X + 20 * cells.obs[["t"]].to_numpy(dtype=np.float32)
        return cells

    return make


@pytest.mark.parametrize(("n_steps", "n_panels"), [(1, 1), (2, 2), (4, 4), (11, 6)])
def test_small_multiples(make_path, points, assert_inside, n_steps, n_panels):
    axes = pl.interpolation(make_path(n_steps))
    assert len(axes) == n_panels
    assert axes[0].get_title() == "t = 0"
    assert axes[-1].get_title() == ("t = 1" if n_steps > 1 else "t = 0")
    for ax in axes:
        assert points(ax) == n_steps * 20
        assert len(ax.collections[-1].get_offsets()) == 20
        assert ax.get_xlim() == axes[0].get_xlim()
    fills = [tuple(ax.collections[-1].get_facecolors()[0]) for ax in axes]
    assert len(set(fills)) == n_panels
    assert_inside(axes[0].figure)


def test_one_panel_graded_by_t(make_path, points, assert_inside):
    path = make_path(11)
    ax = pl.interpolation(path, n_panels=1)
    assert points(ax) == 220
    assert len(np.unique(ax.collections[0].get_facecolors(), axis=0)) == 11
    assert ax.child_axes[0].get_ylabel() == "t"
    (mean,) = ax.lines
    assert len(mean.get_xdata()) == 11
    assert np.abs(np.diff(mean.get_xdata())).min() > 0
    assert_inside(ax.figure)


def test_large_and_as_text(make_path, points):
    path = make_path(5, 1000)
    path.obs["t"] = pd.Categorical(path.obs["t"].astype(str))
    path.obsm["two"] = path.X[:, 1:3]
    ax = pl.interpolation(path, rep="two", n_panels=1, max_cells=500)
    assert points(ax) == 500
    assert ax.get_xlabel() == "feature 1"


def test_bad_input(make_path):
    path = make_path(3)
    with pytest.raises(KeyError, match="Did you mean 't'"):
        pl.interpolation(path, time="tt")
    with pytest.raises(ValueError, match="60 of 60 values"):
        pl.interpolation(path, time="cell_type")
    with pytest.raises(ValueError, match="`n_panels` is 0"):
        pl.interpolation(path, n_panels=0)
