"""The central limit theorem of embeddings: errors fall with the root of the number of cells, and intervals cover."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, LogLocator, PercentFormatter
from scipy import stats

from ._color import OKABE_ITO
from ._style import check_kind, finish, new_axes, style


def clt(
    z: pd.DataFrame | np.ndarray,
    n_cells: Sequence[int] | np.ndarray | pd.Series,
    *,
    kind: Literal["spread", "coverage"] = "spread",
    truth: pd.DataFrame | np.ndarray | None = None,
    se: pd.DataFrame | np.ndarray | None = None,
    level: float = 0.95,
    color: str = OKABE_ITO[0],
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | None:
    """Plot how embeddings of sets of cells, drawn again and again from one population, vary with the size of the sets.

    Parameters
    ----------
    z
        Embeddings (n_sets, n_latent) of sets that were drawn from one population, several of each size.
    n_cells
        Number of cells of each set, (n_sets,).
    kind
        ``"spread"``: the standard deviation of each dimension over sets of a size against their size, on logarithmic
        axes, with the fitted slope of the median and the slope -1/2 of the central limit theorem. ``"coverage"``: the
        share of intervals that hold the truth; the band is where chance puts one dimension in 95% of cases.
    truth
        Embedding (n_latent,) of the population; needed for coverage.
    se
        Standard errors (n_sets, n_latent); needed for coverage. An interval is z -+ t * se, with n_cells - 1 degrees of
        freedom.
    level
        Level of the intervals.
    color
        Colour of the dimensions, which are pale, and of their median.
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
    ValueError
        If ``kind`` is not known, shapes do not fit, a size has fewer than two sets, a set fewer than two cells, or
        coverage is asked for without ``truth`` and ``se``.
    """
    check_kind(kind, _KINDS)
    values, sizes = _read(z, n_cells)
    if kind == "coverage":
        if truth is None or se is None or not 0 < level < 1:
            msg = f"Coverage needs `truth`, `se` (`return_se=True`) and a level between 0 and 1 (level={level})."
            raise ValueError(msg)
        target, errors = np.ravel(np.asarray(truth, dtype=float)), np.asarray(se, dtype=float)
        if len(target) != values.shape[1] or errors.shape != values.shape:
            msg = f"`truth` {target.shape} and `se` {errors.shape} do not fit embeddings of shape {values.shape}."
            raise ValueError(msg)
        half = stats.t.ppf((1 + level) / 2, sizes - 1)[:, None] * errors
        values = (np.abs(values - target) <= half).astype(float)
    with style():
        return finish(_KINDS[kind](new_axes(ax), values, sizes, color, level), show=show, save=save)


def _read(z: pd.DataFrame | np.ndarray, n_cells: Any) -> tuple[np.ndarray, np.ndarray]:
    values, sizes = np.asarray(z, dtype=float), np.asarray(n_cells, dtype=float)
    if values.ndim != 2 or sizes.shape != (len(values),) or not np.isfinite(values).all():
        msg = (
            f"Expected finite embeddings (n_sets, n_latent) and their sizes (n_sets,), but got {values.shape} and "
            f"{sizes.shape}."
        )
        raise ValueError(msg)
    known, n_sets = np.unique(sizes, return_counts=True)
    if not len(known) or n_sets.min() < 2 or known[0] < 2:
        few = [f"{n} of {size:g} cells" for size, n in zip(known, n_sets, strict=True)][:8]
        msg = f"Expected at least two sets of each size, and two cells in a set, but got {few}. Draw more sets."
        raise ValueError(msg)
    return values, sizes


def _spread(ax: Axes, values: np.ndarray, sizes: np.ndarray, color: str, level: float) -> Axes:
    known = np.unique(sizes)
    spread = np.stack([values[sizes == size].std(axis=0, ddof=1) for size in known])
    spread = np.where(spread > 0, spread, np.nan)
    middle = np.nanmedian(spread, axis=1)
    fitted = ""
    if len(known) > 1 and np.isfinite(middle).all():
        fitted = f", slope {np.polyfit(np.log(known), np.log(middle), 1)[0]:.2f}".replace("-", "−")
    _dimensions(ax, known, spread, middle, color, f"median{fitted}")
    ax.plot(known, middle[0] * np.sqrt(known[0] / known), color="black", lw=0.8, ls="--", label="slope −1/2", zorder=3)
    ax.set(xscale="log", yscale="log", xlabel="cells of a set", ylabel="standard deviation of z")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    return _finish_axes(ax, known)


def _coverage(ax: Axes, values: np.ndarray, sizes: np.ndarray, color: str, level: float) -> Axes:
    known, n_sets = np.unique(sizes, return_counts=True)
    shares = np.stack([values[sizes == size].mean(axis=0) for size in known])
    low, high = stats.binom.ppf([[0.025], [0.975]], n_sets, level) / n_sets
    ax.fill_between(known, low, high, color="0.88", lw=0, zorder=1, label="chance")
    ax.axhline(level, color="black", lw=0.8, ls="--", zorder=3)
    _dimensions(ax, known, shares, shares.mean(axis=1), color, f"mean {shares.mean():.1%}")
    ax.set(xscale="log", xlabel="cells of a set", ylabel=f"coverage of {level:.0%} intervals")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return _finish_axes(ax, known)


def _dimensions(ax: Axes, known: np.ndarray, values: np.ndarray, middle: np.ndarray, color: str, label: str) -> None:
    """Each dimension, pale (the range of 90% of them where they are many), and the middle of all."""
    if values.shape[1] <= 100:
        ax.plot(known, values, color=color, lw=0.5, alpha=0.35, marker="." if len(known) == 1 else "", ms=3, zorder=2)
    else:
        ax.fill_between(known, *np.nanquantile(values, [0.05, 0.95], axis=1), color=color, alpha=0.2, lw=0, zorder=2)
    ax.plot(known, middle, color=color, lw=1.2, marker="o", ms=3.5, label=label, zorder=4)


def _finish_axes(ax: Axes, known: np.ndarray) -> Axes:
    """Ticks at sizes that there are, far enough from each other; the legend above, since curves may fill any corner."""
    ticks, least = [known[0]], np.log(known[-1] / known[0]) / 6
    for size in known[1:]:
        if np.log(size / ticks[-1]) >= least:
            ticks.append(size)
    ax.minorticks_off()
    ax.set_xticks(ticks, [f"{size:,.0f}" for size in ticks])
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handlelength=1.8, columnspacing=1)
    return ax


_KINDS = {"spread": _spread, "coverage": _coverage}
