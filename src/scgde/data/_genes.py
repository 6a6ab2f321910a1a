"""From a representation back to genes, where mean and loadings say how."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scgde.data._representation import Representation

#: Where scanpy keeps the loadings of principal components.
LOADINGS_KEY = "PCs"

#: Loadings must reproduce a representation from X to this share of its standard deviation; this many cells are checked.
TOLERANCE, CHECKED_CELLS = 1e-3, 2000


@dataclass(frozen=True)
class GeneSpace:
    """The linear map from a representation to genes: ``mean + (x - center) loadings``.

    Parameters
    ----------
    var_names
        Names of the genes.
    center
        (n_features,) representation of the mean cell.
    mean
        (n_genes,) expression of the mean cell.
    loadings
        (n_features, n_genes), orthonormal rows.
    """

    var_names: pd.Index
    center: np.ndarray
    mean: np.ndarray
    loadings: np.ndarray

    def restore(self, x: np.ndarray) -> np.ndarray:
        """Genes of cells ``x`` (n_cells, n_features)."""
        return (self.mean + (x - self.center) @ self.loadings).astype(np.float32)


def gene_space(representation: Representation, adata: AnnData | None) -> GeneSpace | None:
    """The map to genes; None where the representation consists of genes.

    Raises
    ------
    ValueError
        Where the loadings are not known, or do not reproduce the representation.
    """
    if representation.project:
        assert representation.mean is not None
        assert representation.loadings is not None
        center = np.zeros(len(representation.loadings), dtype=np.float32)
        return GeneSpace(
            pd.Index(list(representation.var_names or ())), center, representation.mean, representation.loadings
        )
    if representation.source != "obsm":
        return None
    name = f"adata.obsm[{representation.key!r}]"
    if adata is None or LOADINGS_KEY not in adata.varm:
        msg = (
            f"space='genes' needs the loadings of {name} in adata.varm[{LOADINGS_KEY!r}], where scanpy's pca() writes "
            "them, and there are none. Use space='rep', or let the model compute its own PCA (from an AnnData without "
            f"obsm[{representation.key!r}])."
        )
        raise ValueError(msg)
    loadings = np.asarray(adata.varm[LOADINGS_KEY], dtype=np.float64).T
    values = np.asarray(representation.raw(adata), dtype=np.float64)
    fits = len(loadings) >= values.shape[1]
    if fits:
        rows = np.random.default_rng(0).permutation(adata.n_obs)[:CHECKED_CELLS]
        loadings = loadings[: values.shape[1]]
        used = np.flatnonzero(np.abs(loadings).sum(0))
        genes = adata.X[np.sort(rows)][:, used]
        genes = np.asarray(genes.toarray() if sparse.issparse(genes) else genes, dtype=np.float64)
        center, mean = values[np.sort(rows)].mean(0), genes.mean(0)
        error = (genes - mean) @ loadings[:, used].T + center - values[np.sort(rows)]
        fits = bool(np.abs(error).max() <= TOLERANCE * values.std(0).max())
    if not fits:
        msg = (
            f"space='genes': adata.varm[{LOADINGS_KEY!r}] does not reproduce {name} from adata.X to {TOLERANCE}. Use "
            "space='rep', or put the matrix that the PCA was computed from in X."
        )
        raise ValueError(msg)
    full = np.asarray(adata.X.mean(0), dtype=np.float64).ravel()
    full[used] = mean
    return GeneSpace(adata.var_names, center, full, loadings)
