"""Collections on disk hold what they were given, group by group."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

from scgde.data import _collection, open_collection, write_collection
from scgde.data._rows import files_of


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat(np.arange(4), (30, 1, 25, 9)))
    obs = pd.DataFrame(
        {
            "donor": np.array(list("dbca"))[codes],
            "age": 20.0 + codes,
            "batch": pd.Categorical(rng.choice(["x", "y"], 65)),
        },
        index=[f"cell{i}" for i in range(65)],
    )
    obsm = {"X_pca": rng.normal(size=(65, 5))}
    counts = rng.poisson(1.0, (65, 8)).astype(np.float32)
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, obsm=obsm, layers={"norm": counts})


def given(adata, folder, form):
    """The cells in a form that write_collection takes, and in the order that it has."""
    halves = [adata[:30].copy(), adata[30:].copy()]
    if form == "memory":
        return adata
    if form == "two":
        return halves
    if form == "zarr":
        adata.write_zarr(folder / "a.zarr")
        return folder / "a.zarr"
    for i, half in enumerate(halves):
        half.write_h5ad(folder / f"{i}.h5ad")
    if form == "backed":
        return [ad.read_h5ad(folder / f"{i}.h5ad", backed="r") for i in range(2)]
    return [str(folder / f"{i}.h5ad") for i in range(2)]


@pytest.mark.parametrize("form", ["memory", "two", "zarr", "backed", "paths"])
@pytest.mark.parametrize("rep", ["X", "X_pca", "norm"])
def test_cells_lie_group_by_group(adata, tmp_path, monkeypatch, form, rep):
    monkeypatch.setattr(_collection, "CELLS_PER_FILE", 16)
    monkeypatch.setattr(_collection, "BYTES_AT_A_TIME", 2000)
    options = {"layer": "norm"} if rep == "norm" else {"use_rep": rep}
    path = write_collection(
        given(adata, tmp_path, form), "donor", tmp_path / "c.zarr", columns=["age", "batch"], **options
    )
    read = open_collection(path)
    order = np.argsort(adata.obs["donor"], kind="stable")
    assert read.obs["donor"].astype(str).tolist() == adata.obs["donor"].iloc[order].tolist()
    assert read.obs["batch"].astype(str).tolist() == adata.obs["batch"].iloc[order].tolist()
    np.testing.assert_array_equal(read.obs["age"], adata.obs["age"].iloc[order])
    stored = {"X": lambda: read.X, "X_pca": lambda: read.obsm["X_pca"], "norm": lambda: read.layers["norm"]}[rep]()
    expected = {"X": adata.X.toarray(), "X_pca": adata.obsm["X_pca"], "norm": adata.layers["norm"]}[rep]
    np.testing.assert_array_equal(stored[:], expected[order].astype(np.float32))
    assert len(files_of(stored).paths) == 5
    assert read.var_names.tolist() == adata.var_names.tolist()
    assert not [name for name in tmp_path.iterdir() if name.name.startswith(".")]


def test_a_collection_is_read_by_anndata_and_annbatch(adata, tmp_path):
    path = write_collection(adata, ["donor", "batch"], tmp_path / "c.zarr", use_rep="X", columns=["age"])
    whole = ad.read_zarr(path / "dataset_0")
    assert whole.shape == adata.shape
    annbatch = pytest.importorskip("annbatch")
    loader = annbatch.Loader(batch_sampler=annbatch.samplers.SequentialSampler(10, 1, 10), preload_to_gpu=False)
    loader.use_collection(annbatch.DatasetCollection(path, mode="r"))
    np.testing.assert_array_equal(np.concatenate([np.asarray(batch["X"]) for batch in loader]), whole.X)


def test_what_breaks_off_leaves_nothing(adata, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        msg = "no space left on device"
        raise OSError(msg)

    monkeypatch.setattr(zarr.Group, "create_array", fail)
    with pytest.raises(OSError, match="no space left"):
        write_collection(adata, "donor", tmp_path / "c.zarr", use_rep="X_pca")
    assert list(tmp_path.iterdir()) == []


def test_cells_without_a_group(adata, tmp_path):
    adata.obs["donor"] = pd.Categorical(adata.obs["donor"].where(adata.obs["donor"] != "a"))
    with pytest.raises(ValueError, match=r"9 of 65 cells have no value.*drop_ungrouped=True"):
        write_collection(adata, "donor", tmp_path / "c.zarr", use_rep="X_pca")
    read = open_collection(write_collection(adata, "donor", tmp_path / "c.zarr", use_rep="X_pca", drop_ungrouped=True))
    assert read.n_obs == 56
    assert read.obs["donor"].notna().all()


def test_files_of_different_categories(adata, tmp_path):
    parts = [adata[adata.obs["donor"] < "c"].copy(), adata[adata.obs["donor"] >= "b"].copy()]
    read = open_collection(write_collection(parts, "donor", tmp_path / "c.zarr", use_rep="X_pca", columns=["batch"]))
    assert read.obs["donor"].value_counts().to_dict() == {"d": 30, "b": 2, "c": 25, "a": 9}


def wide(adata):
    return ad.AnnData(np.zeros((3, 60), np.float32), obs=adata.obs[:3])


BAD = {
    "unknown column": (lambda a: a, {"columns": ["agee"]}, KeyError, "Did you mean 'age'"),
    "unknown group": (lambda a: a, {"groupby": "doner"}, KeyError, "Did you mean 'donor'"),
    "unknown representation": (lambda a: a, {"use_rep": "X_pcs"}, KeyError, "Did you mean 'X_pca'"),
    "no file": (lambda a: "nothing.h5ad", {}, FileNotFoundError, "There is no 'nothing.h5ad'"),
    "no cells": (lambda a: [], {}, ValueError, "pass an AnnData or a path"),
    "no AnnData": (lambda a: [3], {}, TypeError, "received int"),
    "many variables": (wide, {"use_rep": None}, ValueError, r"60 variables.*sc\.pp\.pca"),
    "other features": (
        lambda a: [a, ad.AnnData(obs=a.obs, obsm={"X_pca": a.obsm["X_pca"][:, :3]})],
        {},
        ValueError,
        r"Part 1 has 3 features.*first part 5",
    ),
    "not finite": (
        lambda a: ad.AnnData(obs=a.obs, obsm={"X_pca": np.where(a.obs["age"].to_numpy()[:, None] > 22, np.nan, 1.0)}),
        {},
        ValueError,
        "NaN or infinity",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_writes_nothing(adata, tmp_path, case):
    make, options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        write_collection(
            make(adata), **{"groupby": "donor", "path": tmp_path / "c.zarr", "use_rep": "X_pca", **options}
        )
    assert list(tmp_path.iterdir()) == []


def test_an_existing_path_is_kept(adata, tmp_path):
    (tmp_path / "c.zarr").mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        write_collection(adata, "donor", tmp_path / "c.zarr", use_rep="X_pca")


def test_what_is_no_collection(adata, tmp_path):
    with pytest.raises(FileNotFoundError, match="write_collection"):
        open_collection(tmp_path / "none.zarr")
    adata.write_zarr(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="is no collection"):
        open_collection(tmp_path / "a.zarr")
