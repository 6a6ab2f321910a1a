"""Fates against known clusters and loops over all distances."""

import numpy as np
import pytest

from scgde.models._fates import group_fates, neighbor_fates, neighbor_graph

CENTRES = np.array([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0], [0.0, 50.0, 0.0]])


def clusters(n_each, seed=0, dtype=np.float32):
    """Cells around the centres and their cluster, in random order."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(CENTRES)), n_each))
    return (CENTRES[codes] + rng.standard_normal((len(codes), 3))).astype(dtype), codes


def brute_force(x, y, k, weighting, mass):
    graph = np.zeros((len(x), len(y)))
    for i, cell in enumerate(x):
        distance = np.sqrt(((cell - y) ** 2).sum(axis=1))
        nearest = np.argsort(distance)[:k]
        d = distance[nearest]
        weight = np.exp(-(d**2) / (2 * np.mean(d**2))) if weighting == "gaussian" else np.ones(k)
        graph[i, nearest] = weight * mass[nearest]
    return graph / graph.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_features", [3, 40])  # looked up by a tree, and by all distances
@pytest.mark.parametrize("weighting", ["gaussian", "uniform"])
def test_graph_equals_the_loop(weighting, n_features):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((31, n_features)), rng.standard_normal((57, n_features))
    mass = rng.uniform(0.5, 2, 57)
    graph = neighbor_graph(x, y, 6, weighting=weighting, weight=mass, batch_size=7)
    assert graph.shape == (31, 57)
    assert (np.diff(graph.indptr) == 6).all()
    np.testing.assert_allclose(graph.toarray(), brute_force(x, y, 6, weighting, mass), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 10_000])
def test_any_batch_size_gives_the_same(batch_size):
    rng = np.random.default_rng(2)
    x, y = (rng.standard_normal((n, 30)).astype(np.float32) for n in (40, 90))
    labels = rng.integers(0, 4, 90)
    whole, parts = neighbor_graph(x, y, 5), neighbor_graph(x, y, 5, batch_size=batch_size)
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_allclose(parts.data, whole.data, rtol=1e-5)
    fates = neighbor_fates(x, y, labels, 4, n_neighbors=5, batch_size=batch_size)
    np.testing.assert_allclose(fates, neighbor_fates(x, y, labels, 4, n_neighbors=5), atol=1e-6)


def test_gaussian_kernel_has_the_scale_of_the_data():
    x, codes = clusters(30)
    near = neighbor_graph(x[:20], x, 10)
    np.testing.assert_allclose(neighbor_graph(1000 * x[:20], 1000 * x, 10).toarray(), near.toarray(), rtol=1e-4)
    coinciding = neighbor_graph(np.zeros((1, 3)), np.zeros((4, 3)), 4)
    np.testing.assert_allclose(coinciding.toarray(), 0.25)
    np.testing.assert_allclose(near.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("weighting", ["gaussian", "uniform"])
def test_fates_of_separated_clusters_are_certain(weighting):
    x, codes = clusters(40)
    forecast, truth = clusters(15, seed=1)
    fates = neighbor_fates(forecast, x, codes, 4, weighting=weighting)
    assert fates.dtype == np.float32
    np.testing.assert_allclose(fates, np.eye(4)[truth], atol=1e-6)


def test_fates_are_the_graph_times_the_labels():
    rng = np.random.default_rng(3)
    x, y, labels = rng.standard_normal((20, 5)), rng.standard_normal((50, 5)), rng.integers(0, 3, 50)
    fates = neighbor_fates(x, y, labels, 3, n_neighbors=8, weighting="gaussian")
    np.testing.assert_allclose(fates, neighbor_graph(x, y, 8) @ np.eye(3)[labels], atol=1e-6)
    np.testing.assert_allclose(fates.sum(axis=1), 1, atol=1e-6)
    assert fates.max() < 1


def test_cells_without_a_label_leave_their_place_to_others():
    x, codes = clusters(40)
    unknown = np.where(codes == 0, -1, codes)
    at_first_centre = CENTRES[:1] + [0.0, 5.0, 0.0]  # nearer to the third cluster than to the second
    np.testing.assert_allclose(neighbor_fates(at_first_centre, x, unknown, 3), [[0, 0, 1]])
    with pytest.raises(ValueError, match="None of the 120 real cells has a label"):
        neighbor_fates(x, x, np.full(120, -1), 3)


def test_mass_of_real_cells_counts():
    y, labels = np.array([[1.0], [-1.0], [2.0]]), np.array([0, 1, 1])
    fates = neighbor_fates(np.zeros((1, 1)), y, labels, 2, n_neighbors=2, weight=np.array([3.0, 1.0, 1.0]))
    np.testing.assert_allclose(fates, [[0.75, 0.25]])
    without_second = neighbor_fates(np.zeros((1, 1)), y, labels, 2, n_neighbors=1, weight=np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(without_second, [[0, 1]])


def test_few_real_cells_are_all_neighbours():
    fates = neighbor_fates(np.zeros((2, 1)), np.arange(4.0)[:, None], np.array([0, 0, 0, 1]), 2, n_neighbors=20)
    np.testing.assert_allclose(fates, [[0.75, 0.25]] * 2)
    assert neighbor_graph(np.empty((0, 1)), np.zeros((4, 1)), 2).shape == (0, 4)


def test_group_fates_are_weighted_means():
    cells = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [np.nan, np.nan], [1.0, 0.0]], dtype=np.float32)
    codes = np.array([0, 0, 2, 2, -1])
    groups = group_fates(cells, codes, 4)
    np.testing.assert_allclose(groups, [[0.5, 0.5], [np.nan, np.nan], [0.5, 0.5], [np.nan, np.nan]])
    weighted = group_fates(cells, codes, 4, weight=np.array([3.0, 1.0, 2.0, 1.0, 9.0]))
    np.testing.assert_allclose(weighted[0], [0.75, 0.25])
    assert np.isnan(group_fates(cells, codes, 4, weight=np.array([0.0, 0.0, 2.0, 1.0, 9.0]))[0]).all()


GOOD = {"x_forecast": np.zeros((3, 2)), "x_reference": np.ones((5, 2)), "label_codes": np.zeros(5, int), "n_labels": 2}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"x_forecast": np.zeros((3, 4))}, "same representation"),
        ({"x_forecast": np.array([[0.0, 0.0], [np.nan, 0.0]])}, r"1 of 2 transported cells hold NaN.*row 1"),
        ({"x_reference": np.full((5, 2), np.inf)}, "5 of 5 real cells hold NaN or infinity"),
        ({"label_codes": np.zeros(4, int)}, r"label_codes has shape \(4,\)"),
        ({"label_codes": np.full(5, 2)}, "from 2 to 2: expected whole numbers from -1 .* to 1"),
        ({"label_codes": np.zeros(5)}, "holds float64: expected whole numbers"),
        ({"weight": np.ones(4)}, "weight has shape"),
        ({"weight": np.array([1, 1, 1, 1, -1.0])}, "at least 0"),
        ({"weight": np.zeros(5)}, "positive mass"),
        ({"n_neighbors": 0}, "n_neighbors=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"weighting": "cosine"}, r"\['gaussian', 'uniform'\]"),
    ],
)
def test_bad_input(bad, message):
    with pytest.raises(ValueError, match=message):
        neighbor_fates(**(GOOD | bad))


def test_bad_groups():
    with pytest.raises(ValueError, match="codes has shape"):
        group_fates(np.ones((3, 1)), np.array([0, 1, 2]), 2)
    with pytest.raises(ValueError, match="weight has shape"):
        group_fates(np.ones((3, 1)), np.array([0, 1, 1]), 2, weight=np.array([1, np.nan, 1]))
