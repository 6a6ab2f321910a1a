"""Heat map of the distances between groups."""

import numpy as np
import pandas as pd
import pytest

from scgde import pl


@pytest.fixture
def make_distances(rng):
    def make(n: int, prefix: str = "g") -> pd.DataFrame:
        z = rng.normal(size=n) + 100 * (np.arange(n) % 3)
        names = [f"{prefix}{i}" for i in range(n)]
        return pd.DataFrame(np.abs(z[:, None] - z), index=names, columns=names)

    return make


def _names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


@pytest.mark.parametrize("n", [1, 2, 3, 25, 26, 600])
@pytest.mark.parametrize("colored", [None, "category", "number"])
def test_small_and_large(make_distances, assert_inside, n, colored):
    distances = make_distances(n)
    values = {"category": np.where(np.arange(n) % 2, "x", None), "number": np.arange(n, dtype=float)}
    ax = pl.group_distances(distances, color=values.get(colored))
    (image,) = ax.images
    assert image.get_array().shape == (n, n)
    np.testing.assert_allclose(np.sort(image.get_array().ravel()), np.sort(distances.to_numpy().ravel()))
    low, high = image.get_clim()
    assert low == 0 < high
    assert len(_names(ax)) == (n if n <= 25 else 0)
    assert any(child.get_ylabel() == "distance" for child in ax.child_axes)
    assert_inside(ax.figure)


def test_similar_groups_lie_side_by_side(make_distances):
    distances = make_distances(15)
    clusters = [int(name[1:]) % 3 for name in _names(pl.group_distances(distances))]
    assert np.count_nonzero(np.diff(clusters)) == 2
    assert _names(pl.group_distances(distances, cluster=False)) == list(distances.index)
    lopsided = distances + np.triu(np.ones((15, 15)))
    assert sorted(_names(pl.group_distances(lopsided))) == sorted(distances.index)


def test_strip_of_values_follows_the_order_of_the_groups(make_distances, legend):
    distances = make_distances(9)
    values = pd.Series({name: f"cluster {int(name[1:]) % 3}" for name in distances.index[::-1]}, name="kind")
    values["g0"] = None
    ax = pl.group_distances(distances, color=values)
    assert legend(ax) == ["cluster 0", "cluster 1", "cluster 2", "missing"]
    assert ax.get_legend().get_title().get_text() == "kind"
    strip = next(child for child in ax.child_axes if child.images)
    rgba = np.asarray(strip.images[0].get_array())[0]
    for name, color in zip(_names(ax), rgba, strict=True):
        same = [other for other in _names(ax) if str(values[other]) == str(values[name])]
        np.testing.assert_array_equal(rgba[[_names(ax).index(other) for other in same]], [color] * len(same))
    assert len(np.unique(rgba, axis=0)) == 4


def test_long_names_of_groups_and_categories(make_distances, legend, assert_inside):
    distances = make_distances(20, "a_group_with_a_name_of_great_length_")
    ax = pl.group_distances(distances, color=pd.Series(distances.index, index=distances.index))
    assert max(map(len, [*_names(ax), *legend(ax)])) <= 20
    assert legend(ax)[-1] == "+ 13 more"
    assert_inside(ax.figure)
    bar = next(child for child in ax.child_axes if child.get_ylabel() == "distance")
    assert ax.get_legend().get_window_extent().y0 >= bar.get_window_extent().y1


def test_groups_of_two_columns():
    index = pd.MultiIndex.from_product([["a", "b"], [4, 6]])
    ax = pl.group_distances(pd.DataFrame(1 - np.eye(4), index=index, columns=index), cluster=False)
    assert _names(ax) == ["a, 4", "a, 6", "b, 4", "b, 6"]


def test_bad_input(make_distances):
    distances = make_distances(4)
    with pytest.raises(ValueError, match=r"shape \(4, 3\)"):
        pl.group_distances(distances.iloc[:, :3])
    with pytest.raises(ValueError, match="same order"):
        pl.group_distances(distances.iloc[:, ::-1])
    with pytest.raises(TypeError, match="but got ndarray"):
        pl.group_distances(distances.to_numpy())
    distances.iloc[0, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 16 distances"):
        pl.group_distances(distances)
    (image,) = pl.group_distances(distances, cluster=False).images
    assert np.ma.count_masked(image.get_array()) == 1
    with pytest.raises(ValueError, match="2 values for 4 groups"):
        pl.group_distances(make_distances(4), color=[1, 2])
