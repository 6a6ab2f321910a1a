"""Generated cells along a path between two groups."""

from __future__ import annotations

from os import PathLike

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from ._color import MISSING, Colors, encode, explain, scatter, uniform
from ._projection import look_at, read_cells
from ._style import WIDTH, finish, new_axes, point_size, small_ticks, style, unknown


def interpolation(
    generated: AnnData,
    *,
    time: str = "t",
    rep: str | None = None,
    components: tuple[int, int] = (0, 1),
    n_panels: int = 6,
    max_cells: int = 20_000,
    seed: int = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | np.ndarray | None:
    """Plot generated cells along the path between two groups: small multiples over t, or one panel graded by t.

    The view is the principal components of all cells, or the two features there are.

    Parameters
    ----------
    generated
        Generated cells with their position t on the path in ``.obs``: what ``model.interpolate()`` returns.
    time
        Column of ``.obs`` that holds t.
    rep
        Representation: a key of ``.obsm``; by default ``.X``.
    components
        Which two components (or features, where there are two) to draw, counted from 0.
    n_panels
        Number of panels, each with the cells of one t before those of all t in light grey; values of t are chosen
        evenly where there are more. 1 draws one panel graded by t, with the path of the mean.
    max_cells
        At most so many cells are drawn, at random.
    seed
        Seed of that choice.
    ax
        Axes to draw one panel graded by t on, instead of a new figure of one journal column.
    show
        Show the figure, and return None.
    save
        Path to save the figure to.

    Returns
    -------
    Array of axes, one per panel; with ``ax`` or ``n_panels=1`` the single axes; None with ``show=True``.

    Raises
    ------
    KeyError
        If ``time`` is not a column of ``.obs``.
    ValueError
        If ``time`` holds values that are missing or not numbers, or there are fewer than two features.
    """
    if n_panels < 1:
        msg = f"`n_panels` is {n_panels}, but must be at least 1 (one panel graded by t)."
        raise ValueError(msg)
    t_all = _times(generated, time)
    x, rows, names = read_cells(generated, rep, what="generated cells", max_cells=max_cells, seed=seed)
    view = look_at(x, components, names)
    xy, t = view(x), t_all[rows]
    colors = encode(t, title=time)
    with style():
        if ax is not None or n_panels == 1:
            ax = new_axes(ax)
            _graded(ax, xy, t, colors)
            ax.set(xlabel=view.labels[0], ylabel=view.labels[1])
            return finish(ax, show=show, save=save)
        return finish(_small_multiples(xy, t, colors, n_panels, view.labels), show=show, save=save)


def _times(generated: AnnData, time: str) -> np.ndarray:
    if time not in generated.obs:
        raise KeyError(unknown("Column", time, list(generated.obs.columns), "`time` must be a column of `.obs`."))
    t = pd.to_numeric(generated.obs[time].astype(object), errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(t).all():
        msg = f"Column {time!r} of `.obs` must hold numbers, but {(~np.isfinite(t)).sum()} of {len(t)} values are none."
        raise ValueError(msg)
    return t


def _graded(ax: Axes, xy: np.ndarray, t: np.ndarray, colors: Colors) -> None:
    scatter(ax, xy, colors, alpha=0.6)
    means = pd.DataFrame(xy).groupby(t).mean().to_numpy()
    ax.plot(*means.T, color="black", lw=0.9, marker="o", ms=2.5, mec="white", mew=0.4, zorder=5, label="mean")
    explain(ax, colors)


def _small_multiples(
    xy: np.ndarray, t: np.ndarray, colors: Colors, n_panels: int, labels: tuple[str, str]
) -> np.ndarray:
    steps = np.unique(t)
    chosen = steps[np.unique(np.linspace(0, len(steps) - 1, min(n_panels, len(steps))).round().astype(int))]
    n_columns = min(3, len(chosen))
    n_rows = -(-len(chosen) // n_columns)
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(WIDTH, 0.35 + WIDTH / 3 * n_rows if n_columns > 1 else 2.6),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    axes = grid.ravel()[: len(chosen)]
    for spare in grid.ravel()[len(chosen) :]:
        spare.remove()
    for axis, step in zip(axes, chosen, strict=True):
        now = t == step
        scatter(axis, xy[~now], uniform((~now).sum(), mpl.colors.to_hex(MISSING)), size=point_size(len(xy)) / 8)
        some = Colors(colors.rgba[now], np.zeros(now.sum(), dtype=bool))
        scatter(axis, xy[now], some, size=point_size(now.sum()) / 3, alpha=0.8)
        axis.set_title(f"t = {step:.3g}", pad=2)
        small_ticks(axis, n=3)
    figure.supxlabel(labels[0], fontsize=7)
    figure.supylabel(labels[1], fontsize=7)
    return axes
