"""What becomes of cells and groups."""

from __future__ import annotations

from os import PathLike
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from scgde._constants import SOURCE

from ._color import MISSING, Colors, encode, explain, palette, scatter
from ._projection import look_at, read_cells
from ._rows import name_rows
from ._style import check_kind, finish, new_axes, style, unknown

_NAMED = 25


def fates(
    cells: AnnData,
    *,
    kind: Literal["groups", "cells"] = "groups",
    color: str | None = None,
    key: str = "fates",
    rep: str | None = None,
    components: tuple[int, int] = (0, 1),
    max_cells: int = 5000,
    legend: bool = True,
    seed: int = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | None:
    """Plot the probabilities of fates: stacked for each group, or in a view of the forecast cells.

    Parameters
    ----------
    cells
        What ``model.fate_probabilities()`` returns.
    kind
        ``"groups"``: the mean of the cells of each group, groups of similar fates side by side. ``"cells"``: the
        principal components of the forecast cells, or the two features there are.
    color
        One fate, of which the probability is drawn; by default all fates of groups, and the most probable one of cells.
        Groups and cells without probabilities are light grey.
    key
        Key of ``.obsm`` and ``.uns`` of the fates.
    rep
        Representation of the cells: a key of ``.obsm``; by default ``.X``.
    components
        Which two components (or features, where there are two) to draw, counted from 0.
    max_cells
        At most so many cells are drawn, at random.
    legend
        Explain the colours, to the right of the axes.
    seed
        Seed of that choice.
    ax
        Axes to draw on, instead of a new figure of one journal column.
    show
        Show the figure, and return None.
    save
        Path to save the figure to.

    Returns
    -------
    The axes, or None with ``show=True``. Up to 25 groups are named, beside their bars; more are columns without names.

    Raises
    ------
    KeyError
        If there are no fates under ``key``, or ``color`` is none of them.
    ValueError
        If ``kind`` is not known.
    """
    check_kind(kind, _KINDS)
    if key not in cells.obsm or key not in cells.uns:
        remedy = "Pass the result of `model.fate_probabilities()`."
        raise KeyError(unknown("Fates `.obsm` key", key, list(cells.obsm), remedy))
    labels = [str(label) for label in cells.uns[key]["labels"]]
    if color is not None and color not in labels:
        raise KeyError(unknown("Fate", color, labels, "Give one of `.uns['fates']['labels']`."))
    with style():
        if kind == "groups":
            ax, colors = _groups(ax, *_group_table(cells, key), labels, color)
        else:
            x, rows, names = read_cells(cells, rep, what="forecast cells", max_cells=max_cells, seed=seed)
            view = look_at(x, components, names)
            colors = _cell_colors(np.asarray(cells.obsm[key], dtype=float)[rows], labels, color)
            ax = new_axes(ax)
            scatter(ax, view(x), colors)
            ax.set(xlabel=view.labels[0], ylabel=view.labels[1])
        if legend and (kind == "cells" or color is None or colors.missing.any()):
            explain(ax, colors)
        return finish(ax, show=show, save=save)


_KINDS = ("groups", "cells")


def _group_table(cells: AnnData, key: str) -> tuple[np.ndarray, list[str]]:
    """Probabilities (n_groups, n_labels) and names of the groups, in the order of their first cells."""
    table = np.asarray(cells.uns[key]["groups"], dtype=float)
    names = [str(name) for name in pd.unique(cells.obs[SOURCE])] if SOURCE in cells.obs else []
    return table, names if len(names) == len(table) else [str(i + 1) for i in range(len(table))]


def _order(table: np.ndarray) -> np.ndarray:
    """Groups by their main fate, the surest first; those without fates last."""
    known = np.isfinite(table).all(axis=1)
    filled = np.where(known[:, None], table, 0)
    main = np.where(known, filled.argmax(axis=1), table.shape[1])
    return np.lexsort((-filled.max(axis=1), main))


def _groups(
    ax: Axes | None, table: np.ndarray, names: list[str], labels: list[str], color: str | None
) -> tuple[Axes, Colors]:
    rgba = palette(len(labels))
    if color is None:
        order = _order(table)
    else:
        at = labels.index(color)
        table, labels, rgba = table[:, [at]], [color], [rgba[at]]
        order = np.argsort(-np.nan_to_num(table[:, 0], nan=-1), kind="stable")
    table, n = table[order], len(table)
    missing = ~np.isfinite(table).all(axis=1)
    named = n <= _NAMED
    ax = new_axes(ax, height=max(1.4, 0.55 + 0.15 * n) if named else 2.2)
    starts = np.cumsum(np.nan_to_num(table), axis=1) - np.nan_to_num(table)
    for place, color_ in enumerate(rgba):
        _bars(ax, starts[:, place], np.nan_to_num(table[:, place]), color_, named)
    if missing.any():
        _bars(ax, np.zeros(n), missing.astype(float), MISSING, named)
    what = "probability" if color is None else f"probability of {color}"
    if named:
        ax.set(xlabel=what, xlim=(0, 1))
        name_rows(ax, [names[i] for i in order])
    else:
        ax.set(ylabel=what, ylim=(0, 1), xlim=(-0.5, n - 0.5), xticks=[], xlabel=f"{n:,} groups")
    return ax, Colors(np.array(rgba), missing, "", dict(zip(labels, rgba, strict=True)))


def _bars(ax: Axes, start: np.ndarray, length: np.ndarray, color: tuple, named: bool) -> None:
    """Bars as rows, or as columns without gaps (a filled outline: one artist for any number of groups)."""
    if named:
        ax.barh(np.arange(len(start)), length, left=start, height=0.8, color=color, lw=0)
        return
    edges = np.arange(len(start) + 1) - 0.5
    ax.stairs(start + length, edges, baseline=start, fill=True, color=color, lw=0)


def _cell_colors(probabilities: np.ndarray, labels: list[str], color: str | None) -> Colors:
    if color is not None:
        return encode(probabilities[:, labels.index(color)], title=f"probability of {color}")
    known = np.isfinite(probabilities).all(axis=1)
    main = np.where(known, np.nan_to_num(probabilities).argmax(axis=1), -1)
    rgba = np.vstack([palette(len(labels)), [to_rgba(MISSING)]])
    present = {label: tuple(rgba[i]) for i, label in enumerate(labels) if (main == i).any()}
    return Colors(rgba[main], ~known, "most probable fate", present)
