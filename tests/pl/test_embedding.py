"""Map of the groups."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PatchCollection
from matplotlib.legend import Legend

from scgde import pl


def _colorbar(ax):
    return next(child for child in ax.child_axes if child.get_ylabel())


@pytest.mark.parametrize("n", [1, 2, 3, 25, 26, 3000])
@pytest.mark.parametrize("color", [None, "disease", "age", "male", "site"])
def test_one_point_per_group(make_groups, points, assert_inside, n, color):
    ax = pl.embedding(make_groups(n), color=color)
    assert points(ax) == n
    assert np.isfinite([ax.get_xlim(), ax.get_ylim()]).all()
    assert ax.get_xlabel().startswith("PC1")
    assert (0 < len(ax.texts) <= n) if n <= 25 else not ax.texts
    assert ax.collections[-1].get_rasterized() == (n > 1000)
    assert_inside(ax.figure)


def test_points_lie_at_the_principal_components(make_groups):
    adata = make_groups(30)
    xy = pl.embedding(adata).collections[0].get_offsets()
    z = adata.uns["gde"]["embedding"] - adata.uns["gde"]["embedding"].mean(axis=0)
    left, scale, _ = np.linalg.svd(z, full_matrices=False)
    np.testing.assert_allclose(np.abs(xy), np.abs(left * scale)[:, :2], rtol=1e-4, atol=1e-4)


def test_two_dimensions_as_they_are(make_groups):
    frame = pd.DataFrame(make_groups(4).uns["gde"]["embedding"]).add_prefix("mean_")
    ax = pl.embedding(frame, method="none", components=(3, 1))
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), frame[["mean_3", "mean_1"]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mean_3", "mean_1")


def test_categories_are_explained_and_missing_ones_drawn_first(make_groups, points, legend):
    adata = make_groups(9)
    adata.uns["gde"]["groups"].loc[[0, 4], "disease"] = None
    ax = pl.embedding(adata, color="disease")
    assert legend(ax) == ["critical", "healthy", "mild", "missing"]
    assert ax.get_legend().get_title().get_text() == "disease"
    missing, known = ax.collections
    assert (len(missing.get_offsets()), len(known.get_offsets())) == (2, 7)
    assert missing.get_zorder() < known.get_zorder()
    assert len(np.unique(known.get_facecolors(), axis=0)) == 3


def test_numbers_get_a_colour_bar_and_missing_ones_an_entry(make_groups, legend):
    adata = make_groups(6)
    adata.uns["gde"]["groups"].loc[2, "age"] = np.nan
    ax = pl.embedding(adata, color="age")
    assert _colorbar(ax).get_ylabel() == "age"
    assert _colorbar(ax).get_ylim() == (20, 25)
    assert legend(ax) == ["missing"]


def test_too_many_categories_are_counted(make_groups, legend):
    ax = pl.embedding(make_groups(200), color="donor")
    assert legend(ax)[0] == "donor_0"
    assert legend(ax)[-1] == "+ 182 more"
    assert len(np.unique(ax.collections[0].get_facecolors(), axis=0)) == 200
    assert not pl.embedding(make_groups(200), color="donor", legend=False).get_legend()


def test_long_names_are_shortened_and_do_not_overlap(make_groups, legend, assert_inside):
    adata = make_groups(20, prefix="a_donor_with_a_name_of_great_length_")
    ax = pl.embedding(adata, color="donor")
    assert max(map(len, legend(ax))) <= 20
    assert_inside(ax.figure)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) >= 5
    for i, box in enumerate(boxes):
        for other in boxes[:i]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(width, height) < 2
    assert len(pl.embedding(adata, annotate=True).texts) == 20
    assert not pl.embedding(adata, annotate=False).texts


def test_one_column_of_obs_where_the_names_have_two_columns(make_groups):
    adata = make_groups(6)
    groups = pd.DataFrame({"donor": list("aabbcc"), "day": [1, 2] * 3})
    adata.uns["gde"] |= {"groups": groups, "settings": {"groupby": np.array(["donor", "day"]), "time_key": "day"}}
    adata.obs = groups.loc[groups.index.repeat(2)].set_axis(adata.obs_names).assign(dose=np.repeat(range(6), 2))
    ax = pl.embedding(adata, color="dose", annotate=True)
    assert {text.get_text() for text in ax.texts} == {"a, 1", "a, 2", "b, 1", "b, 2", "c, 1", "c, 2"}
    assert _colorbar(ax).get_ylim() == (0, 5)


@pytest.mark.parametrize("n", [1, 3, 300])
def test_ellipses_cover_the_errors(make_groups, n):
    adata = make_groups(n, se=True)
    ax = pl.embedding(adata, method="none")
    (ellipses,) = [c for c in ax.collections if isinstance(c, PatchCollection)]
    extents = [path.get_extents() for path in ellipses.get_paths()]
    # 95% of a two-dimensional normal lie within 2.4477 standard deviations
    np.testing.assert_allclose([(e.width, e.height) for e in extents], 2 * 2.4477 * 0.1, rtol=1e-3)
    assert not [c for c in pl.embedding(adata, error=None).collections if isinstance(c, PatchCollection)]


def test_errors_are_projected_with_the_points(make_groups):
    adata = make_groups(5)
    se = np.zeros((5, 6))
    se[:, 0] = 1.0
    ax = pl.embedding(adata, method="none", components=(0, 1), se=se)
    (ellipses,) = [c for c in ax.collections if isinstance(c, PatchCollection)]
    extent = ellipses.get_paths()[0].get_extents()
    assert extent.width == pytest.approx(2 * 2.4477, rel=1e-3)
    assert extent.height == pytest.approx(0, abs=1e-6)


def test_a_series_is_matched_by_group_name(make_groups, legend):
    adata = make_groups(4)
    frame = pd.DataFrame(adata.uns["gde"]["embedding"], index=adata.uns["gde"]["groups"]["donor"])
    sex = pd.Series({"donor_3": "f", "donor_0": "m", "donor_1": "f", "elsewhere": "x"}, name="sex")
    for data in (adata, frame):
        ax = pl.embedding(data, color=sex)
        assert legend(ax) == ["f", "m", "missing"]
        assert len(ax.collections[0].get_offsets()) == 1
    assert legend(pl.embedding(frame, color=["a", "b", "a", "b"])) == ["a", "b"]


def test_embedding_of_one_dimension_and_of_equal_groups(make_groups, points):
    assert points(pl.embedding(pd.DataFrame({"z1": [1.0, 2.0]}))) == 2
    ax = pl.embedding(pd.DataFrame(np.ones((3, 2))))
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_umap(make_groups, points):
    ax = pl.embedding(make_groups(12, se=True), method="umap")
    assert points(ax) == 12
    assert ax.get_xlabel() == "UMAP1"


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"color": "desease"}, KeyError, "Column 'desease' not found. Did you mean 'disease'"),
        ({"color": "zzz"}, KeyError, "Known: 'donor', 'disease', 'age', 'male', 'site'"),
        ({"color": "cell_type"}, ValueError, r"not constant within 6 of 6 groups: donor_0 \(2 values\)"),
        ({"key": "gdf"}, KeyError, "Did you mean 'gde'"),
        ({"color": [1, 2]}, ValueError, "2 values for 6 groups"),
        ({"color": pd.Series([1, 2])}, ValueError, "does not name each of the groups"),
        ({"method": "pcs"}, ValueError, "Did you mean 'pca'"),
        ({"components": (0, 6)}, ValueError, "two numbers from 0 to 5"),
        ({"se": np.ones((6, 2))}, ValueError, r"shape \(6, 2\)"),
    ],
)
def test_bad_input(make_groups, options, error, match):
    with pytest.raises(error, match=match):
        pl.embedding(make_groups(6), **options)


def test_bad_data(make_groups):
    adata = make_groups(3)
    adata.uns["gde"]["embedding"][1] = np.nan
    with pytest.raises(ValueError, match=r"not finite for \['donor_1'\]"):
        pl.embedding(adata)
    with pytest.raises(TypeError, match="but got list"):
        pl.embedding([[1, 2]])
    with pytest.raises(ValueError, match="has no labels"):
        pl.embedding(pd.DataFrame(np.eye(3)), color="disease")
    with pytest.raises(ValueError, match="at least 5 groups"):
        pl.embedding(make_groups(4), method="umap")


def test_far_groups_are_crossed(make_groups, legend, assert_inside):
    adata = make_groups(6)
    z = pl.embedding(adata, color="disease").collections[-1].get_offsets()
    adata.uns["gde"]["groups"]["p_value"] = [0.5, 0.009, 0.01, np.nan, 0.001, 1.0]
    ax = pl.embedding(adata, color="disease")
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), z[[1, 4]])
    assert legend(ax) == ["critical", "healthy", "mild", "far (p < 0.01)"]
    assert_inside(ax.figure)


def test_groups_of_few_cells_are_open_circles(make_groups, legend, assert_inside):
    adata = make_groups(6, se=True)
    z = pl.embedding(adata, color="disease").collections[-1].get_offsets()
    adata.uns["gde"]["groups"]["few_cells"] = adata.uns["gde"]["groups"]["n_effective"] < 30
    ax = pl.embedding(adata, color="disease")
    # A white dot lies on the marker, and leaves a ring of its colour.
    ring, dots = ax.collections[-2:]
    np.testing.assert_allclose(dots.get_offsets(), z[:1])
    np.testing.assert_array_equal(dots.get_facecolors(), [[1, 1, 1, 1]])
    assert 0 < dots.get_sizes()[0] < ring.get_sizes()[0]
    assert dots.get_zorder() > ring.get_zorder()
    assert legend(ax) == ["critical", "healthy", "mild", "< 30 cells"]
    assert_inside(ax.figure)
    assert not pl.embedding(adata, legend=False).figure.findobj(Legend)
