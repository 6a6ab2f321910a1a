"""The adapter has what patpy calls, and gives what the model gives."""

from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist, squareform

from scgde.datasets import simulate_cohort
from scgde.external.patpy import GDERepresentation
from scgde.metrics import signal_retention

TINY = {
    "model": {"n_latent": 6, "n_components": 2, "encoder_kwargs": {"width": 16}, "generator_kwargs": {"width": 32}},
    "train": {"max_steps": 2, "validation_size": 0.0, "accelerator": "cpu", "enable_progress_bar": False},
}


@runtime_checkable
class PatpyMethod(Protocol):
    """What patpy's own code uses of a representation method."""

    sample_key: str
    cell_group_key: str | None
    layer: str | None
    seed: int
    DISTANCES_UNS_KEY: str

    def prepare_anndata(self, adata): ...
    def calculate_distance_matrix(self, force=False): ...
    def to_adata(self, metadata=None): ...


@pytest.fixture(scope="module")
def adata():
    adata = simulate_cohort(12, (20, 30), n_genes=180, seed=0)
    adata.obsm["X_some"] = adata.X[:, :5].toarray()
    adata.layers["log"] = adata.X.copy()
    return adata


@pytest.fixture(scope="module")
def method(adata):
    """A fitted method. Shared: tests change nothing."""
    method = GDERepresentation("donor", "cell_type", "X_some", seed=3, **TINY)
    method.prepare_anndata(adata)
    return method


def test_has_the_interface_and_fits_before_it_transforms(method, adata):
    assert isinstance(method, PatpyMethod)
    assert isinstance(method.sample_representation, pd.DataFrame)
    assert method.samples == sorted(adata.obs["donor"].unique())
    distances = method.calculate_distance_matrix()
    expected = squareform(pdist(method.sample_representation.to_numpy(dtype=float)))
    np.testing.assert_allclose(distances, expected, rtol=1e-6)
    np.testing.assert_array_equal(adata.uns[method.DISTANCES_UNS_KEY], distances)
    assert method.calculate_distance_matrix() is distances
    assert method.calculate_distance_matrix(force=True) is not distances


def test_distances_go_into_the_metrics(method, adata):
    label = adata.obs.groupby("donor", observed=True)["disease"].first().loc[method.samples]
    assert -1 <= signal_retention(method.calculate_distance_matrix(), label, n_neighbors=3) <= 1


def test_groups_as_anndata(method):
    age = pd.DataFrame({"age": np.arange(12.0), "score": np.arange(12) * 2}, index=method.samples)
    groups = method.to_adata(age.iloc[::-1])
    assert groups.obs_names.tolist() == method.samples
    np.testing.assert_array_equal(groups.obs["age"], np.arange(12.0))
    np.testing.assert_array_equal(groups.obs["score"], np.arange(12) * 2)
    np.testing.assert_array_equal(groups.obsp[method.DISTANCES_UNS_KEY], method.calculate_distance_matrix())
    assert set(method.to_adata().obs["disease"]) == {"healthy", "disease"}


@pytest.mark.parametrize(("layer", "name"), [(None, "adata.X"), ("log", "adata.layers['log']")])
def test_reads_what_layer_names(layer, name, adata):
    method = GDERepresentation("donor", layer=layer, **TINY)
    method.prepare_anndata(adata)
    assert method.model.representation.name == name
    assert method.sample_representation.shape == (12, 6)


def test_one_seed_one_result(method, adata):
    again = GDERepresentation("donor", None, "X_some", 3, **TINY)
    again.prepare_anndata(adata)
    pd.testing.assert_frame_equal(again.sample_representation, method.sample_representation)


def test_errors_say_what_to_do(adata):
    with pytest.raises(RuntimeError, match=r"Call prepare_anndata\(adata\) first"):
        GDERepresentation("donor").calculate_distance_matrix()
    with pytest.raises(KeyError, match=r"layer='X_other' is neither in adata.obsm \(\['X_some'\]\)"):
        GDERepresentation("donor", layer="X_other").prepare_anndata(adata)
    with pytest.raises(KeyError, match="donr"):
        GDERepresentation("donr").prepare_anndata(adata)
