"""GDE behind the interface of patpy, to be used and compared wherever patpy's own methods are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgde import GDE
from scgde._validation import check_anndata

__all__ = ["GDERepresentation"]


class GDERepresentation:
    """Embedding of the samples of patpy (the groups of this package) by :class:`scgde.GDE`.

    Has the methods and names of patpy's representation methods, and does not need patpy.

    Parameters
    ----------
    sample_key
        Column of ``.obs`` with the groups.
    cell_group_key
        Column with cell types, which patpy passes to all methods. A GDE needs none, and does not read it.
    layer
        What to read of a cell, as in patpy: a key of ``.obsm``, a key of ``.layers``, or "X". By default as
        :meth:`scgde.GDE.setup_anndata` chooses.
    seed
        Seed of everything random.
    model, train
        Options of :class:`scgde.GDE` and of :meth:`scgde.GDE.train`.

    Attributes
    ----------
    samples
        Names of the groups, in the order of rows and columns of the distances.
    sample_representation
        Their embedding, a DataFrame of shape (n_groups, n_latent).
    model
        The trained :class:`scgde.GDE`.

    Notes
    -----
    patpy: Shitov et al., https://github.com/lueckenlab/patpy.

    Examples
    --------
    >>> method = GDERepresentation(sample_key="donor")
    >>> method.prepare_anndata(adata)
    >>> distances = method.calculate_distance_matrix()
    """

    DISTANCES_UNS_KEY = "X_gde_distances"

    def __init__(
        self,
        sample_key: str,
        cell_group_key: str | None = None,
        layer: str | None = None,
        seed: int = 0,
        *,
        model: dict[str, Any] | None = None,
        train: dict[str, Any] | None = None,
    ) -> None:
        self.sample_key, self.cell_group_key, self.layer, self.seed = sample_key, cell_group_key, layer, seed
        self.adata: AnnData | None = None
        self._options = {"seed": seed, **(model or {})}, train or {}
        self._distances: np.ndarray | None = None

    def prepare_anndata(self, adata: AnnData) -> None:
        """Train a model on all groups, and embed them.

        Parameters
        ----------
        adata
            Cells. Only the keys of scvi-tools are written to it, and ``.uns`` by :meth:`calculate_distance_matrix`.

        Raises
        ------
        KeyError, TypeError, ValueError
            As :meth:`scgde.GDE.setup_anndata`; also for a ``layer`` that is in neither ``.obsm`` nor ``.layers``.
        """
        check_anndata(adata)
        GDE.setup_anndata(adata, self.sample_key, **self._source(adata))
        model_options, train_options = self._options
        model = GDE(adata, **model_options)
        model.train(**train_options)
        self.adata, self.model, self._distances = adata, model, None
        self.sample_representation: pd.DataFrame = model.get_group_embedding(key_added=None)
        self.samples = self.sample_representation.index.tolist()

    def calculate_distance_matrix(self, force: bool = False) -> np.ndarray:
        """Euclidean distances between embeddings, (n_groups, n_groups); also written to ``.uns[DISTANCES_UNS_KEY]``.

        Parameters
        ----------
        force
            Whether to compute them again.

        Raises
        ------
        RuntimeError
            Before :meth:`prepare_anndata`.
        """
        adata = self._prepared()
        if force or self._distances is None:
            self._distances = self.model.group_distances().to_numpy()
        adata.uns[self.DISTANCES_UNS_KEY] = self._distances
        return self._distances

    def to_adata(self, metadata: pd.DataFrame | None = None) -> AnnData:
        """AnnData with one row per group, the distances in ``.obsp``.

        Parameters
        ----------
        metadata
            More columns for ``.obs``, indexed by the names of the groups.

        Raises
        ------
        RuntimeError
            Before :meth:`prepare_anndata`.
        """
        self._prepared()
        groups = self.model.to_group_adata()
        if metadata is not None:
            more = metadata.set_axis(metadata.index.astype(str)).reindex(groups.obs_names)
            groups.obs = groups.obs.drop(columns=more.columns.intersection(groups.obs.columns)).join(more)
        groups.obsp[self.DISTANCES_UNS_KEY] = self.calculate_distance_matrix()
        return groups

    def _source(self, adata: AnnData) -> dict[str, Any]:
        if self.layer is None:
            return {}
        if self.layer == "X" or self.layer in adata.obsm:
            return {"use_rep": self.layer}
        if self.layer in adata.layers:
            return {"layer": self.layer}
        msg = (
            f"layer={self.layer!r} is neither in adata.obsm ({list(adata.obsm)}) nor in adata.layers "
            f"({list(adata.layers)}), nor 'X'."
        )
        raise KeyError(msg)

    def _prepared(self) -> AnnData:
        if self.adata is None:
            msg = "There is no embedding yet. Call prepare_anndata(adata) first."
            raise RuntimeError(msg)
        return self.adata
