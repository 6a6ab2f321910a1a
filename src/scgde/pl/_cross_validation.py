"""Scores of models in held-out groups, and how they differ from baselines."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from scgde.prediction import CrossValidation
from scgde.prediction._baselines import ALWAYS, BASELINES

from ._color import LEGEND, OKABE_ITO, palette
from ._rows import MOST_ROWS, name_rows, row_axes
from ._style import check_kind, finish, shorten, style, unknown

TRIVIAL = "0.55"
"""Colour of what has learned nothing from cells."""


def cross_validation(
    result: CrossValidation,
    *,
    metric: str | None = None,
    kind: Literal["scores", "differences"] = "scores",
    models: str | list[str] | None = None,
    color: str | Mapping[str, Any] | None = None,
    folds: bool = True,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | None:
    """Plot a score of each model in held-out groups, or the paired difference of models to each baseline.

    Bars are 95% intervals that know that folds share training groups. What has learned nothing from cells ("majority",
    "permuted") is grey, with a dashed line at the better of the two.

    Parameters
    ----------
    result
        What :func:`scgde.prediction.cross_validate` returns.
    metric
        Which score; by default the first.
    kind
        ``"scores"``: the mean of each model, best first. ``"differences"``: a row per baseline, right of 0 where the
        model is better; filled where the interval excludes 0 (which is not corrected for the number of comparisons).
    models
        Models to draw, and for differences those that are compared; by default all, and those that are no baselines
        (or the best where all are).
    color
        One colour for the models, or a mapping from names to colours.
    folds
        Draw the score of each fold below its mean, pale.
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
        If ``metric`` or one of ``models`` is not in the result.
    ValueError
        If ``kind`` is not known.
    """
    check_kind(kind, _KINDS)
    metrics = list(pd.unique(result.summary["metric"]))
    metric = metrics[0] if metric is None else metric
    if metric not in metrics:
        raise KeyError(unknown("Metric", metric, metrics, "Give one of the scores of the cross-validation."))
    known = list(pd.unique(result.summary["model"]))
    chosen = [models] if isinstance(models, str) else models
    absent = [name for name in chosen or [] if name not in known]
    if absent:
        raise KeyError(unknown("Model", absent[0], known, "Give models of the cross-validation."))
    with style():
        return finish(_KINDS[kind](result, metric, chosen, color, folds, ax), show=show, save=save)


def _only(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    return table[table["metric"] == metric]


def _higher_is_better(result: CrossValidation, metric: str) -> bool:
    """Advantages are signed so that positive is better; the sign of the scores' difference tells the direction."""
    table = _only(result.comparison, metric).dropna(subset="advantage")
    if table.empty:
        return True
    summary = _only(result.summary, metric)
    mean = dict(zip(summary["model"], summary["mean"], strict=True))
    row = max(_records(table), key=lambda record: abs(record["advantage"]))
    return (mean[row["model"]] - mean[row["baseline"]]) * row["advantage"] >= 0


def _colors(names: list[str], color: str | Mapping[str, Any] | None) -> list[tuple[float, float, float, float]]:
    """What has learned nothing stays grey, unless a mapping names it."""
    if isinstance(color, Mapping):
        return [to_rgba(color.get(name, TRIVIAL)) for name in names]
    return [to_rgba(TRIVIAL if name in ALWAYS else color or OKABE_ITO[0]) for name in names]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in record.items()} for record in table.to_dict("records")]


def _interval(ax: Axes, x: float, ends: Mapping[str, Any], row: float, color: Any, *, filled: bool = True) -> None:
    # an interval that is not known, as with a single fold, is NaN and leaves no mark
    ax.plot([ends["lower"], ends["upper"]], [row, row], color=color, lw=1.2, solid_capstyle="butt", zorder=3)
    ax.plot([x], [row], "o", ms=4, mfc=color if filled else "white", mec=color, mew=0.9, zorder=4)


def _scores(
    result: CrossValidation, metric: str, models: list[str] | None, color: Any, folds: bool, ax: Axes | None
) -> Axes:
    higher = _higher_is_better(result, metric)
    table = _only(result.summary, metric).sort_values("mean", ascending=not higher, kind="stable", na_position="last")
    trivial = table.loc[table["model"].isin(ALWAYS), "mean"]
    if models is not None:
        table = table[table["model"].isin(models)]
    n_more = max(len(table) - MOST_ROWS, 0)
    table = table.head(MOST_ROWS)
    names = list(table["model"])
    ax = row_axes(ax, len(names))
    values = _only(result.scores, metric)
    for row, (record, rgba) in enumerate(zip(_records(table), _colors(names, color), strict=True)):
        own = values.loc[values["model"] == record["model"], "value"].to_numpy(dtype=float)
        if folds:
            ax.plot(own, np.full(len(own), row + 0.25), "o", ms=2, mfc=rgba, mec="none", alpha=0.3, zorder=2)
        _interval(ax, record["mean"], record, row, rgba)
    if trivial.notna().any():
        ax.axvline(trivial.max() if higher else trivial.min(), color=TRIVIAL, lw=0.7, ls="--", zorder=1)
    ax.set(xlabel=f"{shorten(metric.replace('_', ' '), 30)} ({'higher' if higher else 'lower'} is better)")
    name_rows(ax, names, missing=np.flatnonzero(table["mean"].isna()), n_more=n_more)
    return ax


def _differences(
    result: CrossValidation, metric: str, models: list[str] | None, color: Any, folds: bool, ax: Axes | None
) -> Axes:
    table = _only(result.comparison, metric)
    if models is None:
        summary = _only(result.summary, metric)
        own = [name for name in pd.unique(summary["model"]) if name not in BASELINES]
        best = summary.sort_values("mean", ascending=not _higher_is_better(result, metric))
        models = own or list(best["model"][:1])
    models = models[:8]
    table = table[table["model"].isin(models)]
    order = table.groupby("baseline")["advantage"].mean().sort_values().index
    names, n_more = list(order[:MOST_ROWS]), max(len(order) - MOST_ROWS, 0)
    ax = row_axes(ax, len(names) * max(1, len(models) // 2))
    colors = dict(zip(models, palette(len(models)) if color is None else _colors(models, color), strict=True))
    for record in _records(table[table["baseline"].isin(names)]):
        row = names.index(record["baseline"]) + 0.6 * ((models.index(record["model"]) + 0.5) / len(models) - 0.5)
        sure = record["lower"] > 0 or record["upper"] < 0
        _interval(ax, record["advantage"], record, row, colors[record["model"]], filled=sure)
    ax.axvline(0, color="0.4", lw=0.6, zorder=1)
    name_rows(ax, names, n_more=n_more)
    for label, name in zip(ax.get_yticklabels(), names, strict=True):
        label.set_color("0.45" if name in ALWAYS else "black")
    ax.set(xlabel=f"advantage in {shorten(metric.replace('_', ' '), 26)}")
    _explain_models(ax, colors)
    return ax


def _explain_models(ax: Axes, colors: Mapping[str, Any]) -> None:
    if len(colors) == 1:
        ax.set_title(f"{shorten(next(iter(colors)))} better than … →", loc="left")
        return
    handles = [Line2D([], [], marker="o", ms=4, lw=1.2, color=c, label=shorten(name)) for name, c in colors.items()]
    # to the left over the names of the rows: the axes keep their width
    ax.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1.02), ncols=2, columnspacing=1, **LEGEND)


_KINDS = {"scores": _scores, "differences": _differences}
