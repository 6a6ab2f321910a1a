"""Cells on disk give what the same cells in memory give."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scgde import GDE, TDE
from scgde.data import _cells, open_collection, write_collection
from scgde.data._rows import RowFiles, StoredRows

SETUP = {"labels": ["disease", "age"], "batch_key": "library", "weight_key": "mass", "split_key": "split"}
COLUMNS = ["disease", "age", "library", "mass", "split"]


def same_model(left, right):
    assert left.history.keys() == right.history.keys()
    for name, frame in left.history.items():
        pd.testing.assert_frame_equal(frame, right.history[name])
    for name, value in left.module.state_dict().items():
        assert value.equal(right.module.state_dict()[name]), name


@pytest.fixture(scope="module")
def in_memory(make_adata, make_model):
    adata = make_adata(n_groups=7, n_cells=40)
    return make_model(adata.copy(), use_rep="X", steps=20, **SETUP), adata


@pytest.fixture
def collection(in_memory, tmp_path):
    parts = [in_memory[1][:100].copy(), in_memory[1][100:].copy()]
    return write_collection(parts, "donor", tmp_path / "c.zarr", use_rep="X", columns=COLUMNS)


def test_training_on_a_collection_is_training_in_memory(in_memory, collection, tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(_cells, "CELLS_AT_A_TIME", 64)
    expected, adata = in_memory
    model = GDE.setup_annbatch(collection, **SETUP)
    assert model.adata.n_obs == adata.n_obs
    model = GDE(model.adata, **tiny.options)
    model.train(max_steps=20, **tiny.train)
    same_model(model, expected)
    z = model.get_group_embedding(write_obsm=False)
    np.testing.assert_allclose(z, expected.get_group_embedding(key_added=None), atol=1e-6)
    np.testing.assert_allclose(model.predict("disease"), expected.predict("disease"), atol=1e-5)
    # Each is of use to the other: in memory, and after saving.
    np.testing.assert_allclose(model.get_group_embedding(adata, key_added=None), z, atol=1e-6)
    model.save(tmp_path / "model")
    loaded = GDE.load(tmp_path / "model", adata=open_collection(collection))
    np.testing.assert_array_equal(loaded.get_group_embedding(key_added=None), z)
    model.train(max_steps=3, **tiny.train)
    assert model.steps_ == 23


def test_no_more_is_read_than_a_step_needs(in_memory, collection, tiny, monkeypatch):
    read = []
    rows_of = RowFiles.read
    monkeypatch.setattr(RowFiles, "read", lambda self, rows: (read.append(len(rows)), rows_of(self, rows))[1])
    model = GDE.setup_annbatch(collection, **SETUP)
    assert sum(read) == 0
    data = model.representation.read(model.adata)
    assert isinstance(data, StoredRows)
    model.train(max_steps=1, batch_size=2, cells_per_group=4, **tiny.train)
    # Two passes (moments, statistics) and a few validation batches; the step itself has 2 groups of 4 + 8 cells.
    assert min(read) <= 16


def test_backed_principal_components(make_adata, make_model, tmp_path):
    adata = make_adata(n_vars=60)
    expected = make_model(adata.copy())
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    model = make_model(backed)
    same_model(model, expected)
    backed.file.close()


@pytest.mark.parametrize("where", ["X", "obsm"])
def test_dask_arrays_are_embedded(make_adata, make_model, model, where):
    dask = pytest.importorskip("dask.array")
    new = make_adata(seed=5, prefix="new")
    if where == "obsm":
        new.obsm["X_rep"] = new.X.copy()
        model = make_model(new.copy(), use_rep="X_rep")
    expected = model.get_group_embedding(new, key_added=None)
    lazy = new.copy()
    array = dask.from_array(new.X, chunks=(50, 4))
    if where == "X":
        lazy.X = array
    else:
        lazy.obsm["X_rep"] = array
    np.testing.assert_array_equal(model.get_group_embedding(lazy), expected)
    assert model.transport("new_0", "new_1", lazy).n_obs == 30


def test_populations_at_times_on_disk(make_adata, tiny, tmp_path):
    adata = make_adata()
    adata.obs["day"] = np.arange(adata.n_obs) % 2
    path = write_collection(adata, ["donor", "day"], tmp_path / "c.zarr", use_rep="X")
    model = TDE.setup_annbatch(path, "donor", time_key="day")
    model = TDE(model.adata, **tiny.options)
    model.train(max_steps=3, **tiny.train)
    assert model.get_group_embedding(key_added=None).shape == (12, 6)
    n_moved = ((adata.obs["donor"] == "donor_0") & (adata.obs["day"] == 0)).sum()
    assert model.transport(("donor_0", 0), ("donor_0", 1)).n_obs == n_moved


def test_what_does_not_suit_a_collection(collection):
    with pytest.raises(KeyError, match="Did you mean 'disease'"):
        GDE.setup_annbatch(collection, labels=["diseas"])
    with pytest.raises(TypeError, match="use_rep"):
        GDE.setup_annbatch(collection, use_rep="X_pca")
