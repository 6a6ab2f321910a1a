"""Kernel-weighted groups of continuous labels."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scgde.data import kernel_groups


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"t": rng.uniform(size=500), "kind": "a"}, index=[f"c{i}" for i in range(500)])
    adata = AnnData(rng.normal(size=(500, 3)).astype(np.float32), obs=obs)
    adata.obsm["spatial"] = rng.uniform(size=(500, 2))
    return adata


def test_weights_are_gaussian_and_cut_off(adata):
    table = kernel_groups(adata, "t", centres=[0.2, 0.5], bandwidth=0.1, cutoff=2)
    distance = np.abs(adata.obs["t"].to_numpy()[:, None] - [0.2, 0.5]) / 0.1
    expected = np.where(distance <= 2, np.exp(-(distance**2) / 2), 0)
    matrix = adata.obsm["kernel_groups"]
    assert sparse.issparse(matrix)
    np.testing.assert_allclose(matrix.toarray(), expected, rtol=1e-6)
    assert table["t"].tolist() == [0.2, 0.5]
    assert table["n_cells"].tolist() == (expected > 0).sum(0).tolist()
    np.testing.assert_allclose(table["n_effective"], expected.sum(0) ** 2 / (expected**2).sum(0))
    assert adata.uns["kernel_groups"]["bandwidth"] == 0.1


def test_defaults_reach_every_cell(adata):
    for key, columns in (("t", ["t"]), ("spatial", ["spatial_1", "spatial_2"])):
        table = kernel_groups(adata, key, key_added=key + "_groups")
        assert list(table.columns[: len(columns)]) == columns
        assert len(table) == 20
        assert (np.diff(adata.obsm[key + "_groups"].indptr) > 0).all()
    again = kernel_groups(adata, "spatial")
    pd.testing.assert_frame_equal(again, table)


def test_a_cell_at_a_centre_and_groups_without_cells(adata):
    adata.obs["t"] = np.repeat([0.0, 1.0], 250)
    table = kernel_groups(adata, "t", n_groups=11, cutoff=2.5)
    assert table["t"].round(1).tolist() == [0.0, 0.1, 0.2, 0.8, 0.9, 1.0]
    assert adata.obsm["kernel_groups"][0, 0] == 1


@pytest.mark.parametrize(
    ("key", "options", "error", "match"),
    [
        ("tt", {}, KeyError, "Did you mean 't'"),
        ("kind", {}, TypeError, "expected numbers"),
        ("t", {"n_groups": 0}, ValueError, "n_groups=0"),
        ("t", {"bandwidth": -1.0}, ValueError, "bandwidth=-1"),
        ("t", {"n_groups": 1}, ValueError, "Pass bandwidth="),
        ("t", {"centres": [[1.0, 2.0]]}, ValueError, r"expected finite numbers \(n_groups, 1\)"),
        ("t", {"centres": [9.0], "bandwidth": 0.1}, ValueError, "No cell lies within"),
    ],
)
def test_bad_input_is_refused(adata, key, options, error, match):
    with pytest.raises(error, match=match):
        kernel_groups(adata, key, **options)
    assert "kernel_groups" not in adata.obsm


def test_missing_values_are_refused(adata):
    adata.obs.iloc[3, 0] = np.nan
    with pytest.raises(ValueError, match="missing or infinite in 1 of 500 cells .*c3"):
        kernel_groups(adata, "t")
