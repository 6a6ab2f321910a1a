"""Conformal p-values of embeddings."""

import itertools

import numpy as np
import pytest
from scipy import stats

from scgde.uncertainty import ConformalNovelty


def novelty(rng, n=30, p=3, split=False, draw=None, **options):
    draw = draw or rng.standard_normal
    return ConformalNovelty(draw((n, p)), draw((n, p)) if split else None, **options)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("heavy", [False, True])
def test_p_values_are_uniform_in_distribution(split, heavy):
    """One new point for each of 1500 training sets; the error rate of the test is 0.001."""
    rng = np.random.default_rng(0)
    draw = (lambda size: rng.standard_t(1.5, size)) if heavy else rng.standard_normal
    p = np.array([novelty(rng, 99, split=split, draw=draw).p_values(draw((1, 3)))[0] for _ in range(1500)])
    # p-values lie on the grid 1/100, 2/100, ...: a uniform jitter down to the next makes them continuous.
    assert stats.kstest(p - rng.random(1500) / 100, "uniform").pvalue > 0.001


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("n_neighbors", [1, 2, 5])
@pytest.mark.parametrize("integers", [False, True])
def test_full_conformal_is_exact_in_tiny_sets(n, n_neighbors, integers):
    """Of any n + 1 points, each taken as the new one in turn, at most a share a has p <= a; ties make it conservative."""
    rng = np.random.default_rng(n)
    for _ in range(50):
        points = rng.integers(0, 3, (n + 1, 2)).astype(float) if integers else rng.standard_normal((n + 1, 2))
        p = []
        for i in range(n + 1):
            model = ConformalNovelty(np.delete(points, i, axis=0), n_neighbors=n_neighbors)
            p.append(model.p_values(points[[i]])[0])
        for a in np.arange(1, n + 2) / (n + 1):
            assert np.mean(np.array(p) <= a + 1e-12) <= a + 1e-12
        if not integers and n > 2 and n_neighbors > 1:
            assert min(p) == pytest.approx(1 / (n + 1))


def test_split_conformal_is_exact_in_tiny_sets():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((4, 2))
    points = rng.standard_normal((4, 2))
    p = [ConformalNovelty(reference, np.delete(points, i, axis=0)).p_values(points[[i]])[0] for i in range(4)]
    np.testing.assert_allclose(np.sort(p), [0.25, 0.5, 0.75, 1])


def test_scores_are_those_of_the_augmented_set():
    """Against the definition, by loops."""
    rng = np.random.default_rng(1)
    reference, z, k = rng.standard_normal((12, 3)), 1.5 * rng.standard_normal((6, 3)), 4
    received = ConformalNovelty(reference, n_neighbors=k).p_values(z)
    for point, p in zip(z, received, strict=True):
        points = np.vstack([reference, point])
        distance = np.linalg.norm(points[:, None] - points, axis=-1)
        score = [np.sort(np.delete(row, i))[:k].mean() for i, row in enumerate(distance)]
        assert p == pytest.approx(np.mean(np.array(score) >= score[-1]))


@pytest.mark.parametrize("split", [False, True])
def test_far_points_have_small_p_values(split):
    rng = np.random.default_rng(0)
    model = novelty(rng, 150, split=split)
    assert model.smallest_p_value == pytest.approx(1 / 151)
    np.testing.assert_allclose(model.p_values(np.array([[8.0, 0, 0], [0, -20, 3]])), 1 / 151)
    assert model.p_values(np.zeros((1, 3)))[0] > 0.5


def test_scale():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((150, 2)) * [100, 1]
    far = np.array([[0.0, 15.0]])
    assert ConformalNovelty(reference).p_values(far)[0] > 0.05
    assert ConformalNovelty(reference, scale=np.array([100.0, 1.0])).p_values(far)[0] < 0.01


@pytest.mark.parametrize("split", [False, True])
def test_state_and_batches(split, monkeypatch):
    rng = np.random.default_rng(0)
    model = novelty(rng, 40, split=split, n_neighbors=3, scale=np.array([0.3, 1, 7]))
    z = 2 * rng.standard_normal((25, 3))
    expected = model.p_values(z)
    assert np.array_equal(ConformalNovelty.from_state(model.state()).p_values(z), expected)
    assert np.array_equal([model.p_values(z[[i]])[0] for i in range(25)], expected)
    monkeypatch.setattr("scgde.uncertainty._conformal.MAX_DISTANCES", 100)
    assert np.array_equal(model.p_values(z), expected)
    assert model.p_values(z[:0]).shape == (0,)


@pytest.mark.parametrize(("split", "near"), list(itertools.product([False, True], [1, 50])))
def test_a_single_group(split, near):
    model = ConformalNovelty(np.zeros((1, 2)), np.ones((1, 2)) if split else None, n_neighbors=near)
    assert model.p_values(np.full((1, 2), 9.0))[0] == (0.5 if split else 1)


def test_bad_input():
    z = np.zeros((3, 2))
    with pytest.raises(ValueError, match="n_neighbors=0"):
        ConformalNovelty(z, n_neighbors=0)
    with pytest.raises(ValueError, match="expected at least 1"):
        ConformalNovelty(z[:0])
    with pytest.raises(ValueError, match="scale must be"):
        ConformalNovelty(z, scale=np.zeros(2))
    with pytest.raises(ValueError, match=r"z has shape \(3, 1\)"):
        ConformalNovelty(z).p_values(z[:, :1])
    with pytest.raises(ValueError, match="calibration has shape"):
        ConformalNovelty(z, z * np.nan)
