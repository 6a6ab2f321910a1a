"""Groups that overlap: a matrix of memberships, cells x groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from scgde._constants import GROUP_NAMES
from scgde._validation import listing, unknown_key
from scgde.data._groups import GroupIndex


def read_membership(adata: AnnData, key: str) -> tuple[GroupIndex, np.ndarray | None]:
    """Groups of a matrix of memberships, and the weight of each entry, or None where all are equal.

    Entries are ordered by group, then by cell, as in a matrix of columns: nothing is larger than its non-zeros.

    Parameters
    ----------
    adata
        Cells, with a matrix (n_cells, n_groups) of numbers of at least 0 in ``.obsm[key]``: sparse, dense or a
        DataFrame. Groups are named by the columns of the DataFrame, else by ``.uns[key]["names"]``, else by number.
    key
        Key of ``.obsm``.
    """
    if key not in adata.obsm:
        raise KeyError(unknown_key(key, adata.obsm.keys(), "adata.obsm (membership_key=)").args[0])
    values = adata.obsm[key]
    name = f"adata.obsm[{key!r}] (membership_key=)"
    matrix = _columns(values, name)
    groups = _names(adata, key, values, matrix.shape[1])
    if groups.has_duplicates:
        msg = f"{name} names group(s) {listing(groups[groups.duplicated()])} several times: give each column its name."
        raise ValueError(msg)
    sizes = np.diff(matrix.indptr)
    if not sizes.all():
        msg = (
            f"{(sizes == 0).sum()} of {len(sizes)} groups of {name} have no cell ({listing(groups[sizes == 0])}). "
            "Remove these columns."
        )
        raise ValueError(msg)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    index = GroupIndex(codes, pd.DataFrame({key: groups}), matrix.indices.astype(np.int64))
    equal = (matrix.data == matrix.data[0]).all()
    return index, None if equal else matrix.data.astype(np.float64)


def components(index: GroupIndex) -> np.ndarray:
    """(n_groups,) number of the set that each group is in: groups of different sets share no cell."""
    if index.rows is None:
        return np.arange(len(index))
    n_groups = len(index)
    nodes = n_groups + int(index.rows.max()) + 1
    ends = (index.codes, n_groups + index.rows)
    links = sparse.coo_array((np.ones(len(index.codes), dtype=bool), ends), (nodes, nodes))
    label = connected_components(links, directed=False)[1][:n_groups]
    return np.unique(label, return_inverse=True)[1]


def _columns(values: Any, name: str) -> sparse.csc_array:
    """Non-zeros by column, in the order of the cells."""
    if isinstance(values, pd.DataFrame):
        values = _of_frame(values)
    if values.ndim != 2 or not values.shape[1]:
        msg = f"{name} has shape {values.shape}, expected (n_cells, n_groups)."
        raise ValueError(msg)
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        msg = f"{name} holds {values.dtype}, expected numbers of at least 0."
        raise TypeError(msg)
    matrix = sparse.csc_array(values, copy=True)
    if matrix.dtype == bool:
        matrix = matrix.astype(np.float32)
    matrix.sum_duplicates()
    bad = ~np.isfinite(matrix.data) | (matrix.data < 0)
    if bad.any():
        msg = (
            f"{name} holds {bad.sum():,} negative, missing or infinite values, e.g. {listing(matrix.data[bad], 3)}. "
            "Memberships are masses of cells in groups: give numbers of at least 0."
        )
        raise ValueError(msg)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix


def _of_frame(frame: Any) -> Any:
    """Sparse columns stay sparse."""
    is_sparse = all(isinstance(dtype, pd.SparseDtype) for dtype in frame.dtypes)
    return frame.sparse.to_coo() if is_sparse else frame.to_numpy()


def _names(adata: AnnData, key: str, values: Any, n_groups: int) -> pd.Index:
    if isinstance(values, pd.DataFrame):
        return pd.Index(values.columns)
    stored = adata.uns.get(key)
    names = stored.get(GROUP_NAMES) if isinstance(stored, dict) else None
    if names is None:
        return pd.Index([str(i) for i in range(n_groups)])
    if len(names) != n_groups:
        msg = (
            f"adata.uns[{key!r}][{GROUP_NAMES!r}] names {len(names)} groups, adata.obsm[{key!r}] has {n_groups} "
            "columns: expected one name per column."
        )
        raise ValueError(msg)
    return pd.Index(np.asarray(names).tolist())
