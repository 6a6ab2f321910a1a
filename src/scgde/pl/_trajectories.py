"""Paths of single cells."""

from __future__ import annotations

from os import PathLike

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from scgde._constants import PATH_TIME

from ._color import MISSING, Colors, encode, explain, scatter, uniform
from ._paths import column_colors, read_paths
from ._projection import look_at, read_cells
from ._style import finish, new_axes, point_size, style


def trajectories(
    cells: AnnData,
    *,
    color: str | None = None,
    background: AnnData | None = None,
    time: str = PATH_TIME,
    rep: str | None = None,
    components: tuple[int, int] = (0, 1),
    max_cells: int = 300,
    legend: bool = True,
    seed: int = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | None:
    """Plot the paths of single cells from one population to another: one line per cell, a dot where it ends.

    The view is the principal components of the background, or of the paths where there is none.

    Parameters
    ----------
    cells
        Cells at each position of their paths: what ``model.transport(…, return_trajectory=True)`` returns.
    color
        Column of ``.obs`` that colours the paths; by default they are graded by the position t. Cells without a value
        are light grey.
    background
        Real cells in the same representation, drawn in light grey.
    time
        Column of ``.obs`` that holds the position.
    rep
        Representation: a key of ``.obsm``; by default ``.X``.
    components
        Which two components (or features, where there are two) to draw, counted from 0.
    max_cells
        At most so many paths are drawn, at random.
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
        If ``.obs`` lacks the columns of a trajectory, or ``color`` or ``rep`` is not known.
    ValueError
        If cells lack some of their positions, or the background has other features.
    """
    paths = read_paths(cells, None, rep, max_cells=max_cells, seed=seed, time=time)
    colors = None if color is None else column_colors(paths.obs, color)
    n_steps, n_cells, n_features = paths.x.shape
    behind = None
    if background is not None:
        behind, _, _ = read_cells(background, rep, what="background", max_cells=5000, seed=seed)
        if behind.shape[1] != n_features:
            msg = f"The background has {behind.shape[1]} features, the paths have {n_features}. Name the same `rep`."
            raise ValueError(msg)
    view = look_at(paths.x.reshape(-1, n_features) if behind is None else behind, components, paths.names)
    xy = view(paths.x)
    if colors is None:
        shown, ends = _graded(paths.t, n_cells, time)
        segments = np.stack([xy[:-1], xy[1:]], axis=2).reshape(-1, 2, 2)
    else:
        shown, ends, segments = colors, colors, xy.transpose(1, 0, 2)
    with style():
        ax = new_axes(ax)
        if behind is not None:
            scatter(ax, view(behind), uniform(len(behind), MISSING), size=point_size(len(behind)) / 3)
        width, alpha = float(np.clip(6 / np.sqrt(n_cells), 0.3, 1.2)), 0.9 if n_cells <= 100 else 0.5
        lines = LineCollection(list(segments), colors=shown.rgba, linewidths=width, alpha=alpha, zorder=2)
        ax.add_collection(lines).set_rasterized(n_cells > 1000)
        scatter(ax, xy[-1], ends, size=point_size(n_cells) / 2)
        ax.autoscale_view()
        ax.set(xlabel=view.labels[0], ylabel=view.labels[1])
        if legend:
            real = Line2D([], [], ls="", marker="o", ms=3, mfc=MISSING, mec="none", label="real cells")
            explain(ax, ends, extra=[real] if behind is not None else [])
        return finish(ax, show=show, save=save)


def _graded(t: np.ndarray, n_cells: int, time: str) -> tuple[Colors, Colors]:
    """Colours by time of the segments between positions, step by step, and of the ends of the paths."""
    scale = encode(t, title=time).mappable
    assert scale is not None
    middles = np.repeat((t[1:] + t[:-1]) / 2, n_cells)
    found = [scale.to_rgba(values) for values in (middles, np.full(n_cells, t[-1]))]
    segments, ends = (Colors(rgba, np.zeros(len(rgba), dtype=bool), time, mappable=scale) for rgba in found)
    return segments, ends
