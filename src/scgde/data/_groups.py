"""Cells to groups: one pass over obs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from scgde._validation import unknown_key

#: Cells whose groups are looked at together: what this takes does not grow with their number.
CODES_AT_A_TIME = 2**18


@dataclass(frozen=True)
class GroupIndex:
    """Which cells belong to which group.

    Parameters
    ----------
    codes
        (n_cells,) group of each cell, -1 for cells without one.
    table
        One row per group, one column per grouping column, in the user's dtypes.
    rows
        Where groups overlap, a cell has an entry in ``codes`` for each of its groups: (n_entries,) cell of each entry.
        None where entry i is cell i.
    """

    codes: np.ndarray
    table: pd.DataFrame
    rows: np.ndarray | None = None

    @classmethod
    def from_obs(cls, obs: pd.DataFrame, columns: Sequence[str]) -> GroupIndex:
        """Group cells by the values of ``columns``; categories keep their order, other values are sorted."""
        own, levels = zip(*(_factorize(obs[column]) for column in columns), strict=True)

        def combined(part: slice) -> np.ndarray:
            codes = own[0][part].astype(np.int64)
            for each, values in zip(own[1:], levels[1:], strict=True):
                codes = np.where((each[part] < 0) | (codes < 0), -1, codes * max(len(values), 1) + each[part])
            return codes

        parts = [np.unique(combined(part)) for part in parts_of(len(obs))]
        present = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *parts]))
        present = present[present >= 0]
        codes = np.empty(len(obs), dtype=np.int32)
        for part in parts_of(len(obs)):
            each = combined(part)
            codes[part] = np.where(each < 0, -1, np.searchsorted(present, each))
        table = {}
        for column, values in zip(reversed(columns), reversed(levels), strict=True):
            table[column] = values.take(present % len(values)) if len(values) else values
            present = present // max(len(values), 1)
        return cls(codes, pd.DataFrame({column: table[column] for column in columns}))

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Entries of ``codes`` group by group, and where each group starts."""
        return by_group(self.codes, len(self))

    def entries_of(self, position: int) -> np.ndarray:
        """Entries of ``codes`` of one group."""
        order, starts = self._order
        return order[starts[position] : starts[position + 1]]

    def cells_of(self, positions: np.ndarray) -> np.ndarray:
        """Cells of the groups at ``positions``, each once."""
        entries = np.flatnonzero(np.isin(self.codes, positions))
        return entries if self.rows is None else np.unique(self.rows[entries])

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of cells of each group."""
        return tally(self.codes, len(self))

    @cached_property
    def names(self) -> list[Any]:
        """Key of each group: a value, or a tuple where there are several columns."""
        if self.table.shape[1] == 1:
            return self.table.iloc[:, 0].tolist()
        return list(self.table.itertuples(index=False, name=None))

    @cached_property
    def index(self) -> pd.Index:
        """Row labels of results: the values of one column in its dtype, or a MultiIndex."""
        if self.table.shape[1] == 1:
            return pd.Index(self.table.iloc[:, 0])
        return pd.MultiIndex.from_frame(self.table)

    def positions(self, keys: Any) -> np.ndarray:
        """Positions of groups named by a key or a list of keys, matched by value, else by unique string form.

        Raises
        ------
        KeyError
            Where a key names no group, with near matches.
        TypeError
            For what cannot be a key.
        """
        keys = keys if isinstance(keys, list | np.ndarray | pd.Index | pd.Series) else [keys]
        exact = {name: i for i, name in enumerate(self.names)}
        text: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            text.setdefault(_text(name), []).append(i)
        found = []
        for key in keys:
            key = tuple(key) if isinstance(key, list) else key
            if not isinstance(key, Hashable):
                msg = (
                    f"A group was named by {key!r}: received {type(key).__name__}, expected one value, or one tuple "
                    "where there are several grouping columns. A list is several keys."
                )
                raise TypeError(msg)
            matches = [exact[key]] if key in exact else text.get(_text(key), [])
            if len(matches) != 1:
                what = f"the groups ({', '.join(map(str, self.table.columns))})"
                raise KeyError(unknown_key(key, self.names, what).args[0])
            found.append(matches[0])
        return np.array(found, dtype=np.int64)


def tally(codes: np.ndarray, n_groups: int) -> np.ndarray:
    """(n_groups,) number of entries of each group; -1 is none."""
    counts = np.zeros(n_groups, dtype=np.int64)
    for part in parts_of(len(codes)):
        own = codes[part]
        counts += np.bincount(own[own >= 0], minlength=n_groups)
    return counts


def by_group(codes: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of ``codes`` group by group, in their order, those of -1 left out; and where each group starts.

    A sort by counting, part by part: it holds its result, in the smallest numbers that name all places, and one part.
    """
    starts = np.concatenate([[0], tally(codes, n_groups).cumsum()])
    order = np.empty(starts[-1], dtype=np.int32 if len(codes) < 2**31 else np.int64)
    free = starts[:-1].copy()
    for part in parts_of(len(codes)):
        own = codes[part]
        kept = np.flatnonzero(own >= 0)
        kept = kept[np.argsort(own[kept], kind="stable")]
        group, first, size = np.unique(own[kept], return_index=True, return_counts=True)
        order[np.arange(len(kept)) + np.repeat(free[group] - first, size)] = part.start + kept
        free[group] += size
    return order, starts


def parts_of(n: int) -> Iterator[slice]:
    """Slices of ``n`` cells that are looked at together."""
    return (slice(start, min(start + CODES_AT_A_TIME, n)) for start in range(0, n, CODES_AT_A_TIME))


def _text(key: Any) -> str:
    return "\x1f".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _factorize(column: pd.Series) -> tuple[np.ndarray, Any]:
    """Codes (-1 for missing) and the sorted values they stand for."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy(), pd.Categorical.from_codes(
            np.arange(len(column.cat.categories)), dtype=column.dtype
        )
    try:
        codes, values = pd.factorize(column, sort=True)
    except TypeError:  # values of several types have no order of their own
        try:
            codes, values = pd.factorize(column)
        except TypeError as error:
            msg = f"The column {column.name!r} holds values that cannot name groups ({error}): make them text."
            raise TypeError(msg) from error
        # 0 and "0" look the same: their types tell them apart, so that the order of the cells does not matter.
        order = np.array(
            sorted(range(len(values)), key=lambda i: (str(values[i]), type(values[i]).__name__)), dtype=int
        )
        codes = np.where(codes < 0, -1, np.argsort(order)[codes])
        values = values[order]
    return codes, values if isinstance(values, pd.Index) else pd.Index(values)
