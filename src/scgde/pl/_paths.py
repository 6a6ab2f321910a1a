"""Cells before and after a move, and the positions between, from what ``transport`` and ``forecast`` return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgde._constants import PATH_TIME, TARGET

from ._color import Colors, encode
from ._projection import at_most, cell_matrix, dense_rows, only_finite
from ._style import unknown


@dataclass(frozen=True)
class Paths:
    """Positions ``x`` (n_steps, n_cells, n_features) at times ``t`` (n_steps,), one row of ``obs`` per cell."""

    x: np.ndarray
    t: np.ndarray
    obs: pd.DataFrame
    names: list[str]


def read_paths(
    moved: AnnData, before: AnnData | None, rep: str | None, *, max_cells: int, seed: int, time: str = PATH_TIME
) -> Paths:
    """Paths of at most ``max_cells`` cells: of a trajectory, or of moved cells and the AnnData they come from."""
    if not isinstance(moved, AnnData):
        msg = f"Expected an AnnData of transported cells, as of `model.transport()`, but got {type(moved).__name__}."
        raise TypeError(msg)
    matrix, names = cell_matrix(moved, rep, what="moved cells")
    if before is None:
        t, rows = _trajectory_rows(moved.obs, time)
        rows = rows[:, at_most(rows.shape[1], max_cells, seed)]
        obs, parts = moved.obs.iloc[rows[0]], [dense_rows(matrix, step) for step in rows]
    else:
        t, chosen = np.array([0.0, 1.0]), at_most(moved.n_obs, max_cells, seed)
        obs = moved.obs.iloc[chosen]
        first, _ = cell_matrix(before, rep, what="cells before the move")
        if first.shape[1] != matrix.shape[1]:
            msg = (
                f"Cells have {first.shape[1]} features before the move and {matrix.shape[1]} after it: both must be in "
                f"the same representation. Name it by `rep`; keys of `.obsm`: {list(before.obsm) or 'none'}."
            )
            raise ValueError(msg)
        parts = [dense_rows(first, _rows_before(obs, before)), dense_rows(matrix, chosen)]
    x = np.stack(parts)
    kept = only_finite(np.isfinite(x).all(axis=(0, 2)), "paths")
    return Paths(x[:, kept], t, obs.iloc[kept], names)


def column_colors(obs: pd.DataFrame, color: str) -> Colors:
    """Colours of cells by a column of ``obs``."""
    if color not in obs:
        raise KeyError(unknown("Column", color, list(obs.columns), "Give a column of `.obs` of the moved cells."))
    return encode(obs[color], title=color)


def _trajectory_rows(obs: pd.DataFrame, time: str) -> tuple[np.ndarray, np.ndarray]:
    """Times (n_steps,) of a trajectory, and the rows (n_steps, n_cells) of each cell at each."""
    absent = [column for column in (time, "cell") if column not in obs]
    if absent:
        remedy = "Pass the result of `model.transport(…, return_trajectory=True)`, or the cells before the move, too."
        raise KeyError(unknown("Column", absent[0], list(obs.columns), remedy))
    t, step = np.unique(obs[time].to_numpy(dtype=float), return_inverse=True)
    cell, cells = pd.factorize(obs["cell"])
    rows = np.full((len(t), len(cells)), -1)
    rows[step, cell] = np.arange(len(obs))
    if rows.size != len(obs) or (rows < 0).any():
        msg = (
            f"{len(obs)} rows are not one for each of {len(cells)} cells at each of {len(t)} times: a path needs all "
            "of its positions. Choose cells by the column 'cell', not by rows."
        )
        raise ValueError(msg)
    return t, rows


def _rows_before(obs: pd.DataFrame, before: AnnData) -> np.ndarray:
    """Row in ``before`` of each moved cell, by name; a cell that moved several times has a suffix that says where."""
    names = pd.Index(before.obs_names)
    if not names.is_unique:
        msg = "Names of cells before the move are not unique, so none can be found. Call `.obs_names_make_unique()`."
        raise ValueError(msg)
    found = names.get_indexer(pd.Index(obs.index))
    for column in ("draw", TARGET):
        lost = np.flatnonzero(found < 0)
        if len(lost) and column in obs:
            pairs: Any = zip(obs.index[lost], obs[column].iloc[lost], strict=True)
            found[lost] = names.get_indexer([str(name).removesuffix(f"-{value}") for name, value in pairs])
    if (found < 0).any():
        lost = obs.index[found < 0]
        msg = (
            f"{len(lost)} of {len(obs)} moved cells, {lost[0]!r} among them, are not among the cells before the "
            "move. Pass the one that holds the sources."
        )
        raise ValueError(msg)
    return found
