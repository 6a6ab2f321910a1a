"""Heat map of the distances between groups."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.cluster.hierarchy import leaves_list, linkage

from ._color import MISSING, colorbar, encode, explain
from ._groups import group_names, per_group
from ._style import SMALL, finish, new_axes, shorten, style

_NAMED = 25
_OPTIMAL = 500


def group_distances(
    distances: pd.DataFrame,
    *,
    color: pd.Series | Sequence[Any] | None = None,
    cluster: bool = True,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | None:
    """Heat map of the distances between groups, similar groups side by side.

    Parameters
    ----------
    distances
        Distances (n_groups, n_groups), index and columns naming the groups in the same order: what
        ``model.group_distances()`` returns. Missing distances are light grey.
    color
        One value per group, shown as a strip above the heat map: a Series is matched by group name, anything else by
        position.
    cluster
        Order the groups by average-linkage clustering (the two directions of an asymmetric distance are averaged);
        otherwise as they come.
    ax
        Axes to draw on, instead of a new figure of one journal column.
    show
        Show the figure, and return None.
    save
        Path to save the figure to.

    Returns
    -------
    The axes, or None with ``show=True``. Up to 25 groups are named, beside the rows.

    Raises
    ------
    ValueError
        If the frame is not square with equal index and columns, or is to be clustered and holds missing values.
    """
    matrix, names = _read(distances, cluster)
    colors = None if color is None else encode(per_group(color, names), title=getattr(color, "name", None) or "")
    order = _order(matrix) if cluster else np.arange(len(matrix))
    n = len(order)
    with style():
        ax = new_axes(ax, height=2.9)
        cmap = mpl.colormaps["viridis"].with_extremes(bad=MISSING)
        shown = matrix[np.ix_(order, order)]
        # Unbiased distances can lie a little below 0; else the scale starts there, for a single group too.
        low, high = (f(shown, initial=0, where=np.isfinite(shown)) for f in (np.min, np.max))
        image = ax.imshow(shown, cmap=cmap, aspect="auto", rasterized=True, vmin=low, vmax=high if high > low else 1)
        ax.spines[:].set_visible(False)
        _ticks(ax, [names[i] for i in order])
        colorbar(ax, image, "distance", bounds=(1.03, 0, 0.04, 0.45 if colors is not None else 1))
        if colors is not None:
            strip = ax.inset_axes((0, 1.01, 1, 0.04))
            strip.imshow(colors.rgba[order][None], aspect="auto", interpolation="nearest", extent=(-0.5, n - 0.5, 0, 1))
            strip.axis("off")
            explain(ax, colors, top=1.05, height=0.5, entries=7)
        return finish(ax, show=show, save=save)


def _read(distances: pd.DataFrame, cluster: bool) -> tuple[np.ndarray, list[str]]:
    if not isinstance(distances, pd.DataFrame):
        msg = f"Expected a square DataFrame of distances between groups, but got {type(distances).__name__}."
        raise TypeError(msg)
    if distances.shape[0] == 0 or not distances.index.equals(distances.columns):
        msg = (
            "Expected a square DataFrame whose index and columns name the same groups in the same order, but got shape "
            f"{distances.shape}. Reorder it, for instance by `distances.loc[groups, groups]`."
        )
        raise ValueError(msg)
    matrix = distances.to_numpy(dtype=float)
    bad = ~np.isfinite(matrix)
    if cluster and bad.any():
        msg = f"{bad.sum()} of {bad.size} distances are not finite: groups cannot be clustered. Use cluster=False."
        raise ValueError(msg)
    return np.where(bad, np.nan, matrix), group_names(distances.index)


def _order(matrix: np.ndarray) -> np.ndarray:
    """Leaves of an average-linkage tree, with neighbouring leaves made close where the groups are not too many."""
    n = len(matrix)
    if n < 3:
        return np.arange(n)
    # upper triangle in the order scipy expects; unbiased distances can be slightly negative
    condensed = np.clip((matrix + matrix.T)[np.triu_indices(n, 1)] / 2, 0, None)
    return leaves_list(linkage(condensed, "average", optimal_ordering=n <= _OPTIMAL))


def _ticks(ax: Axes, names: list[str]) -> None:
    n = len(names)
    if n > _NAMED:
        names = []
    # at one side only: the columns are the same groups, and the room is better spent on the map
    ax.set(xticks=[], xlabel=f"{n:,} groups" if n > 1 else "1 group")
    ax.set_yticks(range(len(names)), [shorten(name, 16) for name in names], fontsize=SMALL)
    ax.tick_params(length=0, pad=2)
