"""What users get back, and where it is written."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData, ImplicitModificationWarning

from scgde._constants import EMBEDDING, GROUPS, PREDICTIONS, SETTINGS, STANDARD_ERRORS
from scgde.data import GroupedObs, GroupIndex, Representation
from scgde.data._genes import GeneSpace
from scgde.uncertainty import MIN_CELLS


def embedding_frame(z: np.ndarray, index: pd.Index) -> pd.DataFrame:
    """Embedding with one row per group and one column per latent dimension."""
    return pd.DataFrame(z, index=index, columns=[f"z{i + 1}" for i in range(z.shape[1])])


def per_cell(z: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(n_cells, n_latent) embedding of each cell's group; NaN for cells without one."""
    return np.where((codes >= 0)[:, None], z[codes], np.float32(np.nan))


def write_embedding(
    adata: AnnData,
    key: str,
    z: np.ndarray,
    obs: GroupedObs,
    settings: dict[str, Any],
    *,
    se: np.ndarray | None = None,
    n_effective: np.ndarray | None = None,
    p_value: np.ndarray | None = None,
    write_obsm: bool,
) -> None:
    """Write ``.uns[key]`` and ``.obsm["X_" + key]``; everything is computed before anything is changed."""
    columns: dict[str, Any] = {} if p_value is None else {"p_value": p_value}
    if n_effective is not None:
        columns |= {"n_effective": n_effective, "few_cells": n_effective < MIN_CELLS}
    table = obs.table
    table = table.assign(**{name: value for name, value in columns.items() if name not in table})
    table = table.set_axis([str(i) for i in range(len(obs.index))]).apply(_writable)
    entry: dict[str, Any] = {EMBEDDING: z, GROUPS: table, SETTINGS: settings}
    if se is not None:
        entry[STANDARD_ERRORS] = se
    cells = per_cell(z, obs.index.codes) if write_obsm else None
    with warnings.catch_warnings():
        # Results were asked for: a view becomes an AnnData of its own, as with scanpy.
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        adata.uns[key] = entry
        if cells is not None:
            adata.obsm[f"X_{key}"] = cells


def write_predictions(
    adata: AnnData,
    key: str,
    label: str,
    frame: pd.DataFrame,
    z: np.ndarray,
    obs: GroupedObs,
    settings: dict[str, Any],
    p_value: np.ndarray | None,
) -> None:
    """Write the prediction of a label to ``.uns[key]["predictions"]``, beside those of other labels of these groups.

    Names of groups, labels and classes are values, which hold anything. The embedding comes with it where ``.uns[key]``
    is not one of these groups.
    """
    outcomes = frame.shape[1]
    table = obs.index.table.iloc[np.repeat(np.arange(len(frame)), outcomes)].copy()
    table["label"] = label
    table["outcome"] = np.tile([str(name) for name in frame.columns], len(frame))
    table["value"] = frame.to_numpy(dtype=float).ravel()
    if p_value is not None:
        table["p_value"] = np.repeat(p_value, outcomes)
    entry = adata.uns.get(key)
    if not isinstance(entry, dict) or not np.array_equal(entry.get(EMBEDDING, ()), z.astype(np.float32)):
        write_embedding(adata, key, z.astype(np.float32), obs, settings, p_value=p_value, write_obsm=False)
        entry = adata.uns[key]
    before = entry.get(PREDICTIONS)
    if before is not None:
        table = pd.concat([before[before["label"].astype(str) != label], table])
    table = table.set_axis([str(i) for i in range(len(table))]).apply(_writable)
    adata.uns[key] = {**entry, PREDICTIONS: table}


def _writable(column: pd.Series) -> pd.Series:
    """Text in a form that h5ad and zarr hold: nullable text as objects and, as in obs, missing text as a category."""
    if not pd.api.types.is_string_dtype(column.dropna()) or isinstance(column.dtype, pd.CategoricalDtype):
        return column
    if column.isna().any():
        return column.astype("category")
    return column.astype(object) if column.dtype.name == "string" else column


def cells_anndata(
    x: np.ndarray, obs: pd.DataFrame, representation: Representation, genes: GeneSpace | None = None
) -> AnnData:
    """AnnData of generated or transported cells.

    X is the representation, as is obsm where the user keeps it there; with ``genes``, X is gene expression.
    """
    if genes is None:
        adata = AnnData(x, obs=obs, var=pd.DataFrame(index=representation.feature_names))
    else:
        adata = AnnData(genes.restore(x), obs=obs, var=pd.DataFrame(index=genes.var_names))
    if representation.obsm_key is not None:
        adata.obsm[representation.obsm_key] = x
    return adata


def repeated_obs(table: pd.DataFrame, names: list[str], n_cells: int) -> pd.DataFrame:
    """Rows of generated cells: ``n_cells`` rows per row of ``table``, named after their group."""
    obs = table.iloc[np.repeat(np.arange(len(table)), n_cells)]
    index = [f"{name}-{i}" for name in names for i in range(n_cells)]
    return (
        obs.set_axis(pd.Index(index))
        if len(set(index)) == len(index)
        else obs.set_axis(pd.Index([f"{name}-{i}" for i, name in enumerate(index)]))
    )


def constant_columns(frame: pd.DataFrame, index: GroupIndex) -> pd.DataFrame:
    """One row per group with the columns of obs that have one value within each group, missing values aside."""
    codes, n_groups, keep = index.codes[index.codes >= 0], len(index), {}
    rows = np.flatnonzero(index.codes >= 0) if index.rows is None else index.rows
    for column in frame.columns:
        values = frame[column].iloc[rows]
        pairs = pd.DataFrame({"code": codes, "value": values.to_numpy()}).dropna().drop_duplicates()
        if not pairs["code"].duplicated().any():
            keep[column] = values.groupby(codes).first().reindex(range(n_groups))
    return pd.DataFrame(keep, index=range(n_groups))
