"""Look of the figures: journal width, small type, new axes, saving and showing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from difflib import get_close_matches
from os import PathLike
from typing import Any, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

WIDTH = 3.5
"""Width in inches of one journal column."""

SMALL = 6.0
"""Smallest type in points."""

_RC: dict[Any, Any] = {
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
}

_Drawn = TypeVar("_Drawn", Axes, np.ndarray)


def style() -> AbstractContextManager[None]:
    """Context in which figures are drawn; matplotlib's settings are as before on leaving it."""
    return mpl.rc_context(_RC)


def small_ticks(ax: Axes, *, n: int = 4) -> None:
    """Few small ticks; set on the axes themselves, since ticks are made at drawing time, outside the style context."""
    ax.tick_params(labelsize=SMALL, length=2, width=0.6, pad=1.5)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(n))


def new_axes(ax: Axes | None, *, height: float = 2.6) -> Axes:
    """Return ``ax``, or the axes of a new figure of one column width."""
    if ax is not None:
        return ax
    ax = plt.figure(figsize=(WIDTH, height), layout="constrained").add_subplot()
    small_ticks(ax)
    return ax


def finish(drawn: _Drawn, *, show: bool | None, save: str | PathLike[str] | None) -> _Drawn | None:
    """Save the figure and show it where asked for; return what was drawn on unless it was shown."""
    if save is not None:
        np.ravel(np.asarray(drawn, dtype=object))[0].figure.canvas.figure.savefig(save, bbox_inches="tight")
    if show:
        plt.show()
        return None
    return drawn


def check_kind(kind: str, kinds: Iterable[str]) -> None:
    """Raise unless ``kind`` is one of the ways in which a function draws."""
    if kind not in kinds:
        raise ValueError(unknown("`kind`", kind, list(kinds), ""))


def shorten(text: object, width: int = 20) -> str:
    """Shorten to ``width`` characters by an ellipsis that keeps both ends: names often differ in the last ones."""
    text = " ".join(str(text).split())
    if len(text) > width:
        tail = (width - 1) // 3
        text = f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
    return text.replace("$", r"\$")


def legend_columns(labels: Iterable[str]) -> int:
    """Columns of a legend, up to three, that fit the width of one journal column."""
    return max(1, min(3, 66 // (max(map(len, labels), default=0) + 6)))


def point_size(n: int) -> float:
    """Area of a marker in points squared, for ``n`` points in one panel."""
    return float(np.clip(600 / max(n, 1) ** 0.6, 1.5, 30))


def unknown(what: str, name: object, options: Sequence[object], remedy: str) -> str:
    """Text of an error on an unknown name: near matches, else the first few options, and what to do."""
    names = [str(option) for option in options]
    near = get_close_matches(str(name), names, n=3)
    listed = ", ".join(map(repr, near or names[:8])) + (", …" if not near and len(names) > 8 else "")
    hint = f"Did you mean {listed}?" if near else f"Known: {listed or 'none'}."
    return f"{what} {name!r} not found. {hint} {remedy}".strip()
