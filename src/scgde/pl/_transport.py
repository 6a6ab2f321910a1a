"""Arrows and streamlines between populations."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.ndimage import gaussian_filter

from scgde._constants import SOURCE, TARGET

from ._color import OKABE_ITO, Colors, explain, scatter, uniform
from ._labels import annotate as annotate_points
from ._paths import Paths, column_colors, read_paths
from ._projection import at_most, look_at
from ._style import check_kind, finish, new_axes, point_size, style

BEFORE, AFTER = OKABE_ITO[0], OKABE_ITO[3]

_MANY = 25
_MOST_ARROWS = 300
_GRID = 24


def transport(
    moved: AnnData,
    before: AnnData | None = None,
    *,
    kind: Literal["groups", "cells", "streamlines"] = "groups",
    color: str | None = None,
    rep: str | None = None,
    components: tuple[int, int] = (0, 1),
    annotate: bool | None = None,
    max_cells: int = 5000,
    legend: bool = True,
    seed: int = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | None:
    """Plot where cells go when they are moved: cells before (pale) and after, and arrows or streamlines between them.

    The view is the principal components of all of these cells, or the two features there are.

    Parameters
    ----------
    moved
        What ``model.transport()`` or ``model.forecast()`` returns, with or without trajectories.
    before
        The AnnData that the cells come from, in the same representation; not needed for trajectories.
    kind
        ``"groups"``: an arrow from the mean of each source to the mean of its moved cells. ``"cells"``: an arrow per
        cell. At most 300 arrows are drawn, at random. ``"streamlines"``: the mean displacement of cells nearby, where
        there are any.
    color
        Column of ``.obs`` of the moved cells, such as their cell type; by default cells are blue before and vermilion
        after the move. Cells without a value are light grey.
    rep
        Representation: a key of ``.obsm``; by default ``.X``.
    components
        Which two components (or features, where there are two) to draw, counted from 0.
    annotate
        Write the names of sources and targets, where there is a free place; by default up to 25 arrows.
    max_cells
        At most so many cells are drawn, at random; the means are theirs.
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
    The axes, or None with ``show=True``.

    Raises
    ------
    KeyError
        If neither a trajectory nor ``before`` is given, or ``color`` or ``rep`` is not known.
    ValueError
        If ``kind`` is not known, cells are not found in ``before``, or the features differ.
    """
    check_kind(kind, _KINDS)
    paths = read_paths(moved, before, rep, max_cells=max_cells, seed=seed)
    colors = None if color is None else column_colors(paths.obs, color)
    view = look_at(paths.x[[0, -1]].reshape(-1, paths.x.shape[2]), components, paths.names)
    xy = view(paths.x)
    with style():
        ax = new_axes(ax)
        n = xy.shape[1]
        for step, alpha, plain in ((0, 0.25, BEFORE), (-1, 0.6, AFTER)):
            scatter(ax, xy[step], colors or uniform(n, plain), size=point_size(n) / 2, alpha=alpha)
        ax.set(xlabel=view.labels[0], ylabel=view.labels[1])
        ax.margins(0.08)
        if legend:  # before the names, which need the room that it leaves
            explain(ax, colors or uniform(n), extra=_before_and_after(colors))
        _KINDS[kind](ax, xy, paths, annotate, seed)
        return finish(ax, show=show, save=save)


def _before_and_after(colors: Colors | None) -> list[Line2D]:
    pair = (BEFORE, AFTER) if colors is None else ("0.3", "0.3")
    return [
        Line2D([], [], ls="", marker="o", ms=4, mfc=color, mec="none", alpha=alpha, label=label)
        for color, alpha, label in zip(pair, (0.4, 1), ("before", "after"), strict=True)
    ]


def _arrows(ax: Axes, start: np.ndarray, end: np.ndarray, *, width: float, **kwargs: Any) -> None:
    """Arrows from (n, 2) to (n, 2), ``width`` in points, without moving the limits of the axes."""
    ax.quiver(
        *start.T,
        *(end - start).T,
        angles="xy",
        scale_units="xy",
        scale=1,
        units="dots",
        width=width * ax.figure.dpi / 72,
        # heads of thin arrows would not be seen
        headwidth=max(4, 4 / width),
        headlength=max(5, 5 / width),
        headaxislength=max(4.5, 4.5 / width),
        zorder=4,
        **kwargs,
    )


def _by_group(ax: Axes, xy: np.ndarray, paths: Paths, annotate: bool | None, seed: int) -> None:
    absent = [column for column in (SOURCE, TARGET) if column not in paths.obs]
    keys = [paths.obs[column].astype(str).to_numpy() for column in (SOURCE, TARGET) if column not in absent]
    code = pd.MultiIndex.from_arrays(keys).factorize()[0] if keys else np.zeros(xy.shape[1], dtype=int)
    start, end = (pd.DataFrame(points).groupby(code).mean().to_numpy() for points in (xy[0], xy[-1]))
    n = len(start)
    some = at_most(n, _MOST_ARROWS, seed)
    _arrows(ax, start[some], end[some], width=float(np.clip(6 / np.sqrt(n), 0.6, 1.6)), color="black", alpha=0.9)
    if len(some) < n:
        ax.set_title(f"{len(some)} of {n:,} arrows", loc="left")
    if keys and (annotate or (annotate is None and n <= _MANY)):
        first = np.unique(code, return_index=True)[1]
        named = pd.DataFrame(np.vstack([start, end])).groupby(np.concatenate([key[first] for key in keys]), sort=False)
        annotate_points(ax, named.mean().to_numpy(), list(named.groups), size=point_size(n), force=bool(annotate))


def _by_cell(ax: Axes, xy: np.ndarray, paths: Paths, annotate: bool | None, seed: int) -> None:
    some = at_most(xy.shape[1], _MOST_ARROWS, seed)
    _arrows(ax, xy[0, some], xy[-1, some], width=0.6, color="0.15", alpha=0.9 if len(some) <= 30 else 0.4)


def _streamlines(ax: Axes, xy: np.ndarray, paths: Paths, annotate: bool | None, seed: int) -> None:
    """Mean velocity on a grid, of all steps between positions, by a kernel of 1.5 cells of the grid."""
    position, velocity = (xy[1:] + xy[:-1]).reshape(-1, 2) / 2, np.diff(xy, axis=0).reshape(-1, 2) * (len(xy) - 1)
    # a displacement is felt all along its way
    way = np.linspace(0, 1, 9)[:, None, None] if len(xy) == 2 else None
    if way is not None:
        position, velocity = (xy[0] + way * (xy[1] - xy[0])).reshape(-1, 2), np.tile(velocity, (len(way), 1))
    limits = ax.get_xlim(), ax.get_ylim()
    edges = [np.linspace(*limit, _GRID + 1) for limit in limits]
    weights = [np.ones(len(position)), velocity[:, 0], velocity[:, 1]]
    sums = [np.histogram2d(position[:, 0], position[:, 1], bins=edges, weights=w)[0].T for w in weights]
    mass, u, v = (gaussian_filter(each, 1.5, mode="constant") for each in sums)
    known = mass > 0.02 * mass.max()
    u, v = (np.ma.masked_where(~known, each / np.where(known, mass, 1)) for each in (u, v))
    x, y = ((edge[1:] + edge[:-1]) / 2 for edge in edges)
    ax.streamplot(x, y, u, v, color="black", linewidth=0.7, arrowsize=0.6, density=1.1, zorder=4)
    ax.set(xlim=limits[0], ylim=limits[1])


_KINDS: dict[str, Callable[[Axes, np.ndarray, Paths, bool | None, int], None]] = {
    "groups": _by_group,
    "cells": _by_cell,
    "streamlines": _streamlines,
}
