"""What a user set up: the columns a model reads, checked and read the same way from any AnnData."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import rich.table
from anndata import AnnData
from scipy import sparse

from scgde._compat import BaseAnnDataField
from scgde._constants import SPLITS
from scgde._validation import (
    check_batch,
    check_columns,
    check_constant,
    check_group_sizes,
    check_groupby,
    check_grouping,
    check_missing,
    check_weight,
    listing,
)
from scgde.data._groups import GroupIndex, parts_of
from scgde.data._labels import Label
from scgde.data._membership import components, read_membership
from scgde.data._representation import Representation
from scgde.data._rows import is_stored
from scgde.data._times import time_values

#: Arguments that overlapping groups cannot have: columns of obs say one thing of a cell, whichever group it is seen in.
OF_WHOLE_CELLS = ("labels", "split_key", "time_key")


@dataclass(frozen=True)
class GroupedObs:
    """What obs says: groups, their labels and splits, and the batches and weights of cells.

    Parameters
    ----------
    index
        Groups of the cells. Where they overlap, a cell has several entries; else entries are cells.
    labels
        One row per group, one column per label that the AnnData has.
    batch
        (n_entries,) batch of each cell, or None.
    weight
        (n_entries,) mass of each cell, or None.
    split
        (n_groups,) one of "train", "validation" and "test", or None.
    unit
        (n_groups,) number of the donor, clone, … that a group belongs to; with a time, one unit has several groups.
        Overlapping groups that share cells, directly or through others, are one unit.
    time
        (n_groups,) time of each group, or None.
    group_weight
        (n_groups,) what each group counts in training, or None where all count equally.
    """

    index: GroupIndex
    labels: pd.DataFrame
    batch: pd.Series | None
    weight: np.ndarray | None
    split: np.ndarray | None
    unit: np.ndarray
    time: np.ndarray | None
    group_weight: np.ndarray | None = None

    @property
    def table(self) -> pd.DataFrame:
        """Grouping columns, labels and numbers of cells of each group."""
        labels = self.labels[[c for c in self.labels.columns if c not in self.index.table.columns]]
        table = pd.concat([self.index.table, labels.reset_index(drop=True)], axis=1)
        return table if "n_cells" in table else table.assign(n_cells=self.index.counts)


@dataclass(frozen=True)
class Setup:
    """The arguments of ``setup_anndata``, as the reader of any AnnData."""

    groupby: Any = None
    use_rep: str | None = None
    layer: str | None = None
    labels: Any = None
    batch_key: str | None = None
    weight_key: str | None = None
    split_key: str | None = None
    min_cells: int = 1
    drop_ungrouped: bool = False
    time_key: str | None = None
    membership_key: str | None = None

    @property
    def unit_columns(self) -> list[str]:
        """Columns that name donors, clones, …: what is split, held out and labelled as a whole."""
        if self.membership_key is not None:
            return [self.membership_key]
        return list(self.groupby) if isinstance(self.groupby, list | tuple) else [self.groupby]

    @property
    def columns(self) -> list[str]:
        """Columns that name the groups: those of the units, then the time."""
        return self.unit_columns if self.time_key is None else [*self.unit_columns, self.time_key]

    @property
    def label_columns(self) -> dict[str, str]:
        """Label name to obs column; a multi-label attribute has one entry per binary column."""
        if self.labels is None:
            return {}
        if isinstance(self.labels, str):
            return {self.labels: self.labels}
        if not isinstance(self.labels, dict):
            return {column: column for column in self.labels}
        columns = {}
        for name, column in self.labels.items():
            columns.update({name: column} if isinstance(column, str) else {c: c for c in column})
        return columns

    def label(self, name: str, table: pd.DataFrame) -> Label:
        """A label with the values that it has in a table of labels."""
        parts = self.labels[name] if isinstance(self.labels, dict) else name
        return Label.of(name, table, None if isinstance(parts, str) else list(parts))

    @property
    def label_names(self) -> list[str]:
        """Names of the labels."""
        if self.labels is None:
            return []
        return [self.labels] if isinstance(self.labels, str) else list(self.labels)

    def representation(self, adata: AnnData) -> Representation:
        """The representation that the arguments choose."""
        return Representation.choose(adata, self.use_rep, self.layer)

    def read(self, adata: AnnData, *, training: bool) -> GroupedObs:
        """Check and read obs; ``training`` data need every column, new data need no labels and no splits."""
        check_grouping(self.groupby, self.membership_key, {name: getattr(self, name) for name in OF_WHOLE_CELLS})
        if self.membership_key is not None:
            return self._read_overlapping(adata, training=training)
        check_groupby(self.unit_columns)
        check_columns(adata, self.unit_columns, "groupby")
        check_columns(adata, [self.time_key] if self.time_key is not None else [], "time_key")
        if self.time_key in self.unit_columns:
            msg = f"time_key={self.time_key!r} is one of the groupby columns as well. Name it as time_key only."
            raise ValueError(msg)
        check_missing(adata, self.columns, drop=self.drop_ungrouped)
        index = GroupIndex.from_obs(adata.obs, self.columns)
        unit = GroupIndex.from_obs(index.table, self.unit_columns).codes
        time = None if self.time_key is None else time_values(index.table[self.time_key])
        if training:
            check_columns(adata, list(self.label_columns.values()), "labels")
            check_columns(adata, [self.split_key] if self.split_key is not None else [], "split_key")
            check_group_sizes(index.counts, index.names, self.min_cells)
        labels = {
            name: check_constant(adata.obs[column], index.codes, index.names, "labels")
            for name, column in self.label_columns.items()
            if column in adata.obs
        }
        batch, weight = self._cells(adata, index)
        split = self._split(adata) if training and self.split_key is not None else None
        split = None if split is None else split[unit]
        return GroupedObs(index, pd.DataFrame(labels, index=range(len(index))), batch, weight, split, unit, time)

    def _read_overlapping(self, adata: AnnData, *, training: bool) -> GroupedObs:
        """Groups of a matrix of memberships; an entry of it is a cell in a group."""
        assert self.membership_key is not None
        index, membership = read_membership(adata, self.membership_key)
        if training:
            check_group_sizes(index.counts, index.names, self.min_cells)
        batch, weight = self._cells(adata, index)
        if membership is not None:
            weight = membership if weight is None else membership * weight
        labels = pd.DataFrame(index=range(len(index)))
        return GroupedObs(index, labels, batch, weight, None, components(index), None)

    def read_whole(self, adata: AnnData, name: str) -> GroupedObs:
        """All cells as one group called ``name``."""
        index = GroupIndex(np.zeros(adata.n_obs, dtype=np.int64), pd.DataFrame({"population": [name]}))
        batch, weight = self._cells(adata, index)
        return GroupedObs(index, pd.DataFrame(index=range(1)), batch, weight, None, np.zeros(1, dtype=np.int64), None)

    def _cells(self, adata: AnnData, index: GroupIndex) -> tuple[pd.Series | None, np.ndarray | None]:
        """Batch and weight of each entry, where they are set up."""
        batch = weight = None
        rows = slice(None) if index.rows is None else index.rows
        if self.batch_key is not None:
            check_columns(adata, [self.batch_key], "batch_key")
            batch = adata.obs[self.batch_key].iloc[rows]
            check_batch(batch, index.codes)
        if self.weight_key is not None:
            check_columns(adata, [self.weight_key], "weight_key")
            weight = adata.obs[self.weight_key].to_numpy()[rows]
            check_weight(weight, index.codes, index.names, self.weight_key)
        return batch, weight

    def _split(self, adata: AnnData) -> np.ndarray:
        """Split of each unit."""
        assert self.split_key is not None
        index = GroupIndex.from_obs(adata.obs, self.unit_columns)
        split = check_constant(adata.obs[self.split_key], index.codes, index.names, "split_key").astype(object)
        unknown = sorted({str(value) for value in split} - set(SPLITS))
        if unknown:
            msg = (
                f"adata.obs[{self.split_key!r}] (split_key=) holds {listing(unknown)}; expected {listing(SPLITS)} for "
                "every group."
            )
            raise ValueError(msg)
        if (split == "train").sum() < 2:
            msg = f"adata.obs[{self.split_key!r}] marks fewer than two groups as 'train'; at least two are needed."
            raise ValueError(msg)
        return split.to_numpy().astype(str)


def fingerprint(adata: AnnData, setup: Setup, representation: Representation) -> int:
    """A checksum of the groups and of the representation, to notice changes after setup.

    A stored representation is not read for it: there only shapes enter.
    """
    values = representation.source_of(adata)
    start = zlib.crc32(repr((adata.n_obs, tuple(values.shape), representation.name)).encode())
    check = _group_checksum(adata, setup, start)
    if is_stored(values):
        return check
    parts = [values.data, values.indices, values.indptr] if sparse.issparse(values) else [np.ascontiguousarray(values)]
    for part in parts:
        check = zlib.crc32(np.ascontiguousarray(part).tobytes(), check)
    return check


def _group_checksum(adata: AnnData, setup: Setup, check: int) -> int:
    if setup.membership_key is None:
        for column in setup.columns:
            check = _hash(adata.obs[column], check)
        return check
    index, weight = read_membership(adata, setup.membership_key)
    assert index.rows is not None
    for part in (index.codes, index.rows, np.zeros(0) if weight is None else weight):
        check = zlib.crc32(part.tobytes(), check)
    return zlib.crc32(repr(index.names).encode(), check)


def _hash(column: pd.Series, check: int) -> int:
    """A checksum of each value's text; text is made of categories, not of cells, where there are some."""
    codes = None
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, column = column.cat.codes.to_numpy(), column.cat.categories.to_series()
    hashes = pd.util.hash_array(column.astype(str).to_numpy(dtype=object))
    if codes is None:
        return zlib.crc32(hashes.tobytes(), check)
    hashes = np.append(hashes, np.uint64(0))
    for part in parts_of(len(codes)):
        check = zlib.crc32(hashes[codes[part]].tobytes(), check)
    return check


class SetupField(BaseAnnDataField):
    """A field that reads AnnData without writing helper columns to it; registered afresh on every AnnData."""

    is_empty = False

    def __init__(self, registry_key: str, attr_name: str, attr_key: str | None, state: Any) -> None:
        self._registry_key, self._attr_name, self._attr_key = registry_key, attr_name, attr_key
        self._state = state

    @property
    def registry_key(self) -> str:
        return self._registry_key

    @property
    def attr_name(self) -> str:
        return self._attr_name

    @property
    def attr_key(self) -> str | None:
        return self._attr_key

    def validate_field(self, adata: AnnData) -> None:
        """Nothing: ``setup_anndata`` has checked everything before it registers."""

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        return self._state(adata)

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        # Batches are those of training, whichever of them the other data hold.
        batches = {"batches": state_registry["batches"]} if "batches" in state_registry else {}
        return self.register_field(adata_target) | batches

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        return {name: value for name, value in state_registry.items() if name.startswith("n_")}

    def view_state_registry(self, state_registry: dict[str, Any]) -> rich.table.Table:
        table = rich.table.Table(title=f"{self.registry_key} state")
        table.add_column("entry")
        table.add_column("value")
        for name, value in state_registry.items():
            table.add_row(name, listing(value) if isinstance(value, list) else str(value))
        return table


def chosen_representation(registry: dict[str, Any]) -> Representation:
    """What was chosen at the setup that made a registry, not yet fitted."""
    return Representation(*registry["field_registries"]["X"]["state_registry"]["choice"])


def setup_fields(setup: Setup, representation: Representation) -> list[SetupField]:
    """The fields that scvi-tools registers: the representation and the groups."""
    attr_name = {"X": "X", "layer": "layers", "obsm": "obsm"}[representation.source]

    def features(adata: AnnData) -> dict[str, Any]:
        return {
            "representation": representation.name + (" (principal components)" if representation.project else ""),
            "choice": (representation.source, representation.key, representation.project),
            "n_features_read": representation.source_of(adata).shape[1],
            "column_names": np.asarray(adata.var_names.astype(str)),
            "fingerprint": fingerprint(adata, setup, representation),
        }

    def groups(adata: AnnData) -> dict[str, Any]:
        obs = setup.read(adata, training=False)
        state: dict[str, Any] = {"groupby": setup.columns, "n_groups": len(obs.index), "n_grouped_cells": 0}
        rows = obs.index.rows
        state["n_grouped_cells"] = int(obs.index.counts.sum()) if rows is None else len(np.unique(rows))
        if obs.batch is not None:
            used = obs.batch[obs.index.codes >= 0]
            state["batches"] = GroupIndex.from_obs(used.to_frame("batch"), ["batch"]).names
        return state

    return [
        SetupField("X", attr_name, representation.key or None, features),
        SetupField("sample", "obs" if setup.membership_key is None else "obsm", setup.columns[0], groups),
    ]
