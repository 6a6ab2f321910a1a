"""Collections: cells on disk, group by group, of which any rows are read at little cost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from scgde._compat import nameless_anndata
from scgde._constants import COLLECTION
from scgde._validation import check_columns, check_missing, listing
from scgde.data._groups import GroupIndex, by_group
from scgde.data._representation import Representation

#: The cells of a collection, in its zarr group. Name and encoding are annbatch's, whose loaders read collections too.
DATASET, ENCODING = "dataset_0", {"encoding-type": "annbatch-preshuffled", "encoding-version": "0.1.0"}

#: Cells per file of a collection, and bytes that are gathered before they are written.
CELLS_PER_FILE, BYTES_AT_A_TIME = 65_536, 2**27


def write_collection(
    adata: AnnData | str | Path | Sequence[AnnData | str | Path],
    groupby: str | list[str],
    path: str | Path,
    *,
    use_rep: str | None = None,
    layer: str | None = None,
    columns: Sequence[str] = (),
    drop_ungrouped: bool = False,
    progress: bool = False,
) -> Path:
    """Write the representation of cells to disk, group by group, for :meth:`scgde.GDE.setup_annbatch`.

    The collection is a zarr group without compression: rows are then read straight from its files. Numbers with many
    digits hardly compress anyway. It is written under another name and renamed at the end.

    Parameters
    ----------
    adata
        Cells: AnnData (in memory, backed, or with dask arrays), a path to .h5ad or .zarr, or several of these. Of a
        file only the columns and the representation are read. Cells of a group may come from several.
    groupby
        Column(s) of ``.obs`` that make the groups.
    path
        The collection; a name that ends in .zarr tells others what it is.
    use_rep, layer
        What to read of a cell, as in :meth:`scgde.GDE.setup_anndata`.
    columns
        Other columns of ``.obs`` to keep: labels, batches, weights, splits, times.
    drop_ungrouped
        Whether to leave out cells that have no value in ``groupby``; else they are an error.
    progress
        Whether to show a progress bar.

    Returns
    -------
    ``path``.

    Raises
    ------
    FileExistsError
        Where ``path`` exists.
    KeyError, TypeError, ValueError
        For unknown columns or representations, cells without a group, and parts that do not fit together.
    """
    target = Path(path)
    if target.exists():
        msg = f"{str(target)!r} exists. Choose another name, or remove it first."
        raise FileExistsError(msg)
    groups = [groupby] if isinstance(groupby, str) else list(groupby)
    wanted = list(dict.fromkeys([*groups, *columns]))
    given = [adata] if isinstance(adata, AnnData | str | Path) else list(adata)
    parts = [_part(each, wanted, use_rep, layer) for each in given]
    if not parts:
        msg = "There are no cells to write: pass an AnnData or a path, or several."
        raise ValueError(msg)
    representation = Representation.choose(parts[0], use_rep, layer)
    _check_parts(parts, wanted, representation)
    obs = pd.DataFrame({column: _joined([part.obs[column] for part in parts]) for column in wanted})
    check_missing(nameless_anndata(obs, pd.DataFrame()), groups, drop=drop_ungrouped)
    index = GroupIndex.from_obs(obs, groups)
    order = by_group(index.codes, len(index))[0]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        written = Path(folder) / target.name
        settings = {"groupby": groups, "use_rep": representation.key or "X", "layer": None}
        if representation.source == "layer":
            settings |= {"use_rep": None, "layer": representation.key}
        sorted_obs = obs.take(order).reset_index(drop=True)
        _write(written, sorted_obs, parts[0].var_names, settings, _Parts(parts, representation), order, progress)
        written.rename(target)
    return target


def open_collection(path: str | Path) -> AnnData:
    """A collection as AnnData whose representation stays on disk.

    Parameters
    ----------
    path
        Written by :func:`write_collection`.

    Returns
    -------
    AnnData: the columns of ``.obs`` in memory, cells without names, the representation as a zarr array, and
    ``.uns["collection"]``.

    Raises
    ------
    FileNotFoundError, ValueError
        For what is no collection.
    """
    import zarr

    if not Path(path).exists():
        msg = f"There is no {str(path)!r}. Write a collection with scgde.data.write_collection(adata, groupby, path)."
        raise FileNotFoundError(msg)
    group: Any = zarr.open_group(path, mode="r") if (Path(path) / "zarr.json").exists() else None
    settings: Any = None if group is None else group.attrs.get("scgde")
    if settings is None:
        msg = f"{str(path)!r} is no collection. Make one with scgde.data.write_collection(adata, groupby, path)."
        raise ValueError(msg)
    adata = _lazily(group[DATASET], settings["columns"], settings["use_rep"], settings["layer"])
    adata.uns[COLLECTION] = {name: settings[name] for name in ("groupby", "use_rep", "layer")} | {"path": str(path)}
    return adata


class _Parts:
    """The representation of several AnnData, one after the other."""

    def __init__(self, parts: list[AnnData], representation: Representation) -> None:
        self.values = [representation.fit(part, np.zeros(0, dtype=int), 0).read(part) for part in parts]
        self.starts = np.cumsum([0, *(len(values) for values in self.values)])
        self.n_features = self.values[0].shape[1]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        result = np.empty((len(rows), self.n_features), dtype=np.float32)
        part = np.searchsorted(self.starts, rows, side="right") - 1
        for i in np.unique(part):
            own = part == i
            result[own] = self.values[i][rows[own] - self.starts[i]]
        return result


def _write(
    path: Path,
    obs: pd.DataFrame,
    var_names: pd.Index,
    settings: dict[str, Any],
    values: _Parts,
    order: np.ndarray,
    progress: bool,
) -> None:
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=3)
    dataset = group.create_group(DATASET)
    dataset.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    anndata.io.write_elem(dataset, "obs", obs)
    anndata.io.write_elem(dataset, "var", pd.DataFrame(index=var_names))
    n, n_features = len(order), values.n_features
    array = dataset.create_array(
        _element(settings["use_rep"], settings["layer"]),
        shape=(n, n_features),
        dtype="float32",
        chunks=(min(n, CELLS_PER_FILE), n_features),
        compressors=None,
        # A file of zeros is a file: else it could not be read as one.
        config={"write_empty_chunks": True},
    )
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    step = max(1, BYTES_AT_A_TIME // (4 * n_features * CELLS_PER_FILE)) * CELLS_PER_FILE
    for start in tqdm(range(0, n, step), desc="Writing", disable=not progress):
        array[start : start + step] = values[order[start : start + step]]
    # Last, so that what lacks it is known to be incomplete.
    group.attrs.update({**ENCODING, "scgde": {**settings, "columns": list(obs.columns)}})


def _element(use_rep: str | None, layer: str | None) -> str:
    if layer is not None:
        return f"layers/{layer}"
    return "X" if use_rep == "X" else f"obsm/{use_rep}"


def _part(given: Any, columns: list[str], use_rep: str | None, layer: str | None) -> AnnData:
    """Cells to write; of a file, no more than is needed."""
    if isinstance(given, AnnData):
        return given
    if not isinstance(given, str | Path):
        msg = f"Expected AnnData or paths to .h5ad or .zarr, received {type(given).__name__}."
        raise TypeError(msg)
    path = Path(given)
    if not path.exists():
        msg = f"There is no {str(path)!r}."
        raise FileNotFoundError(msg)
    if path.is_file():
        return _lazily(h5py.File(path, "r"), columns, use_rep, layer)
    import zarr

    return _lazily(zarr.open_group(path, mode="r"), columns, use_rep, layer)


def _lazily(group: Any, columns: Iterable[str], use_rep: str | None, layer: str | None) -> AnnData:
    """AnnData of a file: some columns of obs, names of variables, and what may be read of a cell, which stays there."""
    known = [str(name) for name in group["obs"].attrs["column-order"]]
    names = group["obs"][group["obs"].attrs["_index"]]
    # The names themselves are not read. Text that may be missing is a pair of arrays.
    obs = pd.DataFrame(index=pd.RangeIndex((names if hasattr(names, "shape") else names["values"]).shape[0]))
    for column in columns:
        # Unknown ones are reported with the names of all columns.
        if column not in known:
            check_columns(AnnData(obs=pd.DataFrame(columns=known)), [column], "groupby= or columns")
        obs[column] = anndata.io.read_elem(group["obs"][column])
    var = pd.DataFrame(index=pd.Index(anndata.io.read_elem(group["var"][group["var"].attrs["_index"]])).astype(str))
    adata = nameless_anndata(obs, var)
    if "X" in group:
        adata.X = _stored(group["X"])
    for name in ("obsm", "layers"):
        for key in group.get(name, ()):
            if key in (use_rep, layer) or use_rep is layer is None:
                getattr(adata, name)[key] = _stored(group[name][key])
    return adata


def _stored(element: Any) -> Any:
    """A dense array as it is, or a sparse one in its groups."""
    return element if hasattr(element, "shape") else anndata.io.sparse_dataset(element)


def _check_parts(parts: list[AnnData], columns: list[str], representation: Representation) -> None:
    if representation.project:
        msg = (
            f"{representation.name} has {parts[0].n_vars:,} variables, too many for coordinates of cells. Compute "
            "principal components first (sc.pp.pca), or name a representation with use_rep=."
        )
        raise ValueError(msg)
    for part in parts:
        check_columns(part, columns, "groupby= or columns")
        representation.check(part)
    first, names = representation.source_of(parts[0]).shape[1], parts[0].var_names
    for i, part in enumerate(parts):
        own = representation.source_of(part).shape[1]
        if own != first or (representation.source != "obsm" and not part.var_names.equals(names)):
            what = f"{own} features" if own != first else f"variables {listing(part.var_names)}"
            expected = str(first) if own != first else listing(names)
            msg = f"Part {i} has {what} in {representation.name}, the first part {expected}. Bring them into one form."
            raise ValueError(msg)


def _joined(columns: list[pd.Series]) -> Any:
    """One column of several, text as categories."""
    if all(isinstance(column.dtype, pd.CategoricalDtype) for column in columns):
        if all(column.dtype == columns[0].dtype for column in columns):
            return pd.concat(columns, ignore_index=True)
        return pd.api.types.union_categoricals([column.array for column in columns], ignore_order=True)
    values = pd.concat([column.astype(_plain(column)) for column in columns], ignore_index=True)
    is_text = pd.api.types.is_object_dtype(values.dtype) or pd.api.types.is_string_dtype(values.dtype)
    return pd.Series(pd.Categorical(values)) if is_text else values


def _plain(column: pd.Series) -> Any:
    return column.cat.categories.dtype if isinstance(column.dtype, pd.CategoricalDtype) else column.dtype
