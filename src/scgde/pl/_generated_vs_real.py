"""Generated cells against real ones."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.stats import gaussian_kde

from ._color import LEGEND, Colors, encode, explain, legend_handles, scatter, uniform
from ._projection import Linear, look_at, read_cells
from ._style import WIDTH, finish, legend_columns, new_axes, point_size, shorten, small_ticks, style, unknown

_FILL = {"real": "#0072B2", "generated": "#D55E00"}
_MASS = (0.9, 0.5)
_KDE_FEWEST, _KDE_CELLS = 50, 1000


def generated_vs_real(
    generated: AnnData | np.ndarray,
    real: AnnData | np.ndarray,
    *,
    components: tuple[int, int] = (0, 1),
    color: str | None = None,
    rep: str | None = None,
    panels: bool | None = None,
    contours: bool = True,
    marginals: bool = True,
    max_cells: int = 5000,
    seed: int = 0,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | np.ndarray | None:
    """Plot generated and real cells in one view: principal components of the real cells, or the two features as such.

    Contours enclose 50% and 90% of the cells (a kernel density estimate); in two panels both show those of the real
    cells, so that the generated ones can be read against them.

    Parameters
    ----------
    generated
        Generated cells (n_cells, n_features), or an AnnData of them.
    real
        Real cells in the same representation.
    components
        Which two components (or features, where there are two) to draw, counted from 0.
    color
        Column of ``.obs`` of one or both; cells without it are light grey.
    rep
        Representation: a key of ``.obsm``, or "X". An AnnData without this key is read from ``.X``, as the cells that a
        model generates hold the representation there.
    panels
        Two panels rather than one; by default where a ``color`` is given.
    contours
        Draw the contours.
    marginals
        Draw histograms of both components at the margins of a single panel.
    max_cells
        At most so many cells of either kind are drawn, at random.
    seed
        Seed of that choice.
    ax
        Axes to draw on (two for two panels), instead of a new figure of one journal column.
    show
        Show the figure, and return None.
    save
        Path to save the figure to.

    Returns
    -------
    The axes, an array of two for two panels, or None with ``show=True``.

    Raises
    ------
    KeyError
        If ``rep`` or ``color`` is in neither of the two.
    ValueError
        If the two differ in their number of features, have fewer than two, or ``ax`` does not fit the number of panels.
    """
    pair = {"real": real, "generated": generated}
    cells, rows, view = _read(pair, rep, components, max_cells=max_cells, seed=seed)
    xy = {what: view(x) for what, x in cells.items()}
    panels = color is not None if panels is None else panels
    with style():
        axes = _two_axes(ax) if panels else _one_axes(ax)
        if panels:
            _draw_panels(axes, xy, _shared_colors(pair, rows, color), contours, seed, owned=ax is None)
        else:
            _draw_overlay(axes[0], xy, contours, marginals, seed)
        for axis in axes:
            axis.set(xlabel=view.labels[0])
        axes[0].set(ylabel=view.labels[1])
        return finish(axes if panels else axes[0], show=show, save=save)


def _read(
    pair: dict[str, Any], rep: str | None, components: tuple[int, int], *, max_cells: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Linear]:
    """Cells to draw, their rows, and the view that is fitted on the real ones."""
    reps = dict.fromkeys(pair, rep)
    holders = [what for what, data in pair.items() if isinstance(data, AnnData) and rep in data.obsm]
    if holders:
        reps = {what: rep if what in holders else None for what in pair}
    read = {
        what: read_cells(data, reps[what], what=f"{what} cells", max_cells=max_cells, seed=seed)
        for what, data in pair.items()
    }
    n_features = {what: x.shape[1] for what, (x, _, _) in read.items()}
    if n_features["real"] != n_features["generated"]:
        keys = [key for data in pair.values() if isinstance(data, AnnData) for key in data.obsm]
        msg = (
            f"Real cells have {n_features['real']} features and generated cells {n_features['generated']}: both must "
            f"be in the same representation. Name it by `rep`; keys of `.obsm`: {sorted(set(keys)) or 'none'}."
        )
        raise ValueError(msg)
    x, _, names = read["real"]
    view = look_at(x, components, names)
    return {what: x for what, (x, _, _) in read.items()}, {what: rows for what, (_, rows, _) in read.items()}, view


def _shared_colors(pair: dict[str, Any], rows: dict[str, np.ndarray], color: str | None) -> dict[str, Colors]:
    """Colours of both kinds of cells on one scale."""
    if color is None:
        return {what: uniform(len(rows[what]), color) for what, color in _FILL.items()}
    columns = {what: data.obs.columns for what, data in pair.items() if isinstance(data, AnnData)}
    if not any(color in known for known in columns.values()):
        options = list(dict.fromkeys(name for known in columns.values() for name in known))
        raise KeyError(unknown("Column", color, options, "Give a column of `.obs` of one of the two AnnData."))
    values = []
    for what, data in pair.items():
        known = color in columns.get(what, ())
        values.append(
            data.obs[color].iloc[rows[what]] if known else pd.Series(np.nan, range(len(rows[what])), dtype=object)
        )
    categories = [value.dtype for value in values if isinstance(value.dtype, pd.CategoricalDtype)]
    together = pd.concat([value.astype(object) for value in values], ignore_index=True)
    if categories and not pd.api.types.is_numeric_dtype(categories[0].categories):
        # the order of the categories is the user's; concatenation loses it
        order = list(dict.fromkeys(name for dtype in categories for name in dtype.categories))
        together = pd.Series(pd.Categorical(together, [*order, *sorted(set(together.dropna()) - set(order), key=str)]))
    colors = encode(together, title=color)
    cut = len(rows["real"])
    parts = {"real": slice(None, cut), "generated": slice(cut, None)}
    return {
        what: Colors(colors.rgba[part], colors.missing[part], color, colors.categories, colors.mappable)
        for what, part in parts.items()
    }


def _one_axes(ax: Axes | Sequence[Axes] | None) -> np.ndarray:
    if not (ax is None or isinstance(ax, Axes)):
        msg = "One panel is drawn, but `ax` is not a single Axes. Give one Axes, or `panels=True`."
        raise ValueError(msg)
    return np.array([new_axes(ax, height=2.8)], dtype=object)


def _two_axes(ax: Axes | Sequence[Axes] | None) -> np.ndarray:
    if ax is None:
        _, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.9), sharex=True, sharey=True, layout="constrained")
        for axis in axes:
            small_ticks(axis, n=3)
        return axes
    axes = np.ravel(np.asarray(ax, dtype=object))
    if len(axes) != 2:
        msg = f"Two panels are drawn, but `ax` holds {len(axes)} Axes. Give two, or `panels=False`."
        raise ValueError(msg)
    return axes


def _draw_panels(
    axes: np.ndarray, xy: dict[str, np.ndarray], colors: dict[str, Colors], contours: bool, seed: int, *, owned: bool
) -> None:
    for axis, what in zip(axes, xy, strict=True):
        scatter(axis, xy[what], colors[what], size=point_size(len(xy[what])) / 3, alpha=0.7)
        axis.set_title(what)
        if contours:
            _contours(axis, xy["real"], "black", seed=seed)
    both = np.vstack(list(xy.values()))
    for axis in axes:
        _limits(axis, both)
    missing = np.concatenate([c.missing for c in colors.values()])
    last = colors["generated"]
    shared = Colors(last.rgba, missing, last.title, last.categories, last.mappable)
    if last.categories and owned:
        _legend_below(axes[0].figure, shared)
    else:
        explain(axes[1], shared, entries=12)


def _legend_below(figure: Any, colors: Colors) -> None:
    """Legend below both panels, which one at their side would make narrow; the figure grows by its rows."""
    handles = legend_handles(colors, entries=14)
    n_columns = legend_columns(str(handle.get_label()) for handle in handles)
    figure.set_figheight(figure.get_figheight() + 0.2 + 0.12 * -(-len(handles) // n_columns))
    title = shorten(colors.title)
    figure.legend(handles=handles, title=title, loc="outside lower center", ncols=n_columns, **LEGEND)


def _draw_overlay(ax: Axes, xy: dict[str, np.ndarray], contours: bool, marginals: bool, seed: int) -> None:
    # in random order: neither kind hides the other
    order = np.random.default_rng(seed).permutation(sum(map(len, xy.values())))
    rgba = np.vstack([uniform(len(xy[what]), _FILL[what]).rgba for what in xy])[order]
    scatter(ax, np.vstack(list(xy.values()))[order], Colors(rgba, np.zeros(len(order), dtype=bool)), alpha=0.4)
    if contours:
        for what, ls in (("real", "-"), ("generated", "--")):
            _contours(ax, xy[what], _FILL[what], seed=seed, ls=ls)
    _limits(ax, np.vstack(list(xy.values())))
    if marginals:
        _marginals(ax, xy)
    handles = [
        Line2D([], [], color=_FILL[what], ls=ls, lw=1, marker="o", ms=3.5, label=what)
        for what, ls in (("real", "-"), ("generated", "--"))
    ]
    corner = (1.02, 1.02) if marginals else (1.02, 1.0)
    ax.legend(handles=handles, loc="lower left" if marginals else "upper left", bbox_to_anchor=corner, borderaxespad=0)


def _limits(ax: Axes, xy: np.ndarray) -> None:
    low, high = xy.min(axis=0), xy.max(axis=0)
    pad = np.where(high > low, 0.08 * (high - low), 0.5)
    ax.set(xlim=(low[0] - pad[0], high[0] + pad[0]), ylim=(low[1] - pad[1], high[1] + pad[1]))


def _contours(ax: Axes, xy: np.ndarray, color: str, *, seed: int, ls: str = "-") -> None:
    """Contours around the densest cells; none where the cells are too few or lie on a line."""
    if len(xy) < _KDE_FEWEST or np.linalg.matrix_rank(xy - xy.mean(axis=0)) < 2:
        return
    if len(xy) > _KDE_CELLS:
        xy = np.random.default_rng(seed).choice(xy, _KDE_CELLS, replace=False)
    # Scott's width is for one normal; cells lie in several clusters
    density = gaussian_kde(xy.T, bw_method=lambda kde: 0.75 * kde.scotts_factor())
    pad = 0.25 * np.ptp(xy, axis=0)
    x, y = (np.linspace(lo, hi, 60) for lo, hi in zip(xy.min(axis=0) - pad, xy.max(axis=0) + pad, strict=True))
    grid = density(np.array(np.meshgrid(x, y)).reshape(2, -1)).reshape(60, 60)
    levels = np.unique(np.quantile(density(xy.T), [1 - mass for mass in _MASS]))
    ax.contour(x, y, grid, levels=levels, colors=[color], linewidths=0.8, linestyles=ls, zorder=4)


def _marginals(ax: Axes, xy: dict[str, np.ndarray]) -> None:
    """Histograms above and to the right, on the scale of the axes."""
    above, right = ax.inset_axes((0, 1.02, 1, 0.18)), ax.inset_axes((1.02, 0, 0.18, 1))
    for column, (side, limits) in enumerate(((above, ax.get_xlim()), (right, ax.get_ylim()))):
        _histograms(side, {what: points[:, column] for what, points in xy.items()}, limits, upright=side is above)
        side.axis("off")


def _histograms(ax: Axes, values: dict[str, np.ndarray], limits: tuple[float, float], *, upright: bool = True) -> None:
    """Densities of both kinds of cells (n_cells,) as filled steps."""
    for what, x in values.items():
        density, edges = np.histogram(x, 40, range=limits, density=True)
        # no line along the axis where there are no cells
        density[density == 0] = np.nan
        orientation: Any = "vertical" if upright else "horizontal"
        ax.stairs(density, edges, orientation=orientation, fill=True, color=_FILL[what], alpha=0.25)
        ax.stairs(density, edges, orientation=orientation, color=_FILL[what], lw=0.8)
    ax.set(**{"xlim" if upright else "ylim": limits})
