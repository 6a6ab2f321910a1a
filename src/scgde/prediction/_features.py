"""What a model of a fold is given, and what it gives back: features of groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

#: Column of a fold's AnnData with the number of each cell's group.
FOLD_GROUP = "scgde_group"

#: Cells whose features are in memory at a time.
CHUNK = 8192


@dataclass(frozen=True)
class FoldContext:
    """What a model is told of the fold that it is made for.

    Parameters
    ----------
    groupby
        Column of the fold's ``.obs`` with the number of each cell's group.
    label
        Column of the fold's ``.obs`` with the label: missing for all groups whose label the model must not see.
    kind
        "categorical", "ordered" or "numeric".
    cell_type_key
        Column with cell types, or None.
    seed
        Seed of all that the model draws.
    shared
        What models of this fold have computed and others can use.
    """

    groupby: str
    label: str
    kind: str
    cell_type_key: str | None
    seed: int
    shared: dict[str, Any] = field(default_factory=dict)


class FoldModel(Protocol):
    """A model that turns groups of cells into features; one is made for each fold, by ``factory(context)``.

    AnnData of a fold hold the fold's representation in X, and ``.obs`` with the label hidden where it must not be seen;
    other columns are as they were, those that tell the label among them. Features are an array, rows in the order of
    the sorted values of ``context.groupby``, or a DataFrame indexed by these values or by the groups' names.

    A model with its own head has ``fit(train)`` and ``predict(test)`` instead: probabilities with one column per class
    (in a DataFrame, named after them) or, for ordered and numeric labels, ranks or values.

    Examples
    --------
    >>> class Medians:
    ...     def __init__(self, context):
    ...         self.groupby = context.groupby
    ...
    ...     def fit_transform(self, train):
    ...         return self.transform(train)
    ...
    ...     def transform(self, adata):
    ...         return adata.to_df().groupby(adata.obs[self.groupby]).median()
    """

    def fit_transform(self, train: AnnData) -> np.ndarray | pd.DataFrame:
        """Learn from the cells of the training groups; (n_groups, n_features) features of these groups."""

    def transform(self, adata: AnnData) -> np.ndarray | pd.DataFrame:
        """Features of other groups, (n_groups, n_features), each from its own cells alone."""


Factory = Callable[[FoldContext], Any]


def group_codes(adata: AnnData) -> tuple[np.ndarray, int]:
    """Position of each cell's group among the groups of a fold's AnnData, and their number."""
    groups, codes = np.unique(adata.obs[FOLD_GROUP].to_numpy(), return_inverse=True)
    return codes, len(groups)


def group_means(
    x: np.ndarray, codes: np.ndarray, n_groups: int, function: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> np.ndarray:
    """Mean over each group's cells of a function of cells, (n_groups, n_features) in double precision.

    Parameters
    ----------
    x
        (n_cells, n_inputs).
    codes
        (n_cells,) group of each cell.
    n_groups
        Number of groups, all of which have cells.
    function
        From (n, n_inputs) to (n, n_features); seen a part of the cells at a time.
    """
    share = 1 / np.bincount(codes, minlength=n_groups)[codes]
    total: Any = 0
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        values = np.asarray(function(x[part].astype(np.float64)))
        places = (codes[part], np.arange(len(values)))
        total = total + sparse.csr_matrix((share[part], places), shape=(n_groups, len(values))) @ values
    return total


def aligned(features: Any, names: list[Any], positions: np.ndarray, model: str) -> np.ndarray:
    """Features of groups as a finite array, in the order of ``positions``."""
    if isinstance(features, pd.DataFrame):
        for keys in (positions.tolist(), names):
            index = pd.MultiIndex.from_tuples(keys) if isinstance(keys[0], tuple) else pd.Index(keys)
            place = features.index.get_indexer(index) if features.index.is_unique else np.array([-1])
            if (place >= 0).all():
                return aligned(features.to_numpy()[place], names, positions, model)
        msg = (
            f"The model {model!r} returned features indexed by {list(features.index[:3])}, …; expected one row for "
            f"each of {len(names)} groups, indexed by context.groupby or by the groups' names."
        )
        raise ValueError(msg)
    array = np.asarray(features, dtype=float)
    if array.ndim != 2 or len(array) != len(positions) or not np.isfinite(array).all():
        msg = (
            f"The model {model!r} returned features of shape {array.shape}; expected finite numbers with one row for "
            f"each of {len(positions)} groups."
        )
        raise ValueError(msg)
    return array
