"""What each group counts in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgde._validation import check_columns, check_constant, listing
from scgde.data._fields import GroupedObs

UNIFORM, BALANCED = "uniform", "balanced:"


def group_weights(weighting: Any, adata: AnnData, obs: GroupedObs, train: np.ndarray) -> np.ndarray | None:
    """(n_groups,) weights whose mean over the training groups is 1, or None where all are equal.

    Parameters
    ----------
    weighting
        "uniform"; "balanced:" and a column of ``.obs``, whose values then count equally; a column of ``.obs`` with
        weights; or a dict or Series from groups to weights.
    adata
        The training data.
    obs
        Its groups.
    train
        Positions of the training groups.

    Raises
    ------
    KeyError
        For unknown columns or groups.
    TypeError
        For what is none of these.
    ValueError
        For columns that are not constant within groups or do not belong to groups, training groups without a weight,
        and weights that are no numbers of at least 0 or leave fewer than two groups.
    """
    if isinstance(weighting, str):
        if weighting == UNIFORM:
            return None
        weight = _of_column(weighting, adata, obs, train)
    elif isinstance(weighting, Mapping | pd.Series):
        weight = np.full(len(obs.index), np.nan)
        keys, values = list(weighting.keys()), list(weighting.values() if isinstance(weighting, Mapping) else weighting)
        weight[obs.index.positions(keys)] = _numbers(pd.Series(values))
    else:
        msg = (
            f"group_weighting= received {type(weighting).__name__}: expected 'uniform', 'balanced:<column>', a column "
            "of .obs with weights, or a dict or Series from groups to weights."
        )
        raise TypeError(msg)
    bad = train[~(np.isfinite(weight[train]) & (weight[train] >= 0))]
    if len(bad):
        msg = (
            f"group_weighting= gives {len(bad)} training group(s) no weight of at least 0: "
            f"{listing(obs.index.names[i] for i in bad)}. Give each group a number."
        )
        raise ValueError(msg)
    if (weight[train] > 0).sum() < 2:
        msg = "group_weighting= leaves fewer than two training groups with a weight above 0; at least two are needed."
        raise ValueError(msg)
    # Groups that are not trained on need no weight, but are judged with one.
    return np.nan_to_num(weight / weight[train].mean(), nan=1.0, posinf=1.0)


def _of_column(weighting: str, adata: AnnData, obs: GroupedObs, train: np.ndarray) -> np.ndarray:
    if obs.index.rows is not None:
        msg = (
            f"group_weighting={weighting!r}: columns of .obs say nothing of overlapping groups. Pass a dict or Series "
            "from groups to weights."
        )
        raise ValueError(msg)
    column = weighting.removeprefix(BALANCED)
    check_columns(adata, [column], "group_weighting")
    values = check_constant(adata.obs[column], obs.index.codes, obs.index.names, "group_weighting")
    if not weighting.startswith(BALANCED):
        return _numbers(values)
    text = values.astype(object).where(values.notna(), None)
    counts = text.iloc[train].value_counts()
    # Groups without a value count as much as the average group.
    share = text.map(counts.sum() / (len(counts) * counts)).astype(float)
    return share.fillna(1.0).to_numpy()


def _numbers(values: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(values.astype(object), errors="coerce").to_numpy(dtype=float)
    wrong = np.isnan(numbers) & values.notna().to_numpy()
    if wrong.any():
        msg = (
            f"group_weighting= found {listing(values[wrong].unique())} where it expected weights. To let the values of "
            "a column count equally, pass 'balanced:<column>'."
        )
        raise ValueError(msg)
    return numbers
