"""Moving the cells of any population to any other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scgde._arguments import check_count, check_flags, check_seed, check_text
from scgde._constants import PATH_TIME, SOURCE, TARGET
from scgde.data import GroupedObs
from scgde.models._cells import CellModel, Populations, as_embedding, check_trust
from scgde.models._inference import Ends, generate, move
from scgde.nn.generators import GENERATORS


class Moving(NamedTuple):
    """Cells that are to be moved, in the order of their populations.

    Parameters
    ----------
    x
        (n_cells, features) in the user's units.
    obs
        One row per cell.
    pair
        (n_cells,) position of each cell's population.
    batch
        (n_cells,) batch codes, or None.
    rows
        (n_cells,) rows in the AnnData that the cells come from, or None where they are generated.
    """

    x: np.ndarray
    obs: pd.DataFrame
    pair: np.ndarray
    batch: np.ndarray | None
    rows: np.ndarray | None


class TransportModel(CellModel):
    """A model that moves cells between populations."""

    def transport(
        self,
        source: Any,
        target: Any,
        adata: AnnData | None = None,
        *,
        exact_moments: bool = True,
        space: str = "rep",
        return_trajectory: bool = False,
        n_steps: int = 11,
        n_cells: int = 1000,
        batch: Any = None,
        trust: float | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        key_added: str | None = None,
        progress: bool = False,
    ) -> AnnData:
        """Move the cells of populations to other populations: any to any, no pairs are needed.

        The flow is inverted under the source's embedding and run under the target's. Several sources go to as many
        targets, one to one, or all to a single one; one source goes to each of several targets.

        Parameters
        ----------
        source
            Whose cells move: the key of a group, a list of keys, an AnnData (all of its cells are one population), or
            an embedding, of which cells are generated first.
        target
            Where they go: as ``source``.
        adata
            Data with the groups that are named by keys; by default the training data.
        exact_moments
            Whether to use the statistics measured on the target's cells; else, and where the target is an embedding,
            they are read back from the embedding. The source's are always measured, as its cells are at hand.
        space
            "rep" for the units of the representation, "genes" for those of X, with the representation in ``.obsm``.
        return_trajectory
            Whether to return each cell's path: its noise is held fixed, and the population moves on the straight line
            between the embeddings.
        n_steps
            Positions on a trajectory, both ends included.
        n_cells
            Cells to generate of a source that is an embedding.
        batch
            Batch of the moved cells, where the model was set up with ``batch_key``; by default the target's most
            frequent. The batch column of the result is that of the sources' cells, as all of their ``.obs``.
        trust
            Weight of what was learned beyond the statistics, from 0 to 1, at both ends. By default that of new groups
            in :meth:`sample`: a cell's noise carries what the model does not know, and a correction that few groups
            taught leads it astray.
        seed
            Seed of the cells of a source that is an embedding, and of the noise of methods that take any.
        batch_size
            Cells in memory at a time.
        key_added
            Where to write the moved cells in the AnnData that holds the sources: ``.obsm[key_added]``, NaN for cells
            that did not move. None writes nothing.
        progress
            Whether to show a progress bar.

        Returns
        -------
        AnnData with ``.obs`` of the sources' cells and columns ``source`` and ``target``; a trajectory has a row per
        cell and position, with the position in column ``t`` and the cell's name in ``cell``. All cells of an
        overlapping group move; a column named ``membership_key`` holds the mass of each.

        Raises
        ------
        KeyError
            For unknown groups or batches, with near matches.
        TypeError
            For a generator that cannot be inverted.
        ValueError
            For numbers of sources and targets that do not fit, sources that are their own targets, gene space where
            the loadings are not known, and a weight outside [0, 1] or of a ``method`` that has none.
        """
        self._check_trained()
        self._check_moves()
        self._check_batch(batch)
        self._check_trust(trust)
        check_count("n_steps", n_steps, 2)
        check_count("n_cells", n_cells)
        check_seed(seed)
        check_count("batch_size", batch_size, optional=True)
        check_text("key_added", key_added, "a name for the moved cells", optional=True)
        check_flags(exact_moments=exact_moments, return_trajectory=return_trajectory)
        data = source if isinstance(source, AnnData) else self.adata if adata is None else adata
        self._check_space(space, data)
        start, end = (
            self._populations(each, adata, exact, batch_size, name)
            for each, exact, name in ((source, True, SOURCE), (target, exact_moments, TARGET))
        )
        first, second = _matched(len(start.z), len(end.z))
        if batch is None and all(
            as_embedding(each) is None and not isinstance(each, AnnData) for each in (source, target)
        ):
            _check_distinct(start, end, first, second)
        start, end = start.select(first), end.select(second)
        cells = self._moving(source, start, adata, n_cells, trust, seed, batch_size)
        if key_added is not None and (cells.rows is None or len(np.unique(cells.rows)) < len(cells.rows)):
            msg = f"key_added={key_added!r} needs each cell to move once: pass as many sources as targets, by keys."
            raise ValueError(msg)
        t = np.linspace(0, 1, n_steps) if return_trajectory else np.ones(1)
        moved = self._move(cells, start, end, t, batch, trust, seed, batch_size, progress)
        result = self._moved_anndata(cells, moved, start, end, t if return_trajectory else None, space, data)
        if key_added is not None:
            values = np.full((data.n_obs, moved.shape[-1]), np.nan, dtype=np.float32)
            values[cells.rows] = moved[-1]
            data.obsm[key_added] = values
        return result

    def _check_moves(self) -> None:
        if not hasattr(self.module.generator, "path") and not self.module.generator.invertible:
            able = [name for name, kind in GENERATORS.items() if kind.invertible]
            msg = f"The generator {self.options['generator']!r} cannot be inverted. Train with one of {able}."
            raise TypeError(msg)

    def _check_trust(self, trust: float | None) -> None:
        check_trust(trust)
        if trust is not None and self.options["method"] != "composition":
            msg = f"trust={trust} is for method='composition'; method={self.options['method']!r} learns one velocity."
            raise ValueError(msg)

    def _moving(
        self,
        source: Any,
        start: Populations,
        adata: AnnData | None,
        n_cells: int,
        trust: float | None,
        seed: int,
        size: int | None,
    ) -> Moving:
        """Cells of the sources, in the order of ``start``."""
        if as_embedding(source) is not None:
            self._check_generates()
            codes = self._draw_batches(start, n_cells, None, seed)
            weight = self._trust_in(start, source, adata, trust)
            x = generate(
                self.module, start.z, n_cells, mixtures=None, batch=codes, trust=weight, seed=seed, batch_size=size
            )
            names = [f"{name}-{i}" for name in start.names for i in range(n_cells)]
            pair = np.repeat(np.arange(len(start.z)), n_cells)
            obs = pd.DataFrame(index=names if len(set(names)) == len(names) else list(map(str, range(len(names)))))
            return Moving(x.reshape(-1, x.shape[-1]), obs, pair, None if codes is None else codes.numpy().ravel(), None)
        data, groups = self._whole(source, SOURCE) if isinstance(source, AnnData) else self._read(adata)
        return self._cells_of(data, groups, start.positions)

    def _cells_of(self, data: AnnData, groups: GroupedObs, positions: np.ndarray) -> Moving:
        """Cells of the groups at ``positions``, in that order."""
        parts = [groups.index.entries_of(i) for i in positions]
        pair, entries = np.repeat(np.arange(len(parts)), [len(part) for part in parts]), np.concatenate(parts)
        batches, rows = self._batch_codes(groups), entries
        if groups.index.rows is not None:
            rows = groups.index.rows[entries]
        obs = data.obs.iloc[rows]
        if groups.index.rows is not None:
            mass = 1.0 if groups.weight is None else groups.weight[entries]
            obs = obs.assign(**{groups.index.table.columns[0]: mass})
        x = self.representation.read(data)[rows]
        return Moving(x, obs, pair, None if batches is None else batches[entries], rows)

    def _move(
        self,
        cells: Moving,
        start: Populations,
        end: Populations,
        t: np.ndarray,
        batch: Any,
        trust: float | None,
        seed: int,
        batch_size: int | None,
        progress: bool,
    ) -> np.ndarray:
        source_batch = target_batch = None
        if cells.batch is not None:
            assert end.batch_shares is not None
            codes = np.array([self._batch_code(batch, shares) for shares in end.batch_shares])
            source_batch, target_batch = torch.from_numpy(cells.batch), torch.from_numpy(codes[cells.pair])
        trust = self._trusts["new"] if trust is None else trust
        return move(
            self.module,
            cells.x,
            cells.pair,
            Ends(start.z, start.mixtures, source_batch, trust),
            Ends(end.z, end.mixtures, target_batch, trust),
            t=t,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )

    def _moved_anndata(
        self,
        cells: Moving,
        moved: np.ndarray,
        start: Populations,
        end: Populations,
        t: np.ndarray | None,
        space: str,
        data: AnnData | None,
    ) -> AnnData:
        ends = {name: np.array(each.names, dtype=object)[cells.pair] for name, each in ((SOURCE, start), (TARGET, end))}
        obs = cells.obs.assign(**ends)
        if cells.rows is not None and len(np.unique(cells.rows)) < len(cells.rows):
            # A cell goes to several targets, or comes from several groups that share it.
            for name in (TARGET, SOURCE):
                if not obs.index.is_unique:
                    obs.index = [f"{cell}-{end}" for cell, end in zip(obs.index, ends[name], strict=True)]
        if t is not None:
            names = obs.index
            obs = pd.concat([obs.assign(**{PATH_TIME: value, "cell": names}) for value in t])
            obs.index = [f"{name}-{step}" for step in range(len(t)) for name in names]
        return self._cells_anndata(moved.reshape(-1, moved.shape[-1]), obs, space, data)


def _matched(n_sources: int, n_targets: int) -> list[np.ndarray]:
    """Positions of sources and targets that belong together."""
    if n_sources != n_targets and 1 not in (n_sources, n_targets):
        msg = (
            f"source= names {n_sources} populations and target= {n_targets}: expected as many of both (they are "
            "matched one to one), or one on one side."
        )
        raise ValueError(msg)
    n = max(n_sources, n_targets)
    return [np.arange(n) if m == n else np.zeros(n, dtype=int) for m in (n_sources, n_targets)]


def _check_distinct(start: Populations, end: Populations, first: np.ndarray, second: np.ndarray) -> None:
    same = [start.names[i] for i, j in zip(first, second, strict=True) if start.names[i] == end.names[j]]
    if same:
        msg = f"source= and target= are the same population ({same[0]!r}): its cells are there already."
        raise ValueError(msg)
