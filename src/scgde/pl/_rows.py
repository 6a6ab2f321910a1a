"""One row per name: models, cell types, genes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ._style import SMALL, new_axes, shorten

MOST_ROWS = 30
"""Rows that are listed; a note says how many more there are."""


def row_axes(ax: Axes | None, n_rows: int, *, least: float = 1.4) -> Axes:
    """Return ``ax``, or new axes whose height fits the rows."""
    return new_axes(ax, height=max(least, 0.55 + 0.15 * n_rows))


def name_rows(ax: Axes, names: Sequence[object], *, missing: Iterable[int] = (), n_more: int = 0) -> None:
    """Name the rows 0, 1, … from the top down, and say which have no value and how many are not shown."""
    ax.set_yticks(range(len(names)), [shorten(name) for name in names], fontsize=SMALL)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0, pad=3)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.spines["left"].set_visible(False)
    for row in missing:
        ax.text(0.01, row, "missing", color="0.55", fontsize=SMALL, transform=ax.get_yaxis_transform(), va="center")
    if n_more:
        ax.text(1, 1, f"+ {n_more:,} more", fontsize=SMALL, transform=ax.transAxes, ha="right", va="bottom")
