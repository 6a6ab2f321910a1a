"""The order of times: numbers, text that holds numbers, or ordered categories."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scgde._validation import listing


def time_values(column: pd.Series) -> np.ndarray:
    """The time of each entry as a number, whose order is that of the times.

    Numbers, and text that can be read as numbers, stand for themselves; ordered categories that are neither stand for
    their position.

    Raises
    ------
    ValueError
        Where the column has no order: sorting text would put "7d" before "8h".
    """
    dtype = column.dtype
    levels = pd.Series(dtype.categories if isinstance(dtype, pd.CategoricalDtype) else column.unique())
    numbers = pd.to_numeric(levels, errors="coerce").to_numpy(dtype=float)
    ordered = isinstance(dtype, pd.CategoricalDtype) and bool(dtype.ordered)
    if ordered and not (np.diff(numbers) > 0).all():
        numbers = np.arange(len(levels), dtype=float)
    if not np.isfinite(numbers).all():
        msg = (
            f"adata.obs[{column.name!r}] (time_key=) holds {listing(levels[~np.isfinite(numbers)])}, which have no "
            "order. Pass a numeric column, text that holds numbers, or an ordered categorical: "
            f"adata.obs[{column.name!r}] = pd.Categorical(adata.obs[{column.name!r}], categories=[…], ordered=True)."
        )
        raise ValueError(msg)
    if len(np.unique(numbers)) < len(numbers):
        msg = (
            f"adata.obs[{column.name!r}] (time_key=) holds several values for one time, among {listing(levels)}. "
            "Give each time one value."
        )
        raise ValueError(msg)
    if isinstance(dtype, pd.CategoricalDtype):
        return numbers[column.cat.codes.to_numpy()]
    return pd.Series(numbers, index=pd.Index(levels)).loc[column.to_numpy()].to_numpy(copy=True)
