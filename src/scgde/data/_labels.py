"""Labels of groups: what kind each one is, and its values as numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from scgde._validation import listing
from scgde.data._groups import GroupIndex

#: Kinds of labels.
KINDS = ("categorical", "ordered", "multilabel", "numeric")


@dataclass(frozen=True)
class Label:
    """One attribute of groups.

    Parameters
    ----------
    name
        The user's name for it.
    kind
        One of :data:`KINDS`.
    classes
        Values of the classes or levels, or names of the binary columns; empty for numbers.
    columns
        Columns of the table of labels that it is made of.
    """

    name: str
    kind: str
    classes: list[Any]
    columns: list[str]

    @property
    def width(self) -> int:
        """Number of columns of its numbers."""
        return len(self.classes) if self.kind == "multilabel" else 1

    @property
    def spec(self) -> dict[str, Any]:
        """What its head is built from."""
        return {"kind": self.kind, "n_classes": len(self.classes), "width": self.width}

    def state(self) -> dict[str, Any]:
        """The arguments of the label."""
        return asdict(self)

    @classmethod
    def of(cls, name: str, table: pd.DataFrame, columns: list[str] | None = None) -> Label:
        """Find out the kind and the values of a label.

        Parameters
        ----------
        name
            Its name.
        table
            (n_groups, …) labels of groups.
        columns
            Its binary columns where it has several; by default the one that bears its name.

        Raises
        ------
        TypeError, ValueError
            For values that are no labels: times, infinite numbers, columns of a multi-label attribute with other values
            than true and false.
        """
        if columns is not None:
            for column in columns:
                _binary(table[column])
            return cls(name, "multilabel", list(columns), list(columns))
        values = table[name]
        if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
            msg = (
                f"The label {name!r} (labels=) holds {values.dtype}, which is neither a class nor a number. Convert "
                "it, to years for instance."
            )
            raise TypeError(msg)
        kind = label_kind(values)
        if kind == "numeric":
            _numbers(values)
            return cls(name, kind, [], [name])
        classes = GroupIndex.from_obs(values.to_frame(name), [name]).names
        return cls(name, kind, [_plain(value) for value in classes], [name])

    def numbers(self, table: pd.DataFrame) -> np.ndarray:
        """(n_groups, width) number of the class or level, 0 or 1, or value of each group; NaN where missing.

        Raises
        ------
        ValueError
            For a class that is none of the known ones.
        """
        if self.kind == "numeric":
            return _numbers(table[self.name])[:, None]
        if self.kind == "multilabel":
            return np.column_stack([_binary(table[column]) for column in self.columns])
        values = table[self.name]
        place = {value: float(i) for i, value in enumerate(self.classes)}
        missing = values.isna().to_numpy()
        plain = [None if gone else _plain(value) for value, gone in zip(values, missing, strict=True)]
        unseen = sorted({str(value) for value in plain if value is not None and value not in place})
        if unseen:
            msg = (
                f"The label {self.name!r} has value(s) that the model does not know: {listing(unseen)}. It knows "
                f"{listing(self.classes, 10)}. Set the new values missing, or call model.update_labels() to learn them."
            )
            raise ValueError(msg)
        return np.array([[np.nan if value is None else place[value]] for value in plain]).reshape(-1, 1)

    def obstacle(self, y: np.ndarray) -> str | None:
        """Why the label cannot be learned from these numbers (n_groups, width), or None where it can."""
        known = y[~np.isnan(y).all(axis=1)]
        if len(known) < 2:
            return f"{len(known)} training group(s) have a value, at least 2 are needed"
        levels = [np.unique(column[~np.isnan(column)]) for column in known.T]
        if max(map(len, levels)) < 2:
            value = self.classes[int(known[0, 0])] if self.kind in ("categorical", "ordered") else known[0, 0].item()
            return f"all {len(known)} training groups that have a value have the same one, {value!r}"
        if self.kind == "categorical" and len(levels[0]) == len(known) > 2:
            return f"each of {len(known)} training groups has a value of its own"
        return None


def label_kind(values: pd.Series) -> str:
    """The kind that a column's dtype says: numbers with two distinct values are classes."""
    present = values.dropna()
    if isinstance(values.dtype, pd.CategoricalDtype):
        return "ordered" if values.cat.ordered and present.nunique() > 2 else "categorical"
    numeric = pd.api.types.is_numeric_dtype(present.infer_objects()) and present.nunique() > 2
    return "numeric" if numeric else "categorical"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _numbers(values: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(values.astype(object), errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    if np.isinf(numbers).any():
        msg = f"The label {values.name!r} (labels=) holds infinity, expected finite numbers. Set such values missing."
        raise ValueError(msg)
    bad = values.notna().to_numpy() & np.isnan(numbers)
    if bad.any():
        msg = f"The label {values.name!r} holds {listing(values[bad].unique())}, expected numbers as in training."
        raise ValueError(msg)
    return numbers


def _binary(values: pd.Series) -> np.ndarray:
    """0, 1 or NaN."""
    present = values.dropna()
    wrong = [value for value in present.unique() if value not in (0, 1)]
    if wrong:
        msg = (
            f"The column {values.name!r} of a label with several columns (labels=) holds {listing(wrong)}, expected "
            "True and False, or 1 and 0, or missing. Pass a column of classes as a label of its own."
        )
        raise ValueError(msg)
    return values.astype(object).map(lambda value: np.nan if pd.isna(value) else float(value)).to_numpy(dtype=float)
