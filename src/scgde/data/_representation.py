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

#: Cells that are projected on principal components at a time.
PROJECTED_CELLS = 4096


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

    def raw(self, adata: AnnData) -> Any:
        """The source as stored, in the order of ``var_names`` where they are known."""
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
        values = adata.layers[self.key] if self.source == "layer" else adata.X
        values = values[:] if adata.isbacked and self.source == "X" else values
        if self.var_names is not None and list(adata.var_names) != list(self.var_names):
            values = values[:, check_var_names(adata.var_names, self.var_names, "the model")]
        return values

    def check(self, adata: AnnData) -> None:
        """Raise unless this representation can be read from ``adata``; warn where it looks like raw counts."""
        values = self.raw(adata)
        if values.ndim != 2:
            msg = f"{self.name} has {values.ndim} dimension(s), expected (n_cells, n_features)."
            raise ValueError(msg)
        check_finite(values, adata.obs_names, self.name)
        warn_raw_counts(values, self.name)

    def fit(self, adata: AnnData, rows: np.ndarray, seed: int) -> Representation:
        """Complete what depends on data, from the cells ``rows`` only: no cell that is held out is seen."""
        values = self.raw(adata)
        names = None if self.source == "obsm" else tuple(map(str, adata.var_names))
        if not self.project:
            return replace(self, var_names=names, n_features=values.shape[1])
        values = values[rows].astype(np.float32)
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

    def read(self, adata: AnnData) -> np.ndarray:
        """Features of all cells, float32 (n_cells, n_features)."""
        values = self.raw(adata)
        if self.project:
            return self._projected(values)
        values = values.toarray() if sparse.issparse(values) else np.asarray(values)
        return np.ascontiguousarray(values, dtype=np.float32)

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


def _check_layer(adata: AnnData, layer: str) -> None:
    names = [name for name in adata.layers if name is not None]  # from anndata 0.13 on, None stands for X
    if layer not in names:
        raise KeyError(unknown_key(layer, names, "adata.layers (layer=)").args[0])
