"""Cells that move: arrows, streamlines and single-cell paths."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.quiver import Quiver

from scgde import pl
from scgde.pl._color import MISSING


@pytest.fixture
def before(rng):
    obs = pd.DataFrame({"donor": list("aabbb"), "kind": ["x", None, "x", "y", "y"]}, index=list("01234"))
    return AnnData(rng.normal(size=(5, 2)).astype(np.float32), obs=obs)


@pytest.fixture
def moved(before):
    """Cells of a and b, moved by (1, 2) to c, in another order."""
    cells = before[::-1].copy()
    cells.X = cells.X + np.array([1, 2], dtype=np.float32)
    cells.obs = cells.obs.assign(source=cells.obs["donor"], target="c")
    return cells


@pytest.fixture
def trajectory(rng):
    """Three cells at four positions, rows shuffled; x (positions, cells, 2)."""
    x = rng.normal(size=(4, 3, 2)).astype(np.float32)
    obs = pd.DataFrame({"t": np.repeat([0, 0.25, 0.5, 1], 3), "cell": list("uvw") * 4, "kind": ["x", None, "y"] * 4})
    adata = AnnData(x.reshape(-1, 2), obs=obs.set_index(obs.index.astype(str)))
    return adata[rng.permutation(12)].copy(), x


def _one(ax, kind):
    (found,) = [artist for artist in ax.collections if isinstance(artist, kind)]
    return found


def test_an_arrow_leads_from_the_mean_of_a_source_to_that_of_its_cells(before, moved):
    arrows = _one(pl.transport(moved, before), Quiver)
    means = pd.DataFrame(before.X).groupby(before.obs["donor"].to_numpy()).mean().to_numpy()
    order = np.lexsort(np.c_[arrows.X, arrows.Y].T)
    np.testing.assert_allclose(np.c_[arrows.X, arrows.Y][order], means[np.lexsort(means.T)], rtol=1e-6)
    np.testing.assert_allclose(np.c_[arrows.U, arrows.V], [[1, 2], [1, 2]], rtol=1e-5)


def test_sources_and_targets_are_named_once(before, moved):
    ax = pl.transport(moved, before, annotate=True)
    assert sorted(text.get_text() for text in ax.texts) == ["a", "b", "c"]
    assert not pl.transport(moved, before, annotate=False).texts


def test_cells_are_found_by_name_where_names_have_a_suffix(before, moved):
    moved.obs_names = [f"{name}-c" for name in moved.obs_names]
    arrows = _one(pl.transport(moved, before, kind="cells"), Quiver)
    np.testing.assert_allclose(np.c_[arrows.U, arrows.V], np.tile([1, 2], (5, 1)), rtol=1e-5)
    draws = moved[:2].copy()
    draws.obs["draw"] = [0, 1]
    draws.obs_names = ["3-0", "3-1"]
    arrows = _one(pl.transport(draws, before, kind="cells"), Quiver)
    np.testing.assert_allclose(np.c_[arrows.X, arrows.Y], before.X[[3, 3]])


def test_cells_take_the_colours_of_a_column(before, moved, legend):
    ax = pl.transport(moved, before, color="kind")
    assert legend(ax) == ["x", "y", "missing", "before", "after"]
    missing = [c for c in ax.collections if isinstance(c, PathCollection) and len(c.get_offsets()) == 1]
    assert len(missing) == 2
    for points in missing:
        np.testing.assert_allclose(points.get_facecolors()[0, :3], MISSING[:3])


def test_streamlines_follow_the_displacement(make_cells):
    cells = make_cells(300, d=2)
    moved = cells.copy()
    moved.X = moved.X + np.array([3, 6], dtype=np.float32)
    ax = pl.transport(moved, cells, kind="streamlines")
    segments = np.concatenate(_one(ax, LineCollection).get_segments())
    steps = np.diff(segments.reshape(-1, 2), axis=0)
    directions = steps[np.linalg.norm(steps, axis=1) > 1e-9]
    # consecutive lines are joined by jumps; within lines, all of the steps have slope 2
    assert np.mean(np.abs(directions[:, 1] - 2 * directions[:, 0]) < 1e-3) > 0.9


def test_no_more_than_300_arrows_are_drawn(make_cells):
    cells = make_cells(700)
    cells.obs["source"], cells.obs["target"] = [f"d{i}" for i in range(700)], "t"
    ax = pl.transport(cells, make_cells(700))
    assert _one(ax, Quiver).N == 300
    assert ax.get_title(loc="left") == "300 of 700 arrows"


def test_each_path_passes_through_all_positions_of_its_cell(trajectory):
    adata, x = trajectory
    lines = _one(pl.trajectories(adata, color="kind"), LineCollection)
    found = np.stack(lines.get_segments())
    order = np.argsort(found[:, 0, 0])
    np.testing.assert_allclose(found[order], x.transpose(1, 0, 2)[np.argsort(x[0, :, 0])], rtol=1e-6)
    assert (lines.get_colors()[:, :3] == MISSING[:3]).all(axis=1).sum() == 1


def test_paths_are_graded_by_time(trajectory):
    adata, x = trajectory
    ax = pl.trajectories(adata)
    lines = _one(ax, LineCollection)
    assert len(lines.get_segments()) == 9
    assert len(np.unique(lines.get_colors(), axis=0)) == 3
    assert next(child for child in ax.child_axes if child.get_ylabel()).get_ylim() == (0, 1)
    ends = _one(ax, PathCollection).get_offsets()
    np.testing.assert_allclose(ends[np.argsort(ends[:, 0])], x[-1][np.argsort(x[-1, :, 0])], rtol=1e-6)
    assert len(_one(pl.trajectories(adata, max_cells=2), LineCollection).get_segments()) == 6


def test_the_view_is_that_of_the_background(make_cells, legend, trajectory):
    adata, _ = trajectory
    ax = pl.trajectories(adata, background=make_cells(50, d=2), color="kind")
    assert legend(ax) == ["x", "y", "missing", "real cells"]
    assert len(ax.collections[0].get_offsets()) == 50
    with pytest.raises(ValueError, match="background has 5 features, the paths have 2"):
        pl.trajectories(adata, background=make_cells(50))


def test_cells_without_a_position_are_left_out_with_a_warning(before, moved):
    moved.X[0] = np.nan
    with pytest.warns(UserWarning, match="1 of 5 cells of the paths hold NaN"):
        ax = pl.transport(moved, before, kind="cells")
    assert _one(ax, Quiver).N == 4


def test_bad_input(before, moved, trajectory, make_cells):
    with pytest.raises(KeyError, match="'t' not found.*return_trajectory=True"):
        pl.transport(moved)
    with pytest.raises(ValueError, match="`kind` 'arrow' not found"):
        pl.transport(moved, before, kind="arrow")
    with pytest.raises(KeyError, match="'kinds' not found. Did you mean 'kind'"):
        pl.transport(moved, before, color="kinds")
    with pytest.raises(TypeError, match="but got ndarray"):
        pl.transport(np.ones((3, 2)))
    with pytest.raises(ValueError, match="2 of 5 moved cells, '4' among them"):
        pl.transport(moved, before[:3])
    with pytest.raises(ValueError, match="5 features before the move and 2 after"):
        pl.transport(moved, make_cells(10))
    with pytest.raises(ValueError, match="11 rows are not one for each of 3 cells at each of 4 times"):
        pl.trajectories(trajectory[0][:11])
    before.obs_names = ["0"] * 5
    with pytest.raises(ValueError, match="not unique"):
        pl.transport(moved, before)
