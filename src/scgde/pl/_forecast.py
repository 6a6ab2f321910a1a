"""Forecasts of groups, with their uncertainty, against the truth where it is known."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from scgde._constants import SOURCE, TARGET, TDE_KEY

from ._color import MISSING, OKABE_ITO, Colors, encode, explain, scatter, uniform
from ._ellipses import error_ellipses
from ._groups import group_names, groupby_columns, per_group, stored_embedding
from ._labels import annotate as annotate_points
from ._paths import column_colors
from ._projection import fit_pca, look_at, read_cells
from ._style import check_kind, finish, new_axes, point_size, style, unknown

FORECAST, TRUE = OKABE_ITO[3], OKABE_ITO[0]

_MANY = 25


def forecast(
    cells: AnnData,
    truth: AnnData | None = None,
    *,
    kind: Literal["embedding", "cells"] = "embedding",
    key: str = TDE_KEY,
    color: str | Sequence[Any] | pd.Series | None = None,
    rep: str | None = None,
    components: tuple[int, int] = (0, 1),
    annotate: bool | None = None,
    max_cells: int = 5000,
    legend: bool = True,
    seed: int = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | None:
    """Plot forecast embeddings or cells, against the true ones where they are known.

    Parameters
    ----------
    cells
        What ``model.forecast()`` returns; with ``n_draws``, ellipses hold 95% of a normal distribution with the
        covariance of the draws.
    truth
        AnnData with the embedding of populations in ``.uns[key]``: all of them are the background of the map, and a
        line leads from the forecast to the true embedding of a group that is there at the target time.
    kind
        ``"embedding"``: a map of the groups, the principal components of ``truth``. ``"cells"``: forecast cells and the
        cells of ``truth`` at the target time, or all of its cells where ``.uns[key]`` does not name the times; those of
        the groups that were forecast are blue, or black with ``color``.
    key
        Key of ``.uns`` of the embedding.
    color
        Of groups: a column of ``.uns["forecast"]["groups"]`` such as ``"log_growth"``, or one value per group (a Series
        is matched by the name of the source). Of cells: a column of ``.obs``. What has no value is light grey.
    rep
        Representation of the cells: a key of ``.obsm``; by default ``.X``. Forecast cells without it are read from
        ``.X``.
    components
        Which two components to draw, counted from 0.
    annotate
        Write the names of the groups, where there is a free place; by default up to 25.
    max_cells
        At most so many cells of each kind are drawn, at random.
    legend
        Explain the colours, to the right of the axes.
    seed
        Seed of that choice.
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
        If ``cells`` hold no forecast, ``truth`` no embedding under ``key``, or ``color`` or ``rep`` is not known.
    ValueError
        If ``kind`` is not known, or the embeddings or cells have different numbers of features.
    """
    check_kind(kind, ("embedding", "cells"))
    if "forecast" not in cells.uns:
        raise KeyError(unknown("`.uns` key", "forecast", list(cells.uns), "Pass the result of `model.forecast()`."))
    with style():
        if kind == "embedding":
            ax, xy, colors, extra = _embedding(cells, truth, key, color, components, ax)
        else:
            ax, xy, colors, extra = _cells(cells, truth, key, color, rep, components, max_cells, seed, ax)
        if legend:
            explain(ax, colors, extra=extra)
        if kind == "embedding" and (annotate or (annotate is None and len(xy) <= _MANY)):
            annotate_points(ax, xy, _names(cells), size=point_size(len(xy)), force=bool(annotate))
        return finish(ax, show=show, save=save)


def _entry(label: str, color: Any, marker: str = "o", **kwargs: Any) -> Line2D:
    return Line2D([], [], ls="", marker=marker, ms=4, color=color, mec=kwargs.pop("mec", "none"), label=label, **kwargs)


def _embedding(
    cells: AnnData,
    truth: AnnData | None,
    key: str,
    color: Any,
    components: tuple[int, int],
    ax: Axes | None,
) -> tuple[Axes, np.ndarray, Colors, list[Line2D]]:
    stored, names = cells.uns["forecast"], _names(cells)
    z, draws = np.asarray(stored["embedding"], dtype=float), stored.get("draws")
    colors = uniform(len(z), FORECAST) if color is None else _group_colors(stored["groups"], color, names)
    known, match = _true_embeddings(cells, truth, key)
    if known is not None and known.shape[1] != z.shape[1]:
        msg = f"Forecasts have {z.shape[1]} latent dimensions, `truth` has {known.shape[1]}: embed both by one model."
        raise ValueError(msg)
    view = fit_pca(z if known is None else np.vstack([known, z]), components)
    xy, n = view(z), len(z)
    ax, size = new_axes(ax), point_size(n)
    if known is not None:
        scatter(ax, view(known), uniform(len(known), MISSING), size=min(point_size(len(known)) / 2, 5))
    if draws is not None and len(draws) > 1:
        around = np.asarray(draws, dtype=float) - np.mean(draws, axis=0)
        spread = np.einsum("dgi,dgj->gij", around @ view.axes, around @ view.axes) / (len(draws) - 1)
        error_ellipses(ax, xy, spread, colors)
    at = np.flatnonzero(match >= 0)
    if known is not None and len(at):
        end, ends = view(known[match[at]]), uniform(len(at), TRUE).rgba if color is None else colors.rgba[at]
        lines = LineCollection(list(np.stack([xy[at], end], axis=1)), colors="0.4", linewidths=0.5, zorder=2)
        ax.add_collection(lines).set_rasterized(n > 1000)
        ax.scatter(
            end[:, 0],
            end[:, 1],
            s=size * 0.8,
            marker="D",
            c=ends,
            edgecolors="0.25",
            linewidths=0.3 * (n <= 200),
            zorder=3,
        )
    scatter(ax, xy, colors, size=size)
    ax.autoscale_view()
    ax.margins(0.1 if n <= _MANY else 0.04)
    ax.set(xlabel=view.labels[0], ylabel=view.labels[1])
    extra = [_entry("forecast", FORECAST if color is None else "0.5", mec="0.25", mew=0.3)]
    extra += [_entry("truth", TRUE if color is None else "0.5", "D", mec="0.25", mew=0.3)] if len(at) else []
    extra += [_entry("all populations", MISSING)] if known is not None else []
    return ax, xy, colors, extra


def _cells(
    cells: AnnData,
    truth: AnnData | None,
    key: str,
    color: Any,
    rep: str | None,
    components: tuple[int, int],
    max_cells: int,
    seed: int,
    ax: Axes | None,
) -> tuple[Axes, np.ndarray, Colors, list[Line2D]]:
    own = rep if rep in cells.obsm else None
    x, rows, names = read_cells(cells, own, what="forecast cells", max_cells=max_cells, seed=seed)
    colors = uniform(len(x), FORECAST) if color is None else column_colors(cells.obs.iloc[rows], color)
    extra = [_entry("forecast", FORECAST)] if color is None else []
    if truth is None:
        view, ax = look_at(x, components, names), new_axes(ax)
    else:
        at_target, same = _at_target(cells, truth, key)
        real, _, names = read_cells(truth[at_target], rep, what="true cells", max_cells=max_cells, seed=seed)
        if real.shape[1] != x.shape[1]:
            msg = f"Forecast cells have {x.shape[1]} features, true cells {real.shape[1]}. Name a `rep` that fits."
            raise ValueError(msg)
        view, ax = look_at(real, components, names), new_axes(ax)
        # true cells are blue, or black where colours are taken
        layers = (("other real cells", at_target & ~same, MISSING), ("truth", same, TRUE if color is None else "black"))
        for label, some, shade in layers:
            if some.any():
                true, _, _ = read_cells(truth[some], rep, what="true cells", max_cells=max_cells, seed=seed)
                scatter(ax, view(true), uniform(len(true), shade), size=point_size(len(true)) / 2, alpha=0.5)
                extra.append(_entry(label, shade))
    xy = view(x)
    scatter(ax, xy, colors, size=point_size(len(x)) / 2, alpha=0.5)
    ax.set(xlabel=view.labels[0], ylabel=view.labels[1])
    return ax, xy, colors, extra


def _names(cells: AnnData) -> list[str]:
    table = cells.uns["forecast"]["groups"]
    names = [str(name) for name in pd.unique(cells.obs[SOURCE])] if SOURCE in cells.obs else []
    return names if len(names) == len(table) else group_names(table.iloc[:, :1])


def _group_colors(table: pd.DataFrame, color: Any, names: list[str]) -> Colors:
    if not isinstance(color, str):
        return encode(per_group(color, names), title=getattr(color, "name", None) or "")
    if color not in table:
        raise KeyError(unknown("Column", color, list(table.columns), "Give a column of `.uns['forecast']['groups']`."))
    return encode(table[color], title=color)


def _true_embeddings(cells: AnnData, truth: AnnData | None, key: str) -> tuple[np.ndarray | None, np.ndarray]:
    """Embeddings of all populations, and which of them each forecast group is at the target time (-1 for none)."""
    table = cells.uns["forecast"]["groups"]
    if truth is None:
        return None, np.full(len(table), -1)
    stored = stored_embedding(truth, key)
    units, time = _unit_columns(stored)
    there = _is_target_time(stored["groups"], time, cells)
    places = np.flatnonzero(there)
    known = pd.Index(group_names(stored["groups"].iloc[places][units]))
    found = known.get_indexer(pd.Index(group_names(table[units])))
    return np.asarray(stored["embedding"], dtype=float), np.where(found >= 0, places[found] if len(places) else -1, -1)


def _unit_columns(stored: Any) -> tuple[list[str], str | None]:
    """Columns that name a group whatever the time, and the column of times."""
    time = stored.get("settings", {}).get("time_key")
    return [column for column in groupby_columns(stored) if column != time], time


def _is_target_time(obs: pd.DataFrame, time: str | None, cells: AnnData) -> np.ndarray:
    """Rows at the target time of the forecast, all of them where no times are known."""
    # whoever has a forecast has loaded the models
    from scgde.models._timed import time_name

    if time is None or time not in obs or TARGET not in cells.obs:
        return np.ones(len(obs), dtype=bool)
    wanted = time_name(cells.obs[TARGET].iloc[0])
    return (obs[time].astype(object).map(time_name) == wanted).to_numpy()


def _at_target(cells: AnnData, truth: AnnData, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Cells of ``truth`` at the target time, and those among them of groups that were forecast."""
    stored = truth.uns.get(key)
    if stored is None:
        return np.ones(truth.n_obs, dtype=bool), np.zeros(truth.n_obs, dtype=bool)
    units, time = _unit_columns(stored)
    there = _is_target_time(truth.obs, time, cells)
    table = cells.uns["forecast"]["groups"]
    same = np.isin(group_names(truth.obs[units]), group_names(table[units]))
    return there, there & same
