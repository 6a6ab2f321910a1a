"""Checks at the border, with the messages that users see. Inside, data are trusted."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scgde._arguments import check_count, check_flags, check_names, check_options, check_text


def listing(values: Iterable[Any], limit: int = 5) -> str:
    """The first few values, and how many more there are."""
    values = list(values)
    more = f", … ({len(values) - limit} more)" if len(values) > limit else ""
    return ", ".join(repr(v.item() if isinstance(v, np.generic) else v) for v in values[:limit]) + more


def unknown_key(key: Any, known: Iterable[Any], what: str) -> KeyError:
    """An error for a key that does not exist, with near matches."""
    known = list(known)
    names = {str(k): k for k in known}
    near = difflib.get_close_matches(str(key), names, n=3, cutoff=0.5)
    hint = f" Did you mean {listing(names[n] for n in near)}?" if near else ""
    return KeyError(f"{key!r} is not in {what}.{hint} There are: {listing(known, 10)}.")


def check_anndata(adata: Any, *, setup: bool = False) -> None:
    """Raise unless ``adata`` is an AnnData with cells; at setup, unless it is no view."""
    if not isinstance(adata, AnnData):
        kind = type(adata).__name__
        remedy = {
            "MuData": "Pass one modality, e.g. mdata['rna'], with the grouping column in its .obs.",
            "SpatialData": "Pass one of its tables, e.g. sdata.tables['table'].",
        }.get(kind, "Pass an anndata.AnnData.")
        msg = f"Expected adata to be an AnnData, received {kind}. {remedy}"
        raise TypeError(msg)
    if adata.n_obs == 0:
        msg = "The AnnData holds no cells. Pass one with at least one cell."
        raise ValueError(msg)
    if setup and adata.is_view:
        msg = (
            "The AnnData is a view of another one, which setup cannot register. "
            "Make it an object of its own first: adata = adata.copy()."
        )
        raise ValueError(msg)


#: Arguments of setup that name one column, or one key, of an AnnData.
NAMES = {
    "use_rep": "a key of adata.obsm, or 'X'",
    "layer": "a key of adata.layers",
    "membership_key": "a key of adata.obsm",
    **dict.fromkeys(("batch_key", "weight_key", "split_key", "time_key"), "the name of a column of adata.obs"),
}


def check_setup(arguments: dict[str, Any]) -> None:
    """Raise unless the arguments of setup are of the types that they must have."""
    if arguments["groupby"] is not None:
        check_names("groupby", arguments["groupby"], "the name of a column of adata.obs")
    for name, what in NAMES.items():
        check_text(name, arguments.get(name), what, optional=True)
    check_count("min_cells", arguments["min_cells"], 0)
    check_flags(drop_ungrouped=arguments["drop_ungrouped"])
    labels = arguments["labels"]
    if isinstance(labels, dict):
        check_options("labels", labels)
        for name, columns in labels.items():
            check_names(f"labels[{name!r}]", columns, "the name of a column of adata.obs")
    elif labels is not None:
        check_names("labels", labels, "names of columns of adata.obs")


def check_groupby(columns: Sequence[Any]) -> None:
    """Raise unless ``columns`` are at least one, each named once."""
    twice = [column for i, column in enumerate(columns) if column in columns[:i]]
    if twice or not columns:
        received = f"names {listing(twice)} several times" if twice else "names no column"
        msg = f"groupby= {received}; expected at least one column of adata.obs, each of them once."
        raise ValueError(msg)


def check_grouping(groupby: Any, membership_key: Any, others: dict[str, Any]) -> None:
    """Raise unless either ``groupby`` or ``membership_key`` is given, the latter without what it cannot have."""
    if (groupby is None) == (membership_key is None):
        both = "neither" if groupby is None else "both"
        msg = (
            f"Received {both} of groupby= and membership_key=; expected one of them: columns of adata.obs, or a matrix "
            "cells x groups in adata.obsm."
        )
        raise ValueError(msg)
    given = [name for name, value in others.items() if value is not None and membership_key is not None]
    if given:
        msg = (
            f"{given[0]}={others[given[0]]!r} is for groupby=: a cell of overlapping groups (membership_key="
            f"{membership_key!r}) has one value in adata.obs, whichever group it is seen in. Leave it out. Labels of "
            "the groups are given as a table, by model.update_labels(table) after training."
        )
        raise ValueError(msg)


def check_columns(adata: AnnData, columns: Sequence[Any], argument: str) -> None:
    """Raise unless each of ``columns`` is in ``adata.obs``."""
    for column in columns:
        if column not in adata.obs.columns:
            error = unknown_key(column, adata.obs.columns, f"adata.obs ({argument}=)")
            raise KeyError(error.args[0])


def check_missing(adata: AnnData, columns: Sequence[str], *, drop: bool) -> None:
    """Raise where a grouping column has missing values, unless these cells are to be dropped."""
    missing = adata.obs[list(columns)].isna().to_numpy().any(axis=1)
    if missing.all():
        msg = (
            f"No cell has a value in adata.obs[{listing(columns)}]: there is no group to embed. "
            "Choose another column as groupby=."
        )
        raise ValueError(msg)
    if not drop:
        _raise_missing(adata.obs_names, missing, columns, "or pass drop_ungrouped=True to leave them out")


def check_batch(batch: pd.Series, codes: np.ndarray) -> None:
    """Raise where a cell of a group has no batch."""
    missing = batch.isna().to_numpy() & (codes >= 0)
    _raise_missing(batch.index, missing, [str(batch.name)], "or set the model up without batch_key")


def _raise_missing(obs_names: pd.Index, missing: np.ndarray, columns: Sequence[str], remedy: str) -> None:
    if missing.any():
        msg = (
            f"{missing.sum():,} of {len(missing):,} cells have no value in adata.obs[{listing(columns)}] (cells "
            f"{listing(obs_names[missing])}). Fill them in, remove these cells, {remedy}."
        )
        raise ValueError(msg)


def check_finite(x: Any, obs_names: pd.Index, name: str) -> None:
    """Raise where a representation holds NaN or infinity, or no numbers."""
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        msg = f"{name} holds values of type {x.dtype}, expected numbers. Convert them, or name another representation."
        raise TypeError(msg)
    if sparse.issparse(x):
        bad = np.zeros(x.shape[0], dtype=bool)
        entries = x.tocoo()
        bad[entries.row[~np.isfinite(entries.data)]] = True
    else:
        bad = ~np.isfinite(np.asarray(x)).all(axis=1)
    if bad.any():
        msg = (
            f"{name} holds NaN or infinity in {bad.sum():,} of {len(bad):,} cells ({listing(obs_names[bad])}). "
            "Remove these cells, fill the values in, or name another representation with use_rep= or layer=."
        )
        raise ValueError(msg)


def warn_raw_counts(x: Any, name: str) -> None:
    """Warn where a representation looks like raw counts: non-negative integers, some above 20."""
    values = x.data if sparse.issparse(x) else np.asarray(x[:2000])
    values = np.asarray(values).ravel()[:2_000_000]
    if len(values) and values.min() >= 0 and values.max() > 20 and np.array_equal(values, np.round(values)):
        warn(
            f"{name} looks like raw counts (integers up to {values.max():.0f}), and the model reads it as coordinates. "
            "Normalise first: sc.pp.normalize_total(adata); sc.pp.log1p(adata); sc.pp.pca(adata). Or model counts: "
            "GDE(adata, generator='vae', generator_kwargs={'likelihood': 'nb'})."
        )


def check_counts(x: np.ndarray, name: str) -> None:
    """Raise unless a representation holds counts, as a likelihood of counts needs."""
    bad = (x < 0) | (x != np.round(x))
    if bad.any():
        msg = (
            f"{name} holds values that are no counts, e.g. {x[bad][0]:g}, and the likelihood of the generator is of "
            "counts. Set the model up with raw counts (use_rep='X' or layer=, whole numbers of at least 0, at most 50 "
            "variables in a layer), or train with generator_kwargs={'likelihood': 'normal'}."
        )
        raise ValueError(msg)


def warn(message: str) -> None:
    """Warn the user at the line of theirs that called the package, however deep the reason arises."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def check_constant(values: pd.Series, codes: np.ndarray, groups: Sequence[Any], argument: str) -> pd.Series:
    """The value of each group (missing where all its cells miss it); raise where a group has several."""
    known = (codes >= 0) & values.notna().to_numpy()
    table = pd.DataFrame({"code": codes[known], "value": values[known].to_numpy()}).drop_duplicates()
    several = table["code"][table["code"].duplicated()].unique()
    if len(several):
        first = table.loc[table["code"] == several[0], "value"]
        msg = (
            f"adata.obs[{values.name!r}] ({argument}=) is not constant within {len(several)} of {len(groups)} groups: "
            f"{listing(groups[int(i)] for i in several)}; group {groups[int(several[0])]!r} has {listing(first)}. "
            f"{argument}= takes attributes of whole groups: give each group one value, or leave the column out."
        )
        raise ValueError(msg)
    rows = values[known].iloc[np.unique(codes[known], return_index=True)[1]]
    result = rows.set_axis(np.unique(codes[known])).reindex(range(len(groups)))
    if isinstance(values.dtype, pd.CategoricalDtype):
        result = result.astype(values.dtype)
    return result


def check_weight(weight: np.ndarray, codes: np.ndarray, groups: Sequence[Any], column: str) -> None:
    """Raise unless weights are finite, not negative and positive somewhere in each group."""
    if not np.issubdtype(weight.dtype, np.number):
        msg = f"adata.obs[{column!r}] (weight_key=) holds {weight.dtype}, expected numbers of at least 0."
        raise TypeError(msg)
    bad = ~np.isfinite(weight) | (weight < 0)
    if bad.any():
        msg = (
            f"adata.obs[{column!r}] (weight_key=) holds {bad.sum():,} negative, missing or infinite values, e.g. "
            f"{listing(weight[bad], 3)}. Weights are masses of cells in their groups: give numbers of at least 0."
        )
        raise ValueError(msg)
    total = np.bincount(codes[codes >= 0], weights=weight[codes >= 0], minlength=len(groups))
    if (total <= 0).any():
        empty = listing(groups[int(i)] for i in np.flatnonzero(total <= 0))
        msg = f"All cells of group(s) {empty} have weight 0 in adata.obs[{column!r}]: remove these groups."
        raise ValueError(msg)


def check_group_sizes(counts: np.ndarray, groups: Sequence[Any], min_cells: int) -> None:
    """Raise where there are fewer than two groups, or groups of fewer than ``min_cells`` cells."""
    if len(groups) < 2:
        msg = (
            f"There is one group only ({groups[0]!r}), and embeddings compare groups. "
            "Choose a column with at least two values as groupby=."
        )
        raise ValueError(msg)
    small = np.flatnonzero(counts < min_cells)
    if len(small):
        names = listing((f"{groups[int(i)]}: {counts[i]} cells" for i in small), 10)
        msg = (
            f"{len(small)} of {len(groups)} groups have fewer than min_cells={min_cells} cells ({names}). "
            "Lower min_cells, or remove these groups from the AnnData."
        )
        raise ValueError(msg)


def check_var_names(received: pd.Index, expected: Sequence[str], what: str) -> np.ndarray:
    """Positions of the ``expected`` variables; raise where some are missing."""
    received = received.astype(str)
    twice = received[received.duplicated()].intersection(pd.Index(expected))
    if len(twice):
        msg = (
            f"{len(twice)} of the {len(expected)} variables that {what} reads occur several times in adata.var_names: "
            f"{listing(twice)}. Give them the names of the training data, or call adata.var_names_make_unique()."
        )
        raise ValueError(msg)
    first = np.flatnonzero(~received.duplicated())
    found = received[first].get_indexer(pd.Index(list(expected)))
    position = np.where(found < 0, -1, first[found])
    missing = [name for name, i in zip(expected, position, strict=True) if i < 0]
    if missing:
        msg = (
            f"{len(missing)} of the {len(expected)} variables that {what} reads are not in adata.var_names: "
            f"{listing(missing)}. Pass data with the variables that the model was trained on."
        )
        raise ValueError(msg)
    return position


def check_n_features(received: int, expected: int, name: str) -> None:
    """Raise unless a representation has the number of features that the model was trained on."""
    if received != expected:
        msg = (
            f"{name} has {received} features, the model was trained on {expected}. "
            "Pass the same representation, computed the same way (for a PCA: projected on the same components)."
        )
        raise ValueError(msg)
