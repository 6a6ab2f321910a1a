"""Two coordinates to look at: principal components, UMAP, or two features as they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from scipy.sparse import issparse
from sklearn.decomposition import PCA

from ._style import unknown


@dataclass(frozen=True)
class Linear:
    """Linear view ``(x - mean) @ axes`` of (n, n_features) points, with a name for both coordinates."""

    mean: np.ndarray
    axes: np.ndarray
    labels: tuple[str, str]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Coordinates (n, 2) of points (n, n_features)."""
        return (x - self.mean) @ self.axes


def check_components(components: tuple[int, int], n_features: int) -> None:
    """Raise unless ``components`` are two numbers of existing coordinates."""
    if len(components) != 2 or min(components) < 0 or max(components) >= max(n_features, 2):
        msg = (
            f"`components` is {components!r}, but must be two numbers from 0 to {max(n_features, 2) - 1} "
            f"for {n_features} features. Choose two of them, for instance (0, 1)."
        )
        raise ValueError(msg)


def pick(n_features: int, components: tuple[int, int], names: Sequence[object]) -> Linear:
    """View of two features as they are (the second is 0 where there is only one)."""
    check_components(components, n_features)
    axes = np.zeros((n_features, 2))
    for column, component in enumerate(components):
        if component < n_features:
            axes[component, column] = 1
    labels = [str(names[c]) if c < n_features else "" for c in components]
    return Linear(np.zeros(n_features), axes, (labels[0], labels[1]))


def fit_pca(x: np.ndarray, components: tuple[int, int]) -> Linear:
    """View of two principal components of (n, n_features) points; directions that the points do not span are 0."""
    check_components(components, x.shape[1])
    axes = np.zeros((x.shape[1], 2))
    labels = [f"PC{c + 1}" for c in components]
    n_components = min(max(components) + 1, *x.shape)
    if len(x) > 1 and np.ptp(x, axis=0).any():
        pca = PCA(n_components, random_state=0).fit(x)
        for column, component in enumerate(components):
            if component < n_components:
                axes[:, column] = pca.components_[component]
                labels[column] += f" ({pca.explained_variance_ratio_[component]:.0%})"
    return Linear(x.mean(axis=0), axes, (labels[0], labels[1]))


def _pca(x: np.ndarray, components: tuple[int, int], names: Sequence[object], seed: int) -> tuple[np.ndarray, Linear]:
    view = fit_pca(x, components)
    return view(x), view


def _none(x: np.ndarray, components: tuple[int, int], names: Sequence[object], seed: int) -> tuple[np.ndarray, Linear]:
    view = pick(x.shape[1], components, names)
    return view(x), view


def _umap(x: np.ndarray, components: tuple[int, int], names: Sequence[object], seed: int) -> tuple[np.ndarray, Any]:
    if len(x) < 5:
        msg = f'UMAP needs at least 5 groups, but there are {len(x)}. Use method="pca".'
        raise ValueError(msg)
    from umap import UMAP

    n_components = max(components) + 1
    fitted = UMAP(
        n_neighbors=min(15, len(x) - 1),
        n_components=n_components,
        init="spectral" if len(x) > n_components + 2 else "random",
        random_state=seed,
        n_jobs=1,
    )
    xy = np.asarray(fitted.fit_transform(x))[:, list(components)]
    return xy, (f"UMAP{components[0] + 1}", f"UMAP{components[1] + 1}")


PROJECTIONS: dict[str, Callable[[np.ndarray, tuple[int, int], Sequence[object], int], tuple[np.ndarray, Any]]] = {
    "pca": _pca,
    "umap": _umap,
    "none": _none,
}
"""Method -> function of (points, components, feature names, seed), giving coordinates and the linear view or labels."""


def project(
    x: np.ndarray, method: str, *, components: tuple[int, int], names: Sequence[object], seed: int
) -> tuple[np.ndarray, tuple[str, str], np.ndarray | None]:
    """Coordinates (n, 2) of points, names for both, and the axes (n_features, 2) where the projection is linear."""
    if method not in PROJECTIONS:
        raise ValueError(unknown("Projection `method`", method, list(PROJECTIONS), ""))
    check_components(components, x.shape[1])
    xy, view = PROJECTIONS[method](x, components, names, seed)
    return (xy, view.labels, view.axes) if isinstance(view, Linear) else (xy, view, None)


def cell_matrix(data: AnnData | np.ndarray, rep: str | None, *, what: str) -> tuple[Any, list[str]]:
    """Matrix (n_cells, n_features) of cells as it is stored, and the names of its features.

    An AnnData without ``rep`` in ``.obsm`` is read from ``.X`` where ``rep`` is None or "X".
    """
    if isinstance(data, AnnData):
        if rep not in (None, "X") and rep not in data.obsm:
            raise KeyError(unknown(f"`rep` of the {what}", rep, ["X", *data.obsm], "Use 'X' or a key of `.obsm`."))
        matrix: Any = data.X if rep in (None, "X") else data.obsm[rep]
        names = [str(name) for name in data.var_names] if rep in (None, "X") else []
    else:
        matrix, names = np.asarray(data), []
    shape = getattr(matrix, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] < 1 or shape[1] < 2:
        msg = f"The {what} must be (cells, features), at least one cell and two features, but the shape is {shape}."
        raise ValueError(msg)
    return matrix, names or [f"feature {i + 1}" for i in range(shape[1])]


def dense_rows(matrix: Any, rows: np.ndarray) -> np.ndarray:
    """Rows of a dense, sparse or tabular matrix, (n_rows, n_features)."""
    x = getattr(matrix, "to_numpy", lambda: matrix)()[rows]
    return np.asarray(x.toarray() if issparse(x) else x, dtype=float)


def at_most(n: int, most: int, seed: int) -> np.ndarray:
    """Numbers below ``n``, in order: all of them, or ``most`` at random from ``seed``."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def only_finite(finite: np.ndarray, what: str) -> np.ndarray:
    """Positions of the cells that can be drawn; a warning says how many cannot."""
    if not finite.any():
        msg = f"All {len(finite)} cells of the {what} hold NaN or infinite values: nothing can be drawn."
        raise ValueError(msg)
    if not finite.all():
        text = f"{(~finite).sum()} of {len(finite)} cells of the {what} hold NaN or infinite values and are not drawn."
        warnings.warn(text, UserWarning, stacklevel=4)
    return np.flatnonzero(finite)


def read_cells(
    data: AnnData | np.ndarray, rep: str | None, *, what: str, max_cells: int, seed: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Cells (n, n_features) to draw, their row numbers in ``data``, and feature names; see :func:`cell_matrix`.

    At most ``max_cells`` rows are drawn, at random from ``seed``; rows with NaN or infinite values are left out with a
    warning.
    """
    matrix, names = cell_matrix(data, rep, what=what)
    rows = at_most(matrix.shape[0], max_cells, seed)
    x = dense_rows(matrix, rows)
    kept = only_finite(np.isfinite(x).all(axis=1), what)
    return x[kept], rows[kept], names


def look_at(x: np.ndarray, components: tuple[int, int], names: Sequence[object]) -> Linear:
    """View of cells: their principal components, or the two features there are."""
    return fit_pca(x, components) if x.shape[1] > 2 else pick(x.shape[1], components, names)
