"""What a model says of how sure its embeddings are."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgde.data import GroupedObs
from scgde.models._blocks import GroupedRows
from scgde.models._influence import Dispersion, dispersion
from scgde.models._transport import TransportModel
from scgde.uncertainty import MIN_CELLS


class UncertaintyModel(TransportModel):
    """A model whose embeddings have standard errors."""

    def group_covariance(
        self, adata: AnnData | None = None, *, groups: Any = None, batch_size: int | None = None
    ) -> np.ndarray:
        """Covariance of the embedding of each group, were its cells drawn again.

        Parameters
        ----------
        adata
            Other data; by default the training data.
        groups
            A key or a list of keys of groups; by default all.
        batch_size
            Cells in memory at a time.

        Returns
        -------
        (n_groups, n_latent, n_latent), in the order of :meth:`get_group_embedding` or of ``groups``; NaN for groups of
        one cell.

        Notes
        -----
        By the influence function of the embedding, the derivative with respect to the weights of cells; cells are taken
        as drawn independently. Source: Fishman, Gowri et al., "Generative distribution embeddings" (2025), theorem 2.
        """
        self._check_trained()
        adata, obs = self._read(adata)
        return self._dispersion(adata, obs, groups, batch_size).covariance

    def effective_cells(self, adata: AnnData | None = None) -> pd.Series:
        """Effective number of cells of each group, ``1 / sum(weight^2)``: without weights, their number.

        Parameters
        ----------
        adata
            Other data; by default the training data.
        """
        _, obs = self._read(adata)
        rows = GroupedRows.from_codes(obs.index.codes, len(obs.index), obs.weight)
        return pd.Series(rows.n_effective, index=obs.index.index, name="n_effective")

    def _dispersion(
        self,
        adata: AnnData,
        obs: GroupedObs,
        groups: Any,
        batch_size: int | None,
        *,
        diagonal: bool = False,
        n_leading: int | None = None,
    ) -> Dispersion:
        """Covariances, with a warning that names small groups."""
        codes, names = obs.index.codes, obs.index.names
        positions = np.arange(len(names)) if groups is None else obs.index.positions(groups)
        unique, place = np.unique(positions, return_inverse=True)
        own = np.full(len(names) + 1, -1)
        own[unique] = np.arange(len(unique))
        found = dispersion(
            self.module,
            self.representation.read(adata),
            own[codes],
            len(unique),
            weight=obs.weight,
            batch_size=batch_size,
            diagonal=diagonal,
            n_leading=n_leading,
        )
        small = unique[found.n_effective < MIN_CELLS]
        if len(small):
            listed = ", ".join(str(names[i]) for i in small[:5])
            message = (
                f"{len(small)} of {len(unique)} groups have fewer than {MIN_CELLS} effective cells ({listed}"
                f"{', …' * (len(small) > 5)}): their standard errors are rough, and their intervals cover too little."
            )
            warnings.warn(message, UserWarning, stacklevel=3)
        return Dispersion(found.covariance[place], found.n_effective[place])

    def _estimates(
        self, groups: Any, adata: AnnData | None, batch_size: int | None, n_leading: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Leading entries of the embeddings of groups, their covariances, and effective numbers of cells."""
        self._check_trained()
        adata, obs = self._read(adata)
        unique, place = np.unique(obs.index.positions(groups), return_inverse=True)
        z = self._encode(adata, obs, unique, batch_size).z.cpu().numpy()[place, :n_leading].astype(np.float64)
        found = self._dispersion(adata, obs, groups, batch_size, n_leading=n_leading)
        return z, found.covariance, found.n_effective
