"""Generated cells against real ones."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scgde import pl


def _contours(ax):
    return [c for c in ax.collections if type(c).__name__ == "QuadContourSet"]


@pytest.mark.parametrize(("n_generated", "n_real", "n_contours"), [(1, 1, 0), (20, 3, 0), (60, 3, 1), (200, 100, 2)])
def test_overlay(make_cells, points, legend, assert_inside, n_generated, n_real, n_contours):
    ax = pl.generated_vs_real(make_cells(n_generated), make_cells(n_real))
    assert points(ax) == n_generated + n_real
    assert len(_contours(ax)) == n_contours
    assert legend(ax) == ["real", "generated"]
    assert np.isfinite([ax.get_xlim(), ax.get_ylim()]).all()
    assert len(np.unique(ax.collections[0].get_facecolors(), axis=0)) == 2
    above, right = ax.child_axes
    assert above.get_xlim() == ax.get_xlim()
    assert right.get_ylim() == ax.get_ylim()
    assert_inside(ax.figure)


def test_the_view_is_that_of_the_real_cells(make_cells):
    generated, real = make_cells(100, shift=50), make_cells(100)
    ax = pl.generated_vs_real(generated, real, marginals=False, contours=False)
    assert not ax.child_axes
    centred = real.X - real.X.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2].T
    expected = np.sort(np.abs(np.vstack([centred, generated.X - real.X.mean(axis=0)]) @ axes), axis=0)
    np.testing.assert_allclose(np.sort(np.abs(ax.collections[0].get_offsets()), axis=0), expected, rtol=1e-3, atol=1e-3)


def test_two_features_as_they_are(make_cells):
    real = make_cells(30, d=6)[:, :2]
    ax = pl.generated_vs_real(real.X + 1, real)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("0", "1")
    assert {tuple(xy) for xy in real.X.tolist()} <= {tuple(xy) for xy in ax.collections[0].get_offsets().tolist()}


@pytest.mark.parametrize("color", ["cell_type", "score"])
@pytest.mark.parametrize("labelled", ["both", "real", "generated"])
def test_two_panels_share_colours_and_limits(make_cells, points, legend, assert_inside, color, labelled):
    pair = {"generated": make_cells(80), "real": make_cells(120)}
    for what, cells in pair.items():
        if labelled not in ("both", what):
            del cells.obs[color]
    axes = pl.generated_vs_real(**pair, color=color)
    assert [ax.get_title() for ax in axes] == ["real", "generated"]
    assert [points(ax) for ax in axes] == [120, 80]
    assert axes[0].get_xlim() == axes[1].get_xlim()
    assert [len(_contours(ax)) for ax in axes] == [1, 1]
    figure = axes[0].figure
    if color == "cell_type":
        entries = [text.get_text() for text in figure.legends[0].get_texts()]
        assert entries[:3] == ["T cell", "B cell", "a monocyte wi…g name"]
        assert (entries[-1] == "missing") == (labelled != "both")
    else:
        assert axes[1].child_axes[0].get_ylabel() == "score"
        assert legend(axes[1]) == ([] if labelled == "both" else ["missing"])
    if labelled == "both" and color == "cell_type":
        colors = [np.unique(ax.collections[0].get_facecolors(), axis=0) for ax in axes]
        np.testing.assert_array_equal(*colors)
        assert len(colors[0]) == 4
    assert_inside(figure)


def test_representations(make_cells, points):
    generated, real = make_cells(20), make_cells(30, d=9)
    real.obsm["X_pca"] = real.X[:, :5] + 100
    real.X = csr_matrix(real.X)
    ax = pl.generated_vs_real(generated, real, rep="X_pca", contours=False)
    assert points(ax) == 50
    with pytest.raises(ValueError, match=r"9 features and generated cells 5.*keys of `.obsm`: \['X_pca'\]"):
        pl.generated_vs_real(generated, real)
    with pytest.raises(KeyError, match="Did you mean 'X_pca'"):
        pl.generated_vs_real(generated, real, rep="X_pcas")
    assert points(pl.generated_vs_real(make_cells(8, d=9), real, rep="X")) == 38


def test_at_most_so_many_cells_and_no_others_than_finite_ones(make_cells, points):
    generated, real = make_cells(400), make_cells(30)
    assert points(pl.generated_vs_real(generated, real, max_cells=100)) == 130
    first, second = (pl.generated_vs_real(generated, real, max_cells=100).collections[0] for _ in range(2))
    np.testing.assert_array_equal(first.get_offsets(), second.get_offsets())
    real.X[:4] = np.nan
    with pytest.warns(UserWarning, match="4 of 30 cells of the real cells"):
        ax = pl.generated_vs_real(make_cells(10), real)
    assert points(ax) == 36
    real.X[:] = np.inf
    with pytest.raises(ValueError, match="All 30 cells"):
        pl.generated_vs_real(generated, real)


def test_cells_on_a_line_have_no_contours(make_cells):
    line = np.outer(np.arange(100.0), [1, 2, 3])
    assert not _contours(pl.generated_vs_real(line, line))


def test_axes_of_the_caller(make_cells, legend):
    _, axes = plt.subplots(1, 2)
    drawn = pl.generated_vs_real(make_cells(20), make_cells(20), color="cell_type", ax=axes)
    assert list(drawn) == list(axes)
    assert len(legend(axes[1])) == 4
    with pytest.raises(ValueError, match="Give two"):
        pl.generated_vs_real(make_cells(20), make_cells(20), panels=True, ax=axes[0])
    with pytest.raises(ValueError, match="Give one Axes"):
        pl.generated_vs_real(make_cells(20), make_cells(20), ax=axes)


def test_bad_input(make_cells):
    with pytest.raises(KeyError, match="Did you mean 'cell_type'"):
        pl.generated_vs_real(make_cells(5), make_cells(5), color="celltype")
    with pytest.raises(ValueError, match=r"two features, but the shape is \(5, 1\)"):
        pl.generated_vs_real(np.ones((5, 1)), np.ones((5, 1)))
    with pytest.raises(ValueError, match="two numbers from 0 to 4"):
        pl.generated_vs_real(make_cells(5), make_cells(5), components=(0, 5))
