"""Names and colours of groups, from the stored embedding, from obs, or from one value per group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ._color import Colors, encode
from ._style import unknown


def stored_embedding(adata: AnnData, key: str, *, errors: bool = False) -> Mapping[str, Any]:
    """Embedding of groups in ``.uns[key]``; with ``errors``, one that has standard errors."""
    stored = adata.uns.get(key)
    if stored is None or (errors and "se" not in stored):
        what = "Embedding with standard errors" if errors else "Embedding"
        call = f"model.get_group_embedding({'return_se=True' if errors else ''})"
        remedy = f"Call `{call}` first, or give the key it was told to write to."
        raise KeyError(unknown(f"{what} `.uns` key", key, list(adata.uns), remedy))
    return stored


def groupby_columns(stored: Mapping[str, Any]) -> list[str]:
    """Columns of ``stored["groups"]`` that name a group; the first column where the settings do not say."""
    columns = list(stored["groups"].columns)
    values = [stored.get("settings", {}).get(key) for key in ("groupby", "time_key")]
    wanted = [name for value in values if value is not None for name in np.atleast_1d(value)]
    return [column for column in columns if column in wanted] or columns[:1]


def group_names(labels: pd.DataFrame | pd.Index) -> list[str]:
    """One name per row or entry: its values, joined."""
    frame = labels.to_frame() if isinstance(labels, pd.Index) else labels
    columns = [frame.iloc[:, i].astype(str).tolist() for i in range(frame.shape[1])]
    return [", ".join(values) for values in zip(*columns, strict=True)] if len(columns) > 1 else columns[0]


def per_group(values: Any, names: list[str]) -> Any:
    """One value per group: a Series is matched by group name (string form), anything else by position."""
    if isinstance(values, pd.Series):
        known = pd.Index(group_names(values.index), dtype=object)
        if known.is_unique and known.isin(names).any():
            return values.set_axis(known).reindex(names)
        msg = f"The index of `color` ({list(known[:3])}, …) does not name each of the groups ({names[:3]}, …) once."
        raise ValueError(msg)
    if len(values) != len(names):
        msg = (
            f"`color` has {len(values)} values for {len(names)} groups. Give one per group, or a Series by group name."
        )
        raise ValueError(msg)
    return values


def group_colors(data: AnnData | pd.DataFrame, key: str, color: Any, names: list[str]) -> Colors:
    """Colours of the groups by the name of a column, or by one value per group."""
    if not isinstance(color, str):
        return encode(per_group(color, names), title=getattr(color, "name", None) or "")
    if not isinstance(data, AnnData):
        msg = f"`color` is {color!r}, but a DataFrame of embeddings has no labels. Give a Series by group name."
        raise ValueError(msg)
    groups = data.uns[key]["groups"]
    return encode(groups[color] if color in groups else _from_obs(data, key, color, names), title=color)


def _from_obs(adata: AnnData, key: str, color: str, names: list[str]) -> pd.Series:
    """Value of an obs column in each group, where it is constant."""
    stored = adata.uns[key]
    groupby = groupby_columns(stored)
    absent = [column for column in [color, *groupby] if column not in adata.obs]
    if absent:
        options = list(dict.fromkeys([*stored["groups"].columns, *adata.obs.columns]))
        remedy = f"Give a column of `.uns[{key!r}]['groups']` or `.obs`, or one value per group."
        raise KeyError(unknown("Column", absent[0], options, remedy))
    codes = pd.Index(names, dtype=object).get_indexer(pd.Index(group_names(adata.obs[groupby]), dtype=object))
    by_group = adata.obs[color].reset_index(drop=True)[codes >= 0].groupby(codes[codes >= 0])
    n_values = by_group.nunique()
    varying = n_values.index[n_values > 1]
    if len(varying):
        listed = ", ".join(f"{names[i]} ({n_values[i]} values)" for i in varying[:5])
        msg = (
            f"Column {color!r} of `.obs` is not constant within {len(varying)} of {len(names)} groups: {listed}"
            f"{', …' if len(varying) > 5 else ''}. Give a column with one value per group, or a Series by group name."
        )
        raise ValueError(msg)
    return by_group.first().reindex(range(len(names)))
