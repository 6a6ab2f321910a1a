"""Rows of matrices that stay where they are stored."""

import anndata as ad
import h5py
import numpy as np
import pytest
import zarr
from scipy import sparse

from scgde.data._rows import StoredRows, files_of, is_stored

X = np.random.default_rng(0).normal(size=(500, 7)).astype(np.float32) * (np.arange(7) != 3)


def plain_zarr(folder, **options):
    array = zarr.create_array(folder / "x.zarr", shape=X.shape, dtype="f8", **options)
    array[:] = X
    return zarr.open_array(folder / "x.zarr", mode="r")


def hdf5(folder, **options):
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("other", data=np.arange(3))
        file.create_dataset("x", data=X, **options)
    return h5py.File(folder / "x.h5")["x"]


def sparse_h5ad(folder, form):
    ad.AnnData(form(X)).write_h5ad(folder / "x.h5ad")
    return ad.read_h5ad(folder / "x.h5ad", backed="r").X


def dask(folder):
    return pytest.importorskip("dask.array").from_array(X, chunks=(64, 7))


KINDS = {
    "zarr, plain": lambda folder: plain_zarr(folder, chunks=(64, 7), compressors=None),
    "zarr, one file": lambda folder: plain_zarr(folder, chunks=(500, 7), compressors=None),
    "zarr, compressed": lambda folder: plain_zarr(folder, chunks=(64, 7)),
    "zarr, shards": lambda folder: plain_zarr(folder, chunks=(10, 7), shards=(100, 7), compressors=None),
    "zarr, columns": lambda folder: plain_zarr(folder, chunks=(64, 3), compressors=None),
    "hdf5, plain": hdf5,
    "hdf5, compressed": lambda folder: hdf5(folder, chunks=(64, 7), compression="gzip"),
    "h5ad, csr": lambda folder: sparse_h5ad(folder, sparse.csr_matrix),
    "h5ad, csc": lambda folder: sparse_h5ad(folder, sparse.csc_matrix),
    "dask": dask,
}


def dense(values):
    return np.asarray(values.toarray() if sparse.issparse(values) else values, dtype=np.float32)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_any_rows_in_any_order(kind, tmp_path):
    values = KINDS[kind](tmp_path)
    assert is_stored(values)
    assert (files_of(values) is not None) == (kind in {"zarr, plain", "zarr, one file", "hdf5, plain"})
    rows = StoredRows(values, dense, 7, np.arange(500).astype(str), "x")
    assert rows.shape == X.shape
    assert len(rows) == 500
    rng = np.random.default_rng(1)
    for index in (rng.integers(0, 500, (5, 40)), rng.permutation(500)[:9], np.arange(60, 70), [499], [], X[:, 0] > 0):
        index = np.asarray(index, dtype=None if len(index) else int)
        np.testing.assert_array_equal(rows[index], X[index])
    np.testing.assert_array_equal(rows[3:400:7], X[3:400:7])
    np.testing.assert_array_equal(np.asarray(rows), X)


def test_what_is_in_memory_is_not_stored():
    assert not any(is_stored(values) for values in (X, sparse.csr_matrix(X), sparse.csc_array(X)))


def test_what_is_not_finite_is_noticed_when_it_is_read(tmp_path):
    values = plain_zarr(tmp_path, chunks=(64, 7), compressors=None)
    zarr.open_array(tmp_path / "x.zarr", mode="r+")[100, 2] = np.nan
    rows = StoredRows(values, dense, 7, np.array([f"cell{i}" for i in range(500)]), "adata.X")
    assert np.isfinite(rows[:100]).all()
    with pytest.raises(ValueError, match=r"adata\.X holds NaN or infinity in 1 of 3 cells \('cell100'\)"):
        rows[[99, 100, 101]]


def test_a_truncated_file_is_noticed(tmp_path):
    values = hdf5(tmp_path)
    rows = StoredRows(values, dense, 7, np.arange(500).astype(str), "x")
    file = tmp_path / "x.h5"
    file.write_bytes(file.read_bytes()[: values.id.get_offset() + 4 * 7 * 300])
    np.testing.assert_array_equal(rows[:200], X[:200])
    for index in (slice(250, 350), [0, 450]):
        with pytest.raises(ValueError, match="reshape|buffer"):
            rows[index]
