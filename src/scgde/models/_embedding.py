"""Embeddings of groups, and what is made of them: tables, distances, an AnnData of groups."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scgde._arguments import check_count, check_flags, check_text
from scgde._constants import KEY
from scgde.metrics import pairwise, w2_mixture
from scgde.models._blocks import GroupedRows
from scgde.models._distances import LATENT, MIXTURE, cell_distances, check_metric, latent_distances, mixtures_of
from scgde.models._labels import LabelModel
from scgde.models._novelty import p_values
from scgde.models._results import constant_columns, embedding_frame, per_cell, write_embedding


class EmbeddingModel(LabelModel):
    """A model that embeds groups of cells."""

    @overload
    def get_group_embedding(
        self,
        adata: AnnData | None = None,
        *,
        return_se: Literal[False] = False,
        batch_size: int | None = None,
        key_added: str | None = KEY,
        write_obsm: bool = True,
    ) -> pd.DataFrame: ...

    @overload
    def get_group_embedding(
        self,
        adata: AnnData | None = None,
        *,
        return_se: Literal[True],
        batch_size: int | None = None,
        key_added: str | None = KEY,
        write_obsm: bool = True,
    ) -> tuple[pd.DataFrame, pd.DataFrame]: ...

    def get_group_embedding(
        self,
        adata: AnnData | None = None,
        *,
        return_se: bool = False,
        batch_size: int | None = None,
        key_added: str | None = KEY,
        write_obsm: bool = True,
    ) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame]:
        """Embedding of each group, from all of its cells.

        Parameters
        ----------
        adata
            Other data, with the same grouping columns and representation; groups need not have been seen. By default
            the training data.
        return_se
            Whether to compute standard errors, by the influence function of the embedding; see
            :meth:`group_covariance`. They are written to ``.uns[key_added]["se"]`` too, and effective numbers of cells
            to its ``groups``, where ``few_cells`` marks groups below 30: normal theory is not claimed for them.
        batch_size
            Cells in memory at a time.
        key_added
            Where to write: ``.uns[key_added]`` (embedding, groups, settings) and ``.obsm["X_" + key_added]``; None
            writes nothing. With ``adata``, the ``groups`` have a column ``p_value``: small where a group lies far from
            those of training (conformal: at least as large as a uniform number where a group is like them).
        write_obsm
            Whether to write one row per cell to ``.obsm``; overlapping groups have none.

        Returns
        -------
        One row per group, (n_groups, n_latent), in the units of the representation. With ``return_se``, a pair of such
        tables: embedding and standard errors.

        Raises
        ------
        RuntimeError
            Before training.
        KeyError, ValueError
            For data that do not fit the model.
        """
        self._check_trained()
        check_count("batch_size", batch_size, optional=True)
        check_text("key_added", key_added, "a name for the results", optional=True)
        check_flags(return_se=return_se, write_obsm=write_obsm)
        new = adata is not None
        adata, obs = self._read(adata)
        z = self._encode(adata, obs, None, batch_size).z.cpu().numpy()
        found = self._dispersion(adata, obs, None, batch_size, diagonal=True) if return_se else None
        se = None if found is None else np.sqrt(found.covariance).astype(np.float32)
        n_effective = None if found is None else found.n_effective
        if key_added is not None:
            settings, p_value = self._settings(), p_values(self.fitted_, z) if new else None
            columns = {"n_effective": n_effective, "p_value": p_value}
            write_obsm &= self.setup.membership_key is None
            write_embedding(adata, key_added, z, obs, settings, se=se, write_obsm=write_obsm, **columns)
        frame = embedding_frame(z, obs.index.index)
        return frame if se is None else (frame, embedding_frame(se, obs.index.index))

    def get_latent_representation(self, adata: AnnData | None = None, *, batch_size: int | None = None) -> np.ndarray:
        """Embedding of each cell's group, (n_cells, n_latent); NaN for cells without a group.

        Parameters
        ----------
        adata
            Other data; by default the training data.
        batch_size
            Cells in memory at a time.

        Raises
        ------
        ValueError
            For overlapping groups: a cell may have several.
        """
        self._check_trained()
        self._check_disjoint("get_latent_representation")
        adata, obs = self._read(adata)
        return per_cell(self._encode(adata, obs, None, batch_size).z.cpu().numpy(), obs.index.codes)

    def group_distances(
        self,
        adata: AnnData | None = None,
        *,
        metric: str = LATENT,
        max_cells: int = 500,
        seed: int = 0,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> pd.DataFrame:
        """Distances between groups, (n_groups, n_groups): of their embeddings, or of their cells.

        Parameters
        ----------
        adata
            Other data; by default the training data.
        metric
            "latent" for the Euclidean distance of embeddings, which approximates the (not squared) Wasserstein
            distance between groups of much the same types of cells; "mixture" for the squared Wasserstein distance
            between the mixtures that embeddings stand for (:func:`scgde.metrics.w2_mixture`), which also measures how
            far types lie apart that only one of the groups has; else a name in :data:`scgde.metrics.METRICS`, computed
            on the cells as the model reads them, pair by pair: "w2" and "sliced" (both squared), "energy", ….
        max_cells
            Cells, drawn once, that stand for a group of more, or for one whose cells have unequal weights.
        seed
            Seed of that draw.
        batch_size
            Cells in memory at a time, for embeddings.
        progress
            Whether to show a progress bar over pairs.

        Raises
        ------
        ValueError
            For an unknown metric, and ``max_cells`` below 1.
        """
        check_metric(metric)
        check_count("max_cells", max_cells)
        if metric in (LATENT, MIXTURE):
            frame = self.get_group_embedding(adata, batch_size=batch_size, key_added=None)
            z = torch.tensor(frame.to_numpy())
            of_z = (
                latent_distances(z)
                if metric == LATENT
                else pairwise(mixtures_of(self.module, z), metric=w2_mixture, progress=progress)
            )
            return pd.DataFrame(of_z, index=frame.index, columns=frame.index)
        self._check_trained()
        adata, obs = self._read(adata)
        rows = GroupedRows.from_codes(obs.index.codes, len(obs.index), obs.weight, cells=obs.index.rows)
        distances = cell_distances(
            self.representation.read(adata), rows, metric, max_cells=max_cells, seed=seed, progress=progress
        )
        return pd.DataFrame(distances, index=obs.index.index, columns=obs.index.index)

    def to_group_adata(self, adata: AnnData | None = None, *, batch_size: int | None = None) -> AnnData:
        """AnnData with one row per group, for scanpy and other tools.

        Parameters
        ----------
        adata
            Other data; by default the training data.
        batch_size
            Cells in memory at a time.

        Returns
        -------
        X and ``.obsm["X_gde"]``: embedding. ``.obs``: number of cells, and the columns that are constant within groups.
        """
        self._check_trained()
        adata, obs = self._read(adata)
        z = self._encode(adata, obs, None, batch_size).z.cpu().numpy()
        table = constant_columns(adata.obs, obs.index).assign(n_cells=obs.index.counts)
        names = [" | ".join(map(str, n)) if isinstance(n, tuple) else str(n) for n in obs.index.names]
        frame = embedding_frame(z, pd.Index(names))
        groups = AnnData(z, obs=table.set_axis(frame.index), var=pd.DataFrame(index=frame.columns))
        groups.obsm[f"X_{KEY}"] = z
        return groups

    def _settings(self) -> dict[str, Any]:
        columns, time = self.setup.columns, self.setup.time_key
        return {
            **({} if time is None else {"time_key": time}),
            "groupby": columns[0] if len(columns) == 1 else np.array(columns, dtype=object),
            "representation": self.representation.name,
            "n_latent": self.options["n_latent"],
            "n_coordinates": self.module.n_coordinates,
            "n_components": self.module.spec["n_components"],
            "encoder": self.options["encoder"],
            "generator": self.options["generator"],
            "seed": self.options["seed"],
        }
