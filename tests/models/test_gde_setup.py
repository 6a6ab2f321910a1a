"""Both idioms, and every kind of AnnData that a user may bring."""

import subprocess
import sys
from contextlib import suppress

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from scgde import GDE


def test_setup_returns_a_ready_model(make_adata, tiny):
    adata = make_adata()
    model = GDE.setup_anndata(adata, groupby="donor")
    assert isinstance(model, GDE)
    assert model.adata is adata
    assert "6 groups by donor (180 cells), reads adata.X" in repr(model)
    assert "not trained: call model.train()" in repr(model)
    model.train(max_steps=2, **tiny.train)
    assert model.get_group_embedding(key_added=None).shape == (6, 128)
    assert "trained for 2 steps" in repr(model)


def test_both_idioms_give_the_same_bits(make_adata, tiny):
    first, second = make_adata(), make_adata()
    one = GDE.setup_anndata(first, groupby="donor")
    GDE.setup_anndata(second, groupby="donor")
    two = GDE(second)
    for model in (one, two):
        np.random.seed(int(model is one))  # global state does not matter
        torch.manual_seed(int(model is one))
        model.train(max_steps=3, **tiny.train)
    pd.testing.assert_frame_equal(one.get_group_embedding(), two.get_group_embedding(), check_exact=True)


def test_init_draws_nothing_and_reads_no_cells(make_adata, tiny):
    adata = make_adata()
    GDE.setup_anndata(adata, groupby="donor")
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    del adata.X  # a cell that is read would be missed
    GDE(adata, **tiny.options)
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, np.random.get_state(), strict=True))
    assert torch.equal(torch_state, torch.get_rng_state())


def test_methods_leave_global_randomness_alone(make_adata, make_model, tiny):
    adata = make_adata()
    torch.manual_seed(3)
    np.random.seed(3)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    model = make_model(adata)
    model.get_group_embedding()
    model.sample("donor_1", 10)
    model.transport("donor_1", "donor_2")
    assert np.array_equal(numpy_state, np.random.get_state()[1])
    assert torch.equal(torch_state, torch.get_rng_state())


SCRIPT = """
import numpy as np, pandas as pd
from anndata import AnnData
from scgde import GDE
rng = np.random.default_rng(0)
obs = pd.DataFrame({"donor": rng.permutation(np.repeat(list("abcdef"), 20))}, index=[str(i) for i in range(120)])
adata = AnnData(rng.normal(size=(120, 60)).astype("float32"), obs=obs)
model = GDE.setup_anndata(adata, "donor")
model.train(max_steps=5, accelerator="cpu", enable_progress_bar=False)
result = model.get_group_embedding().to_numpy().tobytes().hex()
"""


@pytest.mark.slow
def test_two_processes_give_the_same_bits():
    torch.manual_seed(11)  # of this process; the other one is as it starts
    here = {}
    exec(SCRIPT, here)
    command = f"import torch; torch.set_num_threads({torch.get_num_threads()}){SCRIPT}\nprint('BYTES' + result)"
    there = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert len(here["result"]) == 6 * 128 * 4 * 2
    assert there.split("BYTES")[1].strip() == here["result"]


def test_view_anndata_setup(model, capsys):
    model.view_anndata_setup(model.adata)
    shown = capsys.readouterr().out
    assert "'groupby': 'donor'" in shown
    assert "n_groups" in shown


# --- where the numbers are -------------------------------------------------------------------------------------------


def _wide(adata):
    """60 genes of distinct variances, so that without further word their principal components are read."""
    noise = np.random.default_rng(1).normal(size=(adata.n_obs, 60 - adata.n_vars)) * 0.93 ** np.arange(
        60 - adata.n_vars
    )
    x = np.hstack([adata.X, noise.astype(np.float32)])
    return ad.AnnData(x, obs=adata.obs, var=pd.DataFrame(index=[f"g{i}" for i in range(60)]))


def _x_as(form):
    def prepare(adata):
        adata.X = form(adata.X)
        return adata, {}

    return prepare


def _layer(adata):
    adata.layers["log"] = adata.X.copy()
    adata.X = np.full_like(adata.X, 7)
    return adata, {"layer": "log"}


def _sparse_layer(adata):
    adata.layers["log"] = sparse.csr_matrix(adata.X)
    return adata, {"layer": "log"}


def _obsm(adata):
    adata.obsm["emb"] = adata.X.astype(float)
    return adata, {"use_rep": "emb"}


def _obsm_frame(adata):
    adata.obsm["emb"] = pd.DataFrame(adata.X, index=adata.obs_names, columns=list("abcd"))
    return adata, {"use_rep": "emb"}


def _default_pca(adata):
    wide = _wide(adata)
    wide.obsm["X_pca"] = adata.X.copy()
    return wide, {}


SOURCES = {
    "dense": _x_as(np.array),
    "float64": _x_as(lambda x: x.astype(np.float64)),
    "fortran": _x_as(np.asfortranarray),
    "csr": _x_as(sparse.csr_matrix),
    "csc": _x_as(sparse.csc_matrix),
    "csr_array": _x_as(sparse.csr_array),
    "layer": _layer,
    "sparse layer": _sparse_layer,
    "obsm": _obsm,
    "obsm frame": _obsm_frame,
    "X_pca": _default_pca,
}


@pytest.mark.parametrize("prepare", SOURCES.values(), ids=SOURCES.keys())
def test_the_same_numbers_give_the_same_embedding_wherever_they_are(make_adata, make_model, model, prepare):
    adata, setup = prepare(make_adata())
    other = make_model(adata, steps=30, **setup)
    pd.testing.assert_frame_equal(
        other.get_group_embedding(), model.get_group_embedding(key_added=None), check_exact=True
    )


@pytest.mark.parametrize("form", [np.array, sparse.csr_matrix])
def test_genes_are_read_by_their_principal_components(make_adata, make_model, form):
    adata = _wide(make_adata())
    expected = make_model(adata.copy()).get_group_embedding()
    adata.X = form(adata.X)
    model = make_model(adata)
    assert "principal components" in repr(model)
    np.testing.assert_allclose(model.get_group_embedding(), expected, atol=1e-2)
    assert list(adata.obsm) == ["X_gde"]  # the components stay with the model
    assert list(adata.varm) == []
    generated = model.sample("donor_0", 5)
    assert generated.var_names[0] == "PC_1"
    np.testing.assert_array_equal(generated.obsm["X_pca"], generated.X)


# --- what the groups are ---------------------------------------------------------------------------------------------

GROUPS = {
    "str": lambda code: [f"d{i}" for i in code],
    "object": lambda code: np.array([f"d{i}" for i in code], dtype=object),
    "string": lambda code: pd.array([f"d{i}" for i in code], dtype="string"),
    "int": lambda code: 10 * code - 7,
    "int8": lambda code: code.astype("int8"),
    "nullable int": lambda code: pd.array(code, dtype="Int64"),
    "float": lambda code: code / 4,
    "bool": lambda code: code > 2,
    "unused categories": lambda code: pd.Categorical(
        [f"d{i}" for i in code], categories=["z", *["d5", "d4", "d3", "d2", "d1", "d0"]]
    ),
    "ordered": lambda code: pd.Categorical([f"d{i}" for i in code], [f"d{i}" for i in range(9)], ordered=True),
    "int categories": lambda code: pd.Categorical(code, categories=[9, 5, 4, 3, 2, 1, 0]),
}


@pytest.mark.parametrize("values", GROUPS.values(), ids=GROUPS.keys())
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_groups_of_any_dtype_from_setup_to_file(make_adata, make_model, tmp_path, values, suffix):
    adata = make_adata()
    code = adata.obs["donor"].str.removeprefix("donor_").astype(int).to_numpy()
    adata.obs["g"] = values(code)
    dtype = adata.obs["g"].dtype
    model = make_model(adata, "g")
    z = model.get_group_embedding()
    assert z.index.dtype == dtype
    assert z.index.tolist() == adata.obs["g"].drop_duplicates().sort_values().tolist()
    groups = adata.uns["gde"]["groups"]["g"]
    np.testing.assert_array_equal(adata.obsm["X_gde"], z.to_numpy()[z.index.get_indexer(adata.obs["g"])])
    assert model.sample([z.index[0]], 4).obs["g"].tolist() == [z.index[0]] * 4
    assert model.sample(str(z.index[0]), 4).n_obs == 4

    path = tmp_path / f"results.{suffix}"
    getattr(adata, {"h5ad": "write_h5ad", "zarr": "write_zarr"}[suffix])(path)
    again = {"h5ad": ad.read_h5ad, "zarr": ad.read_zarr}[suffix](path)
    np.testing.assert_array_equal(again.uns["gde"]["embedding"], z)
    np.testing.assert_array_equal(again.obsm["X_gde"], adata.obsm["X_gde"])
    read = again.uns["gde"]["groups"]["g"]
    assert read.tolist() == z.index.tolist()
    assert pd.api.types.is_string_dtype(dtype) or read.dtype == dtype == groups.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        assert read.cat.categories.tolist() == dtype.categories.tolist()
        assert read.cat.ordered == dtype.ordered
    assert model.get_group_embedding(again, key_added=None).shape == z.shape


def test_two_grouping_columns(make_adata, make_model, tmp_path):
    adata = make_adata()
    adata.obs["day"] = pd.Categorical(np.where(adata.obs["library"] == "a", 4, 6))
    model = make_model(adata, ["donor", "day"])
    z = model.get_group_embedding()
    assert z.index.names == ["donor", "day"]
    assert len(z) == 12
    assert model.sample(("donor_2", 6), 3).obs[["donor", "day"]].drop_duplicates().to_numpy().tolist() == [
        ["donor_2", 6]
    ]
    assert model.sample([("donor_2", "6"), ("donor_0", 4)], 3).n_obs == 6
    assert (
        model.transport(("donor_2", 6), ("donor_0", 4)).n_obs
        == ((adata.obs["donor"] == "donor_2") & (adata.obs["day"] == 6)).sum()
    )
    assert model.to_group_adata().obs_names[0] == "donor_0 | 4"
    adata.write_h5ad(tmp_path / "two.h5ad")
    groups = ad.read_h5ad(tmp_path / "two.h5ad").uns["gde"]["groups"]
    assert groups["day"].tolist() == [4, 6] * 6
    assert groups["donor"].tolist() == [f"donor_{i}" for i in range(6) for _ in range(2)]


def test_groups_of_one_cell(make_adata, make_model):
    adata = make_adata(n_groups=8, n_cells=6)
    adata.obs["clone"] = np.where(adata.obs["donor"].isin(["donor_0", "donor_1"]), adata.obs_names, adata.obs["donor"])
    model = make_model(adata, "clone")
    z = model.get_group_embedding()
    assert z.shape == (18, 6)
    assert np.isfinite(z).all(axis=None)
    single = z.index[z.index.str.contains("cell")][0]
    assert np.isfinite(model.sample(single, 5).X).all()
    assert model.transport(single, "donor_3").n_obs == 1
    assert model.transport("donor_3", single).n_obs == 6


def test_all_groups_of_one_cell(make_adata, make_model):
    adata = make_adata(n_groups=1, n_cells=40)
    adata.obs["clone"] = adata.obs_names
    model = make_model(adata, "clone")
    assert np.isfinite(model.get_group_embedding()).all(axis=None)
    assert model.transport(adata.obs_names[0], adata.obs_names[1]).n_obs == 1


def test_two_groups_of_one_cell_with_genes(make_model):
    adata = ad.AnnData(
        np.random.default_rng(0).normal(size=(2, 60)).astype(np.float32),
        obs=pd.DataFrame({"d": ["a", "b"]}, index=["1", "2"]),
    )
    z = make_model(adata, "d").get_group_embedding()
    assert np.isfinite(z).all(axis=None)


def test_cells_without_group_get_no_embedding(make_adata, make_model):
    adata = make_adata()
    adata.obs.loc[adata.obs_names[:7], "donor"] = None
    model = make_model(adata, drop_ungrouped=True)
    z = model.get_group_embedding()
    assert len(z) == 6
    assert np.isnan(adata.obsm["X_gde"][:7]).all()
    assert np.isfinite(adata.obsm["X_gde"][7:]).all()
    pd.testing.assert_frame_equal(z, model.get_group_embedding(adata[7:], key_added=None), atol=1e-5)
    assert np.isnan(model.get_latent_representation()[:7]).all()
    assert model.to_group_adata().obs["n_cells"].sum() == adata.n_obs - 7


def test_setup_again_after_a_failed_setup(make_adata, make_model):
    adata = make_adata()
    with suppress(KeyError):
        GDE.setup_anndata(adata, groupby="patient")
    assert make_model(adata).get_group_embedding().shape == (6, 6)
