"""What a model says of how sure its embeddings are."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import t

from scgde.data import GroupedObs
from scgde.models._blocks import GroupedRows
from scgde.models._influence import ALL, MAX_REGION, Dispersion, dispersion
from scgde.models._relabelling import MAX_CELLS, relabelled_differences
from scgde.models._results import embedding_frame
from scgde.models._transport import TransportModel
from scgde.uncertainty import MIN_CELLS
from scgde.uncertainty._regions import region_shapes


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

    def group_intervals(
        self, adata: AnnData | None = None, *, level: float = 0.95, batch_size: int | None = None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Intervals that hold each entry of the embedding of a group's population.

        Parameters
        ----------
        adata
            Other data; by default the training data.
        level
            Probability that an interval holds the population's value.
        batch_size
            Cells in memory at a time.

        Returns
        -------
        Lower and upper ends, (n_groups, n_latent) each: embedding -+ t * standard error, with degrees of freedom from
        the kurtosis of the influence function.

        Raises
        ------
        ValueError
            For a level outside (0, 1).
        """
        _check_level(level)
        self._check_trained()
        adata, obs = self._read(adata)
        z = self._encode(adata, obs, None, batch_size).z.cpu().numpy()
        found = self._dispersion(adata, obs, None, batch_size, degrees=True)
        se = np.sqrt(np.einsum("gii->gi", found.covariance))
        width = (t.ppf(0.5 + level / 2, found.df) * se).astype(np.float32)
        lower, upper = (embedding_frame(end, obs.index.index) for end in (z - width, z + width))
        return lower, upper

    def group_regions(
        self,
        adata: AnnData | None = None,
        *,
        n_components: int = 5,
        level: float = 0.95,
        batch_size: int | None = None,
    ) -> tuple[pd.DataFrame, np.ndarray]:
        """Regions that hold the leading entries of the embedding of a group's population, all at once.

        Parameters
        ----------
        adata
            Other data; by default the training data.
        n_components
            Number of leading entries, at most 16.
        level
            Probability that a region holds the population's value.
        batch_size
            Cells in memory at a time.

        Returns
        -------
        Centres z, (n_groups, n_components), and matrices M, (n_groups, n_components, n_components): a region is where
        ``(p - z)' M^-1 (p - z) <= 1``. M is NaN for groups of too few cells.

        Raises
        ------
        ValueError
            For a level outside (0, 1), and more entries than there are or than 16.

        Notes
        -----
        Hotelling's region with F quantiles, widened by the skewness of the influence function; see "How sure is an
        embedding?" in the documentation.
        """
        _check_level(level)
        most = min(MAX_REGION, self.options["n_latent"])
        if not 1 <= n_components <= most:
            msg = f"n_components={n_components}: expected 1 to {most}."
            raise ValueError(msg)
        self._check_trained()
        adata, obs = self._read(adata)
        z = self._encode(adata, obs, None, batch_size).z.cpu().numpy()[:, :n_components]
        found = self._dispersion(adata, obs, None, batch_size, entries=slice(n_components), degrees=True)
        return embedding_frame(z, obs.index.index), region_shapes(found, level)

    def effective_cells(self, adata: AnnData | None = None) -> pd.Series:
        """Effective number of cells of each group, ``1 / sum(weight^2)``: without weights, their number.

        Parameters
        ----------
        adata
            Other data; by default the training data.
        """
        _, obs = self._read(adata)
        rows = GroupedRows.from_codes(obs.index.codes, len(obs.index), obs.weight, cells=obs.index.rows)
        return pd.Series(rows.n_effective, index=obs.index.index, name="n_effective")

    def _dispersion(
        self,
        adata: AnnData,
        obs: GroupedObs,
        groups: Any,
        batch_size: int | None,
        *,
        diagonal: bool = False,
        entries: slice = ALL,
        degrees: bool = False,
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
            cells=obs.index.rows,
            batch_size=batch_size,
            diagonal=diagonal,
            entries=entries,
            degrees=degrees,
        )
        small = unique[found.n_effective < MIN_CELLS]
        if len(small):
            listed = ", ".join(str(names[i]) for i in small[:5])
            message = (
                f"{len(small)} of {len(unique)} groups have fewer than {MIN_CELLS} effective cells ({listed}"
                f"{', …' * (len(small) > 5)}): their standard errors are rough, and their intervals cover too little."
            )
            warnings.warn(message, UserWarning, stacklevel=3)
        return found.select(place)

    def _check_independent(self, first: list[Any], second: list[Any], adata: AnnData | None) -> None:
        """Raise where two groups of a pair share cells."""
        if self.setup.membership_key is None:
            return
        index = self._read(adata)[1].index
        for a, b in zip(index.positions(first), index.positions(second), strict=True):
            n_shared = len(np.intersect1d(index.cells_of(a), index.cells_of(b)))
            if n_shared:
                msg = (
                    f"Groups {index.names[a]!r} and {index.names[b]!r} share {n_shared:,} cells, and the test takes "
                    "groups as drawn independently. Compare groups that share none."
                )
                raise ValueError(msg)

    def _estimates(
        self, groups: Any, adata: AnnData | None, batch_size: int | None, n_leading: int
    ) -> tuple[np.ndarray, Dispersion]:
        """Leading entries of the embeddings of groups, and how they vary."""
        self._check_trained()
        adata, obs = self._read(adata)
        unique, place = np.unique(obs.index.positions(groups), return_inverse=True)
        z = self._encode(adata, obs, unique, batch_size).z.cpu().numpy()[place, :n_leading].astype(np.float64)
        return z, self._dispersion(adata, obs, groups, batch_size, entries=slice(n_leading), degrees=True)

    def _dealt(
        self, first: Any, second: Any, adata: AnnData | None, batch_size: int | None, n_leading: int
    ) -> Iterator[np.ndarray | None]:
        """For each pair of groups, differences between them with cells dealt out anew; None where that is not done.

        That is so with entries of the code, which would take the encoder once per deal, and with many cells.
        """
        adata, obs = self._read(adata)
        index, x = obs.index, self.representation.read(adata)
        for pair in zip(index.positions(first), index.positions(second), strict=True):
            entries = [index.entries_of(position) for position in pair]
            if n_leading > self.module.n_coordinates or sum(map(len, entries)) > MAX_CELLS:
                yield None
                continue
            where, codes = np.concatenate(entries), np.repeat([0, 1], [len(each) for each in entries])
            rows = GroupedRows.from_codes(
                codes,
                2,
                None if obs.weight is None else obs.weight[where],
                cells=where if index.rows is None else index.rows[where],
            )
            yield relabelled_differences(self.module, x, rows, n_leading, seed=list(pair), batch_size=batch_size)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        msg = f"level={level}: expected a probability between 0 and 1, such as 0.95."
        raise ValueError(msg)
