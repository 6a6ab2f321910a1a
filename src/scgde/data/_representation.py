"""Which numbers of a cell a model reads: chosen once, then read the same way from any AnnData."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from anndata import AnnData
from scipy import sparse
from sklearn.decomposition import PCA

from scgde._constants import MAX_X_FEATURES, N_COMPONENTS, PCA_KEY
from scgde._validation import check_finite, check_n_features, check_var_names, unknown_key, warn_raw_counts
from scgde.data._rows import CellRows, StoredRows, is_stored

#: Cells that are projected on principal components at a time, and cells that these are computed from at most.
PROJECTED_CELLS, MAX_PCA_CELLS = 4096, 50_000

#: Cells of a stored representation that are looked at before it is used.
FIRST_CELLS = 2000


@dataclass(frozen=True)
class Representation:
    """The per-cell features that a model reads.

    Parameters
    ----------
    source
        "X", "layer" or "obsm".
    key
        Name of the layer or of the obsm entry; empty for X.
    project
        Whether the model computes principal components of the source and reads these.
    var_names
        Variables of X or of the layer, known after :meth:`fit`.
    mean, loadings
        Of the model's own PCA: (n_vars,) and (n_features, n_vars).
    n_features
        Number of features, known after :meth:`fit`.
    """

    source: str
    key: str = ""
    project: bool = False
    var_names: tuple[str, ...] | None = None
    mean: np.ndarray | None = None
    loadings: np.ndarray | None = None
    n_features: int | None = None

    @classmethod
    def choose(cls, adata: AnnData, use_rep: str | None, layer: str | None) -> Representation:
        """What ``use_rep`` and ``layer`` name; without either X if small, else ``obsm["X_pca"]``, else a PCA of X."""
        if use_rep is not None and layer is not None:
            msg = f"use_rep={use_rep!r} and layer={layer!r} both name a representation. Pass one of them."
            raise ValueError(msg)
        if layer is not None:
            _check_layer(adata, layer)
            return cls("layer", layer, project=adata.n_vars > MAX_X_FEATURES)
        if use_rep is not None and use_rep != "X":
            if use_rep not in adata.obsm:
                raise KeyError(unknown_key(use_rep, ["X", *adata.obsm.keys()], "adata.obsm (use_rep=)").args[0])
            return cls("obsm", use_rep)
        if use_rep is None and adata.n_vars > MAX_X_FEATURES and PCA_KEY in adata.obsm:
            return cls("obsm", PCA_KEY)
        if adata.X is None or adata.n_vars == 0:
            msg = "adata.X is empty. Name a representation: use_rep='X_pca' (an obsm key) or layer=."
            raise ValueError(msg)
        return cls("X", project=use_rep is None and adata.n_vars > MAX_X_FEATURES)

    @property
    def name(self) -> str:
        """How the user would write it."""
        return (
            "adata.X" if self.source == "X" else f"adata.{'layers' if self.source == 'layer' else 'obsm'}[{self.key!r}]"
        )

    @property
    def feature_names(self) -> list[str]:
        """Names of the features, for AnnData of generated cells."""
        if self.source != "obsm" and not self.project:
            return list(self.var_names or ())
        stem = "PC" if self.project else self.key.removeprefix("X_")
        return [f"{stem}_{i + 1}" for i in range(self.n_features or 0)]

    @property
    def obsm_key(self) -> str | None:
        """Where generated cells keep the representation besides X, so that they line up with the user's."""
        return PCA_KEY if self.project else self.key if self.source == "obsm" else None

    def source_of(self, adata: AnnData) -> Any:
        """The source as it is: an array in memory, or what stands for one that is stored."""
        if self.source == "obsm":
            if self.key not in adata.obsm:
                msg = (
                    f"The model reads adata.obsm[{self.key!r}], which this AnnData lacks (it has "
                    f"{list(adata.obsm.keys())}). Compute it as for the training data, e.g. by projection on the same "
                    "components."
                )
                raise KeyError(msg)
            values = adata.obsm[self.key]
            values = values.to_numpy() if hasattr(values, "to_numpy") else values
            if self.n_features is not None and values.ndim == 2:
                check_n_features(values.shape[1], self.n_features, self.name)
            return values
        if self.source == "layer":
            _check_layer(adata, self.key)
        return adata.layers[self.key] if self.source == "layer" else adata.X

    def _columns(self, adata: AnnData) -> np.ndarray | slice:
        """Columns of the source, in the order of ``var_names`` where they are known."""
        if self.source == "obsm" or self.var_names is None or list(adata.var_names) == list(self.var_names):
            return slice(None)
        return check_var_names(adata.var_names, self.var_names, "the model")

    def raw(self, adata: AnnData) -> Any:
        """The source in memory, in the order of ``var_names`` where they are known."""
        values, columns = self.source_of(adata), self._columns(adata)
        if is_stored(values):
            values = values.compute() if hasattr(values, "compute") else values[:]
        return values if isinstance(columns, slice) else values[:, columns]

    def check(self, adata: AnnData, *, counts: bool = False) -> None:
        """Raise unless this representation can be read from ``adata``; warn of raw counts unless ``counts`` are wanted.

        Of a stored one the first cells are read; others are checked when they are used.
        """
        values = self.source_of(adata)
        if len(values.shape) != 2:
            msg = f"{self.name} has {len(values.shape)} dimension(s), expected (n_cells, n_features)."
            raise ValueError(msg)
        if is_stored(values):
            values = _in_memory(values[: min(FIRST_CELLS, values.shape[0])])
        else:
            self._columns(adata)
        check_finite(values, adata.obs_names[: values.shape[0]], self.name)
        if not counts:
            warn_raw_counts(values, self.name)

    def fit(self, adata: AnnData, rows: np.ndarray, seed: int) -> Representation:
        """Complete what depends on data, from the cells ``rows`` only: no cell that is held out is seen."""
        names = None if self.source == "obsm" else tuple(map(str, adata.var_names))
        if not self.project:
            return replace(self, var_names=names, n_features=self.source_of(adata).shape[1])
        if len(rows) > MAX_PCA_CELLS:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MAX_PCA_CELLS])
        values = _in_memory(self.source_of(adata)[rows]).astype(np.float32)
        n_components = min(N_COMPONENTS, *(n - 1 for n in values.shape))
        solver = "arpack" if sparse.issparse(values) else "auto"
        pca = PCA(n_components, svd_solver=solver, random_state=seed).fit(values)
        return replace(
            self,
            var_names=names,
            mean=pca.mean_.astype(np.float32),
            loadings=pca.components_.astype(np.float32),
            n_features=n_components,
        )

    def read(self, adata: AnnData) -> CellRows:
        """Features of all cells, float32 (n_cells, n_features); of a stored source, rows when they are asked for."""
        values, columns = self.source_of(adata), self._columns(adata)

        def features(values: Any) -> np.ndarray:
            values = values if isinstance(columns, slice) else values[:, columns]
            if self.project:
                return self._projected(values)
            values = values.toarray() if sparse.issparse(values) else np.asarray(values)
            return np.ascontiguousarray(values, dtype=np.float32)

        if not is_stored(values):
            return features(values)
        n_features = self.n_features or values.shape[1]
        return StoredRows(values, features, n_features, adata.obs_names, self.name)

    def _projected(self, values: Any) -> np.ndarray:
        """Principal components, in double precision: in single, a cell's last digits depend on the other cells read."""
        assert self.mean is not None
        assert self.loadings is not None
        values = values.tocsr() if sparse.issparse(values) else np.asarray(values)
        loadings = self.loadings.T.astype(np.float64)
        center = self.mean.astype(np.float64) @ loadings
        projected = np.empty((values.shape[0], loadings.shape[1]), dtype=np.float32)
        for start in range(0, len(projected), PROJECTED_CELLS):
            part = slice(start, start + PROJECTED_CELLS)
            projected[part] = values[part].astype(np.float64) @ loadings - center
        return projected


def _in_memory(values: Any) -> Any:
    return values.compute() if hasattr(values, "compute") else values


def _check_layer(adata: AnnData, layer: str) -> None:
    names = [name for name in adata.layers if name is not None]  # from anndata 0.13 on, None stands for X
    if layer not in names:
        raise KeyError(unknown_key(layer, names, "adata.layers (layer=)").args[0])
