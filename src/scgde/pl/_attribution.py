"""What drives a prediction: cell types and genes."""

from __future__ import annotations

from os import PathLike

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ._color import OKABE_ITO
from ._rows import name_rows, row_axes
from ._style import SMALL, finish, style, unknown

FOR, AGAINST = OKABE_ITO[3], OKABE_ITO[0]


def attribution(
    values: pd.DataFrame | pd.Series,
    *,
    column: str = "mean",
    color: str | None = None,
    n_top: int = 20,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | None:
    """Plot what speaks for an outcome (vermilion) and against it (blue): cell types, or genes.

    Parameters
    ----------
    values
        The table of :func:`scgde.prediction.influence_by_type`, or one value per gene, as
        :func:`scgde.prediction.attribute_genes` returns. Rows are drawn in their order; one without a value is
        marked as missing.
    column
        Column of the table to draw. With a column ``share``, the area of a dot is the share of cells.
    color
        One colour for all rows, instead of two by sign.
    n_top
        At most so many rows are drawn, from the top of the table.
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
        If the table has no such column.
    TypeError
        If ``values`` is neither a table nor a series.
    ValueError
        If there is no row, or ``n_top`` is below 1.
    """
    series, share = _read(values, column, n_top)
    shown, value = series.iloc[:n_top], series.iloc[:n_top].to_numpy(dtype=float)
    known, rows = np.isfinite(value), np.arange(len(shown))
    rgb = np.where(value > 0, FOR, AGAINST) if color is None else np.full(len(value), color)
    with style():
        ax = row_axes(ax, len(shown))
        ax.axvline(0, color="0.4", lw=0.6, zorder=1)
        ax.hlines(rows[known], 0, value[known], colors=list(rgb[known]), lw=1, zorder=2)
        size = np.full(len(value), 14.0) if share is None else 4 + 60 * share[:n_top] / share.max()
        ax.scatter(value[known], rows[known], s=size[known], c=list(rgb[known]), linewidths=0, zorder=3)
        ax.margins(x=0.08)
        ax.set(
            xlabel="← against      influence      for →"
            if isinstance(values, pd.DataFrame)
            else values.name or "change"
        )
        if share is not None:
            ax.set_title("area of dots: share of cells", loc="left", fontsize=SMALL)
        name_rows(ax, list(shown.index), missing=rows[~known], n_more=len(series) - len(shown))
        return finish(ax, show=show, save=save)


def _read(values: pd.DataFrame | pd.Series, column: str, n_top: int) -> tuple[pd.Series, np.ndarray | None]:
    if n_top < 1 or not len(values):
        msg = f"There is nothing to draw: {len(values)} rows, n_top={n_top}. Give at least one row, and draw it."
        raise ValueError(msg)
    if isinstance(values, pd.Series):
        return values, None
    if not isinstance(values, pd.DataFrame):
        msg = (
            "Expected the table of `influence_by_type` or the series of `attribute_genes`, but got "
            f"{type(values).__name__}."
        )
        raise TypeError(msg)
    if column not in values:
        raise KeyError(unknown("Column", column, list(values.columns), "Give a column of the table of influences."))
    return values[column], values["share"].to_numpy(dtype=float) if "share" in values else None
