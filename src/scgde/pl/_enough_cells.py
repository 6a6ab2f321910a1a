"""Whether groups have enough cells."""

from __future__ import annotations

from os import PathLike

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from scgde.uncertainty import relative_error

from ._color import OKABE_ITO
from ._groups import group_names, groupby_columns, stored_embedding
from ._labels import annotate as annotate_points
from ._style import finish, new_axes, point_size, style


def enough_cells(
    adata: AnnData,
    *,
    key: str = "gde",
    precision: float | None = 0.1,
    annotate: bool = False,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | None:
    """Plot the error of each embedding against the number of cells of its group, to see whether there are enough.

    One point per group, and the error that its cells would give in other numbers, which falls with the square root of
    the number of cells: the line is that of the median group, the band holds 80% of the groups.

    Parameters
    ----------
    adata
        AnnData with an embedding and its standard errors in ``.uns[key]``.
    key
        Key of ``.uns`` of the embedding.
    precision
        Error to aim at, drawn with the cells that the median group needs for it; None for nothing.
    annotate
        Write the names of the groups, where there is a free place.
    ax
        Axes to draw on, instead of a new figure of one journal column.
    show
        Show the figure, and return None.
    save
        Path to save the figure to.

    Returns
    -------
    The axes, or None with ``show=True``. The vertical axis is the standard error relative to the standard deviation
    between groups, as in :func:`scgde.uncertainty.n_cells_needed`.

    Raises
    ------
    KeyError
        If there is no embedding under ``key``, or no standard errors.
    ValueError
        If groups do not differ by more than chance.
    """
    stored = stored_embedding(adata, key, errors=True)
    z, n = np.asarray(stored["embedding"]), stored["groups"]["n_effective"].to_numpy(dtype=float)
    error = relative_error(z, np.asarray(stored["se"]), n)
    known = np.isfinite(error)
    n, error = n[known], error[known]
    cells = np.geomspace(max(2, n.min() / 2), 2 * n.max(), 50)
    # One cell has this error; m cells have it divided by the root of m.
    low, middle, high = np.quantile(error * np.sqrt(n), [0.1, 0.5, 0.9])
    with style():
        ax = new_axes(ax)
        ax.fill_between(cells, low / np.sqrt(cells), high / np.sqrt(cells), color=OKABE_ITO[5], alpha=0.25, lw=0)
        ax.plot(cells, middle / np.sqrt(cells), color=OKABE_ITO[0], lw=1)
        ax.scatter(n, error, s=point_size(len(n)), color=OKABE_ITO[0], linewidths=0, zorder=3)
        ax.set(xscale="log", yscale="log", xlabel="cells of a group", ylabel="error / spread between groups")
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        if precision is not None:
            needed = (middle / precision) ** 2
            ax.axhline(precision, color="0.5", lw=0.6, ls="--")
            ax.set_title(f"{precision:.0%}: {np.ceil(needed):,.0f} cells (median group)", loc="left")
        if annotate:
            names = np.array(group_names(stored["groups"][groupby_columns(stored)]), dtype=object)
            annotate_points(ax, np.c_[n, error], names[known], size=point_size(len(n)), force=False)
        return finish(ax, show=show, save=save)
