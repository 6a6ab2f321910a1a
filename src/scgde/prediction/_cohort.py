"""Groups, their label and the unit that is split, read and checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgde._validation import check_anndata, check_columns, check_constant, listing
from scgde.data import GroupIndex, Setup

#: Kinds of labels that can be predicted.
KINDS = ("categorical", "ordered", "numeric")


@dataclass(frozen=True)
class Cohort:
    """Groups of cells with a label.

    Parameters
    ----------
    index
        Groups of the cells.
    label
        Column of the label.
    kind
        One of :data:`KINDS`.
    y
        (n_groups,) number of the class, rank of the level, or value; NaN without a label.
    classes
        Names of the classes or levels; empty for numeric labels.
    unit
        (n_groups,) number of the unit that a group belongs to; units are never split.
    """

    index: GroupIndex
    label: str
    kind: str
    y: np.ndarray
    classes: list[Any]
    unit: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Positions of the groups that have a label."""
        return np.flatnonzero(~np.isnan(self.y))

    def strata(self, n_splits: int) -> np.ndarray:
        """(n_groups,) what ``n_splits`` folds are balanced by: classes, or at most five ranges; -1 without a label."""
        known, strata = self.known, np.full(len(self.y), -1)
        if self.kind == "categorical":
            strata[known] = self.y[known]
        else:
            n_ranges = max(1, min(5, len(known) // n_splits))
            strata[known] = np.argsort(np.argsort(self.y[known], kind="stable")) * n_ranges // len(known)
        return strata

    def cells(self, positions: np.ndarray) -> np.ndarray:
        """Rows of the cells of the groups at ``positions``."""
        return np.flatnonzero(np.isin(self.index.codes, positions))


def read_cohort(adata: AnnData, setup: Setup, label: str, kind: str, group_unit: str | None) -> Cohort:
    """Read groups, labels and units, and check them."""
    check_anndata(adata)
    if kind not in ("auto", *KINDS):
        msg = f"label_kind={kind!r} is unknown: choose from {listing(('auto', *KINDS))}."
        raise ValueError(msg)
    check_columns(adata, [label], "label")
    index = setup.read(adata, training=True).index
    values = check_constant(adata.obs[label], index.codes, index.names, "label")
    if values.notna().sum() == 0:
        msg = f"No group has a value in adata.obs[{label!r}] (label=): there is nothing to learn or to score."
        raise ValueError(msg)
    kind = label_kind(values) if kind == "auto" else kind
    y, classes = _encode(values, kind, label)
    return Cohort(index, label, kind, y, classes, _units(adata, index, group_unit))


def label_kind(values: pd.Series) -> str:
    """The kind that a column's dtype says: numbers with two distinct values are classes."""
    present = values.dropna()
    if isinstance(values.dtype, pd.CategoricalDtype):
        return "ordered" if values.cat.ordered and present.nunique() > 2 else "categorical"
    numeric = pd.api.types.is_numeric_dtype(present.infer_objects()) and present.nunique() > 2
    return "numeric" if numeric else "categorical"


def _is_text(values: pd.Series) -> bool:
    return bool(values.map(lambda value: isinstance(value, str)).any())


def _encode(values: pd.Series, kind: str, label: str) -> tuple[np.ndarray, list[Any]]:
    """Labels as numbers, NaN where missing, and the names of classes or levels."""
    if kind == "numeric":
        y = pd.to_numeric(values.astype(object), errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        bad = (values.notna().to_numpy() & np.isnan(y)) | np.isinf(y)
        if bad.any():
            msg = (
                f"adata.obs[{label!r}] (label=) holds {listing(values[bad].unique())}, expected finite numbers for "
                "label_kind='numeric'. Convert these values, set them missing, or pass label_kind='categorical'."
            )
            raise ValueError(msg)
        return y, []
    ordered = isinstance(values.dtype, pd.CategoricalDtype) and values.cat.ordered
    if kind == "ordered" and not ordered and _is_text(values.dropna()):
        msg = (
            f"adata.obs[{label!r}] (label=) holds text without an order. Say what the order is: "
            f"pd.Categorical(adata.obs[{label!r}], categories=[…], ordered=True)."
        )
        raise ValueError(msg)
    codes = GroupIndex.from_obs(values.to_frame(label), [label])
    y = np.where(codes.codes < 0, np.nan, codes.codes.astype(float))
    if len(codes) < 2:
        msg = (
            f"All labelled groups have the value {codes.names[0]!r} in adata.obs[{label!r}] (label=): there is nothing "
            "to tell apart. Choose a label with at least two values."
        )
        raise ValueError(msg)
    return y, codes.names


def _units(adata: AnnData, index: GroupIndex, group_unit: str | None) -> np.ndarray:
    if group_unit is None:
        return np.arange(len(index))
    check_columns(adata, [group_unit], "group_unit")
    values = check_constant(adata.obs[group_unit], index.codes, index.names, "group_unit")
    missing = np.flatnonzero(values.isna())
    if len(missing):
        msg = (
            f"{len(missing)} of {len(index)} groups have no value in adata.obs[{group_unit!r}] (group_unit=): "
            f"{listing(index.names[int(i)] for i in missing)}. Give each of them a unit, its own if need be."
        )
        raise ValueError(msg)
    return GroupIndex.from_obs(values.to_frame(), [group_unit]).codes
