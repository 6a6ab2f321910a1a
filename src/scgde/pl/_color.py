"""Values to colours, with the legend or colour bar that explains them."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ._style import SMALL, point_size, shorten

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
"""Colour-blind safe palette of Okabe and Ito (2008), "Color Universal Design"."""

MISSING = to_rgba("#D3D3D3")
"""Colour of groups or cells without a label."""

LEGEND_ENTRIES = 18

LEGEND: dict[str, Any] = {
    "alignment": "left",
    "borderaxespad": 0,
    "handletextpad": 0.2,
    "handlelength": 1.2,
    "labelspacing": 0.3,
}
"""Spacing of all legends that explain colours."""


@dataclass(frozen=True)
class Colors:
    """One colour per point, and what is needed to explain them.

    ``rgba`` is (n, 4); ``missing`` (n,) marks points without a value; ``categories`` maps each category to its colour
    and ``mappable`` carries the scale of numeric values (one of the two is empty).
    """

    rgba: np.ndarray
    missing: np.ndarray
    title: str = ""
    categories: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)
    mappable: ScalarMappable | None = None


def palette(n: int) -> list[tuple[float, float, float, float]]:
    """Return ``n`` distinct colours: Okabe-Ito up to 8, tab20 without its greys up to 18, then any number of hues."""
    if n <= len(OKABE_ITO):
        return [to_rgba(color) for color in OKABE_ITO[:n]]
    # the greys of tab20 would pass for missing labels
    tab = [to_rgba(color) for color in mpl.colormaps["tab20"].colors if np.ptp(color) > 0]  # type: ignore[attr-defined]
    if n <= len(tab):
        return tab[:n]
    lightness = (0.38, 0.52, 0.68)
    # steps of the golden section keep neighbours far apart, so that the few that a legend lists can be told apart
    return [(*colorsys.hls_to_rgb(0.6180339887 * i % 1, lightness[i % 3], 0.75), 1.0) for i in range(n)]


def _natural(text: str) -> list[Any]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def encode(values: Any, *, title: object = "") -> Colors:
    """Colour ``values`` (n,): numbers by viridis, anything else by category; missing and infinite values light grey."""
    series = pd.Series(values).reset_index(drop=True)
    if not isinstance(series.dtype, pd.CategoricalDtype):
        # columns that mix values and None are objects
        series = series.convert_dtypes() if series.dtype == object else series
        if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
            return _encode_numbers(series.to_numpy(dtype=float, na_value=np.nan), title=str(title))
    return _encode_categories(series, title=str(title))


def _encode_numbers(values: np.ndarray, *, title: str) -> Colors:
    missing = ~np.isfinite(values)
    rgba = np.tile(MISSING, (len(values), 1))
    if missing.all():
        return Colors(rgba, missing, title)
    low, high = values[~missing].min(), values[~missing].max()
    mappable = ScalarMappable(Normalize(low, high) if high > low else Normalize(low - 0.5, low + 0.5), "viridis")
    rgba[~missing] = mappable.to_rgba(values[~missing])
    return Colors(rgba, missing, title, mappable=mappable)


def _encode_categories(series: pd.Series, *, title: str) -> Colors:
    missing = series.isna().to_numpy()
    names = series.astype(object).where(~missing, "").map(str)
    present = set(names[~missing])
    if isinstance(series.dtype, pd.CategoricalDtype):
        order = [name for name in map(str, series.cat.categories) if name in present]
    else:
        order = sorted(present, key=_natural)
    colors = palette(len(order))
    rgba = np.tile(MISSING, (len(series), 1))
    codes = pd.Index(order, dtype=object).get_indexer(pd.Index(names, dtype=object))
    if order:
        rgba[~missing] = np.asarray(colors)[codes[~missing]]
    return Colors(rgba, missing, title, categories=dict(zip(order, colors, strict=True)))


def uniform(n: int, color: Any = OKABE_ITO[0]) -> Colors:
    """Return one colour for all ``n`` points; nothing to explain."""
    return Colors(np.tile(to_rgba(color), (n, 1)), np.zeros(n, dtype=bool))


def scatter(ax: Axes, xy: np.ndarray, colors: Colors, *, size: float | None = None, alpha: float | None = None) -> None:
    """Draw points (n, 2), those without a value first, so that they hide nothing; many points are rasterised."""
    n = len(xy)
    size = point_size(n) if size is None else size
    alpha = 0.7 if alpha is None and n > 1000 else alpha
    edged = n <= 200 and size > 5
    for zorder, chosen in enumerate((colors.missing, ~colors.missing), start=2):
        if not chosen.any():
            continue
        ax.scatter(
            xy[chosen, 0],
            xy[chosen, 1],
            s=size,
            c=colors.rgba[chosen],
            alpha=alpha,
            # an edge keeps yellow and light grey visible on white, but would blacken a crowd
            edgecolors="0.25" if edged else "none",
            linewidths=0.3 if edged else 0,
            rasterized=n > 1000,
            zorder=zorder,
        )


def explain(
    ax: Axes,
    colors: Colors,
    *,
    top: float = 1.0,
    height: float = 1.0,
    entries: int = LEGEND_ENTRIES,
    extra: Sequence[Line2D] = (),
) -> None:
    """Put the legend or colour bar of ``colors`` to the right of ``ax``, from ``top`` down (in axes units).

    Above ``entries`` the legend says how many more categories there are; ``extra`` entries follow, and count.
    """
    loc: Any = "upper left"
    left, title, anchor = 1.03, shorten(colors.title), (1.01, top + 0.02)
    handles = [*legend_handles(colors, entries - len(extra) - int(colors.missing.any())), *extra]
    if colors.mappable is not None:
        foot = 0.08 + 0.06 * len(handles) if handles else 0.0
        colorbar(ax, colors.mappable, colors.title, bounds=(left, top - height * (1 - foot), 0.04, height * (1 - foot)))
        title, loc, anchor = "", "lower left", (1.01, top - height - 0.02)
    if handles:
        ax.legend(handles=handles, title=title, loc=loc, bbox_to_anchor=anchor, **LEGEND)


def legend_handles(colors: Colors, entries: int = LEGEND_ENTRIES) -> list[Line2D]:
    """Entries of a legend: up to ``entries`` categories, how many more there are, and "missing" where any is."""
    listed = list(colors.categories.items())[:entries]
    handles = [_dot(rgba, shorten(name)) for name, rgba in listed]
    if len(colors.categories) > entries:
        handles.append(_dot("none", f"+ {len(colors.categories) - entries:,} more"))
    if colors.missing.any():
        handles.append(_dot(MISSING, "missing"))
    return handles


def colorbar(ax: Axes, mappable: ScalarMappable, title: str, *, bounds: tuple[float, float, float, float]) -> None:
    """Draw a colour bar inside ``bounds`` (axes units of ``ax``), taking no room from the axes of the caller."""
    cax = ax.inset_axes(bounds)
    bar = ax.figure.colorbar(mappable, cax=cax)
    bar.set_label(shorten(title, 28))
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(4)
    cax.tick_params(labelsize=SMALL, length=2, width=0.6, pad=1.5)


def _dot(color: Any, label: str) -> Line2D:
    edge = "none" if isinstance(color, str) else "0.25"
    return Line2D([], [], ls="", marker="o", ms=4, mfc=color, mec=edge, mew=0.3, label=label)
