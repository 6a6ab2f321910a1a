"""Features of cells that stay where they are stored until their rows are asked for."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scgde._validation import check_finite

#: Reads sorted, distinct rows.
Reader = Callable[[np.ndarray], Any]

#: Rows of a chunked array that are in memory at a time while some of them are picked.
ROWS_AT_A_TIME = 65_536


def is_stored(values: Any) -> bool:
    """Whether a matrix is a file, or a recipe (dask), and no array in memory."""
    return not (isinstance(values, np.ndarray | pd.DataFrame) or sparse.issparse(values))


class StoredRows:
    """A matrix of cells and features that is read row by row, in any order, as float32.

    Parameters
    ----------
    values
        What is stored, (n_cells, n): a dataset of HDF5 or zarr, dense or sparse, or a dask array.
    convert
        From stored rows to features: a choice of columns, a projection.
    n_features
        Number of features after that.
    obs_names
        Names of the cells, for messages.
    name
        How the user would write the matrix.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(
        self, values: Any, convert: Callable[[Any], np.ndarray], n_features: int, obs_names: pd.Index, name: str
    ) -> None:
        self.shape = (values.shape[0], n_features)
        self._read, self._convert = reader(values), convert
        self._obs_names, self._name = obs_names, name

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        # Each row is read once, in the order of the file.
        distinct, place = np.unique(rows, return_inverse=True)
        values = self._convert(self._read(distinct))
        if not np.isfinite(values.sum()):
            check_finite(values, self._obs_names[distinct], self._name)
        return values[place.reshape(rows.shape)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)


#: Features of cells (n_cells, n_features), in memory or stored.
CellRows = np.ndarray | StoredRows


def reader(values: Any) -> Reader:
    """How to read sorted, distinct rows of what is stored."""
    files = files_of(values)
    if files is not None:
        return files.read
    if hasattr(values, "compute"):
        return lambda rows: values[rows].compute()
    if getattr(values, "format", None) == "csc":
        # Rows lie scattered over the whole file.
        values = values.to_memory().tocsr()
    if hasattr(values, "format"):
        return lambda rows: values[rows]
    return lambda rows: _from_chunks(values, rows)


def _from_chunks(values: Any, rows: np.ndarray) -> np.ndarray:
    """Rows of a chunked dense array. Picking rows inside HDF5 or zarr is far slower than reading what holds them."""
    n = ROWS_AT_A_TIME - ROWS_AT_A_TIME % (values.chunks or (1,))[0] or values.chunks[0]
    parts = [values[:0]]
    for block in np.unique(rows // n):
        own = rows[slice(*np.searchsorted(rows, (block * n, (block + 1) * n)))]
        parts.append(values[own[0] : own[-1] + 1][own - own[0]])
    return np.concatenate(parts)


@dataclass(frozen=True)
class RowFiles:
    """Rows that lie one after the other, uncompressed, in one or several files, which are kept open.

    Parameters
    ----------
    paths
        Files, in order.
    starts
        (files + 1,) first row of each file.
    offset
        Bytes before the first row of each file.
    dtype
        Of the numbers.
    n_columns
        Numbers per row.
    """

    paths: list[Path]
    starts: np.ndarray
    offset: int
    dtype: np.dtype
    n_columns: int
    _open: dict[Path, Any] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def __del__(self) -> None:
        for file in self._open.values():
            file.close()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Sorted rows."""
        result = np.empty((len(rows), self.n_columns), dtype=self.dtype)
        edges = np.searchsorted(rows, self.starts)
        for i in np.flatnonzero(np.diff(edges)):
            part = slice(edges[i], edges[i + 1])
            result[part] = self._read_one(self.paths[i], rows[part] - self.starts[i])
        return result

    def _read_one(self, path: Path, rows: np.ndarray) -> np.ndarray:
        file = self._open.get(path) or self._open.setdefault(path, path.open("rb", buffering=0))
        first, n = int(rows[0]), int(rows[-1] - rows[0] + 1)
        if n <= 4 * len(rows):
            # Most of the stretch is asked for: one read, with the system's read-ahead.
            file.seek(self.offset + first * self.n_columns * self.dtype.itemsize)
            values = np.fromfile(file, self.dtype, n * self.n_columns).reshape(n, self.n_columns)
            return values if n == len(rows) else values[rows - first]
        # Single rows are picked from pages, without reading ahead. The mapping ends with the call: pages that were
        # touched long ago must not count as memory of this process.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
            if hasattr(mmap, "MADV_RANDOM"):
                pages.madvise(mmap.MADV_RANDOM)
            count = (int(rows[-1]) + 1) * self.n_columns
            values = np.frombuffer(pages, self.dtype, count, self.offset).reshape(-1, self.n_columns)
            picked = values[rows]
            del values
        return picked


def files_of(values: Any) -> RowFiles | None:
    """The files that hold a dense array as plain rows, or None: compressed, chunked by column, or not on this disk."""
    kind = type(values).__module__.partition(".")[0]
    if getattr(values, "ndim", 0) != 2 or kind not in ("h5py", "zarr"):
        return None
    return _hdf5_file(values) if kind == "h5py" else _zarr_files(values)


def _hdf5_file(values: Any) -> RowFiles | None:
    offset = values.id.get_offset()
    if offset is None or values.external or values.file.driver not in ("sec2", "stdio"):
        return None
    starts = np.array([0, values.shape[0]])
    return RowFiles([Path(values.file.filename)], starts, offset, values.dtype, values.shape[1])


def _zarr_files(values: Any) -> RowFiles | None:
    root = getattr(values.store, "root", None)
    endian = getattr(getattr(values, "serializer", None), "endian", None)
    plain = not values.compressors and not values.filters and values.shards is None and values.order == "C"
    if not (isinstance(root, Path) and plain and values.chunks[1] == values.shape[1] and endian is not None):
        return None
    starts = np.append(np.arange(0, values.shape[0], values.chunks[0]), values.shape[0])
    keys = [values.metadata.encode_chunk_key((i, 0)) for i in range(len(starts) - 1)]
    paths = [root / values.store_path.path / key for key in keys]
    if not all(path.is_file() for path in paths):
        return None
    dtype = np.dtype(values.dtype).newbyteorder({"little": "<", "big": ">"}[getattr(endian, "value", endian)])
    return RowFiles(paths, starts, 0, dtype, values.shape[1])
