"""Map of the groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from scgde.uncertainty import FAR, MIN_CELLS

from ._color import explain, scatter, uniform
from ._ellipses import error_ellipses
from ._groups import group_colors, group_names, groupby_columns, stored_embedding
from ._labels import annotate as annotate_points
from ._projection import project
from ._style import finish, new_axes, point_size, style

_MANY = 25


@dataclass(frozen=True)
class _Groups:
    """What is drawn: embedding (n_groups, n_latent), its errors, names of groups and dimensions, small and far ones."""

    z: np.ndarray
    se: np.ndarray | None
    names: list[str]
    dimensions: Sequence[object]
    few_cells: np.ndarray
    far: np.ndarray


def embedding(
    data: AnnData | pd.DataFrame,
    *,
    key: str = "gde",
    color: str | Sequence[Any] | pd.Series | None = None,
    method: Literal["pca", "umap", "none"] = "pca",
    components: tuple[int, int] = (0, 1),
    annotate: bool | None = None,
    error: Literal["ellipse"] | None = "ellipse",
    se: pd.DataFrame | np.ndarray | None = None,
    legend: bool = True,
    size: float | None = None,
    seed: int = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | None:
    """Plot a map of the groups: one point per group, in two dimensions of their embedding.

    Parameters
    ----------
    data
        AnnData with an embedding in ``.uns[key]``, or a DataFrame of embeddings (n_groups, n_latent).
    key
        Key of ``.uns`` of the embedding. Groups that are marked there as ``few_cells`` are drawn as open circles:
        normal theory, and so the ellipse, is not claimed for them. Groups of new data whose ``p_value`` there is below
        .01 are crossed: they lie far from those of training.
    color
        A column of ``.uns[key]["groups"]``, a column of ``.obs`` that is constant within each group, or one value per
        group: a Series is matched by group name, anything else by position. Groups without a value are light grey.
    method
        ``"pca"`` of the embedding, ``"umap"``, or ``"none"``: two dimensions of the embedding as they are.
    components
        Which two components to draw, counted from 0.
    annotate
        Write the names of the groups. By default up to 25 are named, where there is a free place; ``True`` names all.
    error
        ``"ellipse"`` draws the region that covers the population value with probability 95%, where standard errors are
        known and the projection is linear (not UMAP). Errors of different dimensions are taken as independent where no
        covariance is given.
    se
        Standard errors (n_groups, n_latent), instead of those stored in ``.uns[key]["se"]``; or covariances
        (n_groups, n_latent, n_latent), as ``model.group_covariance()`` returns.
    legend
        Explain the colours, to the right of the axes.
    size
        Area of a marker in points squared; by default from the number of groups.
    seed
        Seed of UMAP.
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
        If there is no embedding under ``key``, or ``color`` is not known.
    ValueError
        If ``color`` varies within a group or has the wrong length, or a value of the embedding is not finite.
    """
    groups = _read(data, key, se)
    colors = uniform(len(groups.names)) if color is None else group_colors(data, key, color, groups.names)
    xy, labels, axes = project(groups.z, method, components=components, names=groups.dimensions, seed=seed)
    n = len(xy)
    size = point_size(n) if size is None else size
    with style():
        ax = new_axes(ax)
        if error is not None and groups.se is not None and axes is not None:
            error_ellipses(ax, xy, _projected(groups.se, axes), colors)
        scatter(ax, xy, colors, size=size)
        marked = [_open(ax, xy[groups.few_cells], size)] if groups.few_cells.any() else []
        marked += [_crossed(ax, xy[groups.far], size)] if groups.far.any() else []
        ax.set(xlabel=labels[0], ylabel=labels[1])
        ax.margins(0.1 if n <= _MANY else 0.04)
        if axes is None:
            ax.set(xticks=[], yticks=[])
        if legend:
            explain(ax, colors, extra=marked)
        if annotate or (annotate is None and n <= _MANY):
            annotate_points(ax, xy, groups.names, size=size, force=bool(annotate))
        return finish(ax, show=show, save=save)


def _read(data: AnnData | pd.DataFrame, key: str, se: pd.DataFrame | np.ndarray | None) -> _Groups:
    """Embedding, standard errors and names from either kind of input, checked."""
    if isinstance(data, AnnData):
        stored = stored_embedding(data, key)
        z = np.asarray(stored["embedding"], dtype=float)
        names = group_names(stored["groups"][groupby_columns(stored)])
        dimensions: Sequence[object] = [f"z{i + 1}" for i in range(z.shape[1])]
        se = stored.get("se") if se is None else se
        few = np.asarray(stored["groups"].get("few_cells", np.zeros(len(z))), dtype=bool)
        far = np.asarray(stored["groups"].get("p_value", np.ones(len(z)))) < FAR
    elif isinstance(data, pd.DataFrame):
        z, names, dimensions = data.to_numpy(dtype=float), group_names(data.index), list(data.columns)
        few = far = np.zeros(len(z), dtype=bool)
    else:
        msg = f"Expected an AnnData with an embedding or a DataFrame of embeddings, but got {type(data).__name__}."
        raise TypeError(msg)
    errors = None if se is None else np.asarray(se, dtype=float)
    if errors is not None and errors.shape not in (z.shape, (*z.shape, z.shape[1])):
        msg = f"Standard errors of shape {errors.shape} do not fit an embedding of shape {z.shape}: give one per value."
        raise ValueError(msg)
    if 0 in z.shape or not np.isfinite(z).all():
        bad = [name for name, row in zip(names, z, strict=True) if not np.isfinite(row).all()]
        msg = f"Expected finite embeddings of at least one group, but got shape {z.shape}, not finite for {bad[:5]}."
        raise ValueError(msg)
    return _Groups(z, errors, names, dimensions, few, far)


def _open(ax: Axes, xy: np.ndarray, size: float) -> Line2D:
    """Make the markers at ``xy`` open; return the entry of the legend that says why."""
    ax.scatter(xy[:, 0], xy[:, 1], s=0.4 * size, c="white", linewidths=0, rasterized=len(xy) > 1000, zorder=4)
    return Line2D([], [], ls="", marker="o", ms=4, mfc="white", mec="0.25", label=f"< {MIN_CELLS} cells")


def _crossed(ax: Axes, xy: np.ndarray, size: float) -> Line2D:
    """Cross the markers at ``xy``; return the entry of the legend that says why."""
    ax.scatter(xy[:, 0], xy[:, 1], s=size, c="0.1", marker="x", linewidths=0.8, rasterized=len(xy) > 1000, zorder=5)
    return Line2D([], [], ls="", marker="x", ms=4, mec="0.1", mew=0.8, label=f"far (p < {FAR})")


def _projected(se: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Covariance (n_groups, 2, 2) in the view, from standard errors or covariances; 0 where it is not known."""
    if se.ndim == 2:
        return np.einsum("gi,ij,ik->gjk", np.nan_to_num(se) ** 2, axes, axes)
    return np.einsum("gil,ij,lk->gjk", np.nan_to_num(se), axes, axes)
