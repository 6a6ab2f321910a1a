"""Distances between groups, of embeddings and of cells."""

import numpy as np
import pytest

from scgde import metrics


def cells(model, donor):
    return model.adata.X[(model.adata.obs["donor"] == donor).to_numpy()]


@pytest.mark.parametrize("metric", sorted(metrics.METRICS))
def test_distances_of_cells_are_the_metric(model, metric):
    distances = model.group_distances(metric=metric)
    expected = metrics.METRICS[metric](cells(model, "donor_1"), cells(model, "donor_4"))
    assert distances.loc["donor_1", "donor_4"] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(distances, distances.T)
    np.testing.assert_array_equal(np.diag(distances), 0)
    assert distances.index.equals(model.group_distances().index)


@pytest.mark.parametrize("n_components", [1, 3])
@pytest.mark.parametrize("n_features", [4, 8])
def test_distances_of_the_mixtures_that_embeddings_stand_for(make_adata, make_model, n_components, n_features):
    """Beside exact transport between cells, of which 60 of a group overestimate small distances."""
    adata = make_adata(n_cells=60, n_vars=n_features)
    adata.X *= np.linspace(0.5, 20, n_features, dtype=np.float32)
    model = make_model(adata, options={"n_components": n_components, "n_latent": 64})
    distances = model.group_distances(metric="mixture")
    np.testing.assert_array_equal(distances, distances.T)
    np.testing.assert_array_equal(np.diag(distances), 0)
    exact, pairs = model.group_distances(metric="w2").to_numpy(), np.triu_indices(len(distances), 1)
    ratio = distances.to_numpy()[pairs] / exact[pairs]
    assert ((ratio > 0.4) & (ratio < 1.2)).all()
    assert distances.index.equals(model.group_distances().index)


def test_large_groups_are_represented_by_some_cells(model):
    first, again, other = (model.group_distances(metric="w2", max_cells=10, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    # Donors differ by 2 standard deviations in each of 4 features: 10 cells rank the distances nearly as 30 do.
    exact, pairs = model.group_distances(metric="w2").to_numpy(), np.triu_indices(6, 1)
    assert np.corrcoef(first.to_numpy()[pairs], exact[pairs])[0, 1] > 0.8


def test_weights_of_cells_count(make_adata, make_model):
    adata = make_adata()
    # Cells of the second library weigh next to nothing: the distance is that of the others.
    light = (adata.obs["library"] == "b").to_numpy()
    adata.obs["mass"] = np.where(light, 1e-9, 1.0)
    distances = make_model(adata, weight_key="mass").group_distances(metric="gaussian_w2", max_cells=2000)
    kept = [adata.X[(adata.obs["donor"] == f"donor_{i}").to_numpy() & ~light] for i in (1, 4)]
    assert distances.loc["donor_1", "donor_4"] == pytest.approx(metrics.gaussian_w2(*kept), rel=0.02)


def test_distances_of_other_data(make_adata, model):
    other = make_adata(n_groups=3, seed=5, prefix="new")
    distances = model.group_distances(other, metric="energy")
    assert distances.index.tolist() == ["new_0", "new_1", "new_2"]


@pytest.mark.parametrize(("options", "words"), [({"metric": "sliced_w2"}, "sliced"), ({"max_cells": 0}, "max_cells")])
def test_bad_arguments(model, options, words):
    with pytest.raises(ValueError, match=words):
        model.group_distances(**options)
