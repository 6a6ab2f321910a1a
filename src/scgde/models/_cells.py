"""From embeddings back to cells: sampling and interpolation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor

from scgde._arguments import check_count, check_number, check_seed, check_text
from scgde._constants import PATH_TIME, SOURCE, TARGET
from scgde._validation import unknown_key
from scgde.data import GroupedObs
from scgde.data._genes import gene_space
from scgde.models._fitting import split_groups
from scgde.models._group_model import GroupModel
from scgde.models._inference import generate
from scgde.models._results import cells_anndata, repeated_obs
from scgde.models._trust import default_trust, learning_alone
from scgde.nn.mixtures import Mixtures

#: Units of returned cells: those of the representation, or of genes.
SPACES = ("rep", "genes")


class Populations(NamedTuple):
    """Groups to generate: embeddings, measured statistics (or None), names, and batches seen in each group.

    ``positions`` are those of the groups in their AnnData, where they come from one.
    """

    z: Tensor
    mixtures: Mixtures | None
    table: pd.DataFrame
    names: list[str]
    batch_shares: np.ndarray | None
    positions: np.ndarray

    def select(self, index: np.ndarray) -> Populations:
        """The groups at ``index``."""
        of = torch.from_numpy(index).to(self.z.device)
        return Populations(
            self.z[of],
            None if self.mixtures is None else self.mixtures[of],
            self.table.iloc[index],
            [self.names[i] for i in index],
            None if self.batch_shares is None else self.batch_shares[index],
            self.positions[index],
        )


def as_embedding(groups: Any) -> pd.DataFrame | None:
    """Rows of an embedding, one per group; None where groups are named by keys."""
    if isinstance(groups, pd.Series | np.ndarray) and pd.api.types.is_float_dtype(groups):
        return groups.to_frame().T if isinstance(groups, pd.Series) else pd.DataFrame(np.atleast_2d(groups))
    return groups if isinstance(groups, pd.DataFrame) else None


def check_trust(trust: float | None) -> None:
    check_number("trust", trust, optional=True)
    if trust is not None and not 0 <= trust <= 1:
        msg = f"trust={trust}: expected a weight from 0 (the statistics alone) to 1 (all that was learned)."
        raise ValueError(msg)


class CellModel(GroupModel):
    """A model whose embeddings give cells back."""

    def sample(
        self,
        groups: Any = None,
        n_cells: int = 1000,
        *,
        adata: AnnData | None = None,
        exact_moments: bool = True,
        space: str = "rep",
        batch: Any = None,
        trust: float | None = None,
        n_steps: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> AnnData:
        """Generate cells of groups.

        Parameters
        ----------
        groups
            A key or a list of keys of groups, an embedding (rows of :meth:`get_group_embedding`, or a float array), or
            None for all groups.
        n_cells
            Cells per group.
        adata
            Data with the groups; by default the training data.
        exact_moments
            Whether to use the statistics measured on the groups' own cells. If not, or where an embedding is given,
            they are read back from the embedding.
        space
            "rep" for the units of the representation, "genes" for those of X, with the representation in ``.obsm``.
        batch
            Batch to generate, where the model was set up with ``batch_key``; by default those of the group, in their
            proportions.
        trust
            Weight of what was learned beyond the statistics, from 0 to 1. By default what helped most at the end of
            training: on held-out cells for training groups and embeddings, on held-out groups for others. The fewer
            groups were held out, the more counts n / (n + 100), with n training groups: what a few groups teach suits
            others less. It is 1 where the model knows batches, and with likelihoods of counts.
        n_steps
            Steps of the sampler, where the generator takes any; by default the number that it was built with. The
            network is evaluated twice per step of the flow, and once per step of the diffusion.
        seed
            Seed of the draws.
        batch_size
            Cells in memory at a time.
        progress
            Whether to show a progress bar.

        Returns
        -------
        AnnData with the groups in ``.obs``.

        Raises
        ------
        KeyError
            For unknown groups or batches, with near matches.
        ValueError
            For gene space where the loadings are not known, for a weight outside [0, 1], and for ``n_steps`` of a
            generator that takes none.
        """
        self._check_generates()
        self._check_batch(batch)
        check_trust(trust)
        self._check_steps(n_steps)
        check_count("n_cells", n_cells)
        check_seed(seed)
        check_count("batch_size", batch_size, optional=True)
        data = self.adata if adata is None else adata
        self._check_space(space, data)
        population = self._populations(groups, adata, exact_moments, batch_size)
        codes = self._draw_batches(population, n_cells, batch, seed)
        x = generate(
            self.module,
            population.z,
            n_cells,
            mixtures=population.mixtures,
            batch=codes,
            trust=self._trust_in(population, groups, adata, trust),
            seed=seed,
            n_steps=n_steps,
            batch_size=batch_size,
            progress=progress,
        )
        obs = repeated_obs(population.table, population.names, n_cells)
        return self._cells_anndata(x.reshape(-1, x.shape[-1]), self._with_batch(obs, codes), space, data)

    def interpolate(
        self,
        source: Any,
        target: Any,
        n_steps: int = 11,
        *,
        n_cells: int = 500,
        adata: AnnData | None = None,
        exact_moments: bool = True,
        batch: Any = None,
        trust: float | None = None,
        seed: int = 0,
        batch_size: int | None = None,
    ) -> AnnData:
        """Generate populations along the straight line between two embeddings.

        Cell j of every step comes from the same noise, so its path can be followed.

        Parameters
        ----------
        source, target
            Keys of groups, or embeddings.
        n_steps
            Populations on the way, both ends included.
        n_cells
            Cells per population.
        adata
            Data with the groups; by default the training data.
        exact_moments
            Whether the statistics at both ends are those measured on the groups' cells, and move on a straight line
            between them; else they are read back from the embedding all along.
        batch
            Batch to generate, where the model was set up with ``batch_key``; by default the most frequent of training.
        trust
            As in :meth:`sample`; it moves from that of the source to that of the target.
        seed
            Seed of the noise.
        batch_size
            Cells in memory at a time.

        Returns
        -------
        AnnData with ``.obs["t"]`` from 0 to 1 and ``.obs["cell"]``, the number of the noise.
        """
        self._check_generates()
        self._check_batch(batch)
        check_trust(trust)
        check_count("n_steps", n_steps, 2)
        check_count("n_cells", n_cells)
        check_seed(seed)
        check_count("batch_size", batch_size, optional=True)
        ends = [
            self._one(key, adata, exact_moments, batch_size, name) for key, name in ((source, SOURCE), (target, TARGET))
        ]
        trusts = [self._trust_in(end, key, adata, trust) for end, key in zip(ends, (source, target), strict=True)]
        t = torch.linspace(0, 1, n_steps, device=ends[0].z.device)[:, None]
        z = torch.lerp(ends[0].z, ends[1].z, t)
        mixtures = None
        statistics = self.module.statistics
        vectors = [statistics.vectorize(end.mixtures) for end in ends if end.mixtures is not None]
        if len(vectors) == 2:
            mixtures = statistics.devectorize(torch.lerp(vectors[0], vectors[1], t))
        codes = None
        if self._batches:
            codes = torch.full((n_steps, n_cells), self._batch_code(batch, self.fitted_["batch_shares"]))
        x = generate(
            self.module,
            z,
            n_cells,
            mixtures=mixtures,
            batch=codes,
            trust=torch.lerp(trusts[0], trusts[1], t[:, 0]),
            seed=seed,
            same_noise=True,
            batch_size=batch_size,
        )
        obs = pd.DataFrame(
            {PATH_TIME: np.repeat(t[:, 0].cpu().numpy(), n_cells), "cell": np.tile(np.arange(n_cells), n_steps)},
            index=[f"{step}-{cell}" for step in range(n_steps) for cell in range(n_cells)],
        )
        return self._cells_anndata(x.reshape(-1, x.shape[-1]), self._with_batch(obs, codes), "rep", None)

    def _trust_in(self, population: Populations, groups: Any, adata: AnnData | None, trust: float | None) -> Tensor:
        """(groups,) weight of what was learned."""
        weight = torch.full_like(population.z[:, 0], self._trusts["new"] if trust is None else trust)
        if trust is None and adata is None:
            known = np.ones(len(weight), dtype=bool)
            if as_embedding(groups) is None:
                _, obs = self._read(None)
                split = split_groups(obs, self.fitted_.get("validation_size", 0.0), self.options["seed"])
                known = np.isin(population.positions, split["train"])
            weight[torch.from_numpy(known).to(weight.device)] = self._trusts["known"]
        return weight

    @property
    def _trusts(self) -> dict[str, float]:
        """Weights of what was learned in groups of training, and in others.

        Models saved before they were measured have those of their number of groups.
        """
        n_groups = np.inf if learning_alone(self) else self.fitted_.get("n_train", np.inf)
        return self.fitted_.get("trust") or default_trust(n_groups)

    def _check_generates(self) -> None:
        self._check_trained()
        if self.options["method"] != "composition":
            msg = f"method={self.options['method']!r} moves cells and generates none. Train with method='composition'."
            raise TypeError(msg)

    def _check_steps(self, n_steps: int | None) -> None:
        if n_steps is None:
            return
        check_count("n_steps", n_steps)
        if self.module.generator.n_steps is None:
            msg = f"n_steps={n_steps}, but the generator {self.options['generator']!r} takes no steps. Leave it out."
            raise ValueError(msg)

    def _check_space(self, space: str, data: AnnData | None) -> None:
        check_text("space", space, "'rep' or 'genes'")
        if space not in SPACES:
            msg = f"space={space!r} is unknown: choose from {list(SPACES)}."
            raise ValueError(msg)
        if space == "genes":
            gene_space(self.representation, data)

    def _cells_anndata(self, x: np.ndarray, obs: pd.DataFrame, space: str, data: AnnData | None) -> AnnData:
        genes = gene_space(self.representation, data) if space == "genes" else None
        return cells_anndata(x, obs, self.representation, genes)

    # --- groups, embeddings, batches -------------------------------------------------------------------------------

    def _populations(
        self, groups: Any, adata: AnnData | None, exact: bool, size: int | None, name: str = "groups"
    ) -> Populations:
        embedding = as_embedding(groups)
        if embedding is not None:
            return self._given(embedding)
        data, obs = self._whole(groups, name) if isinstance(groups, AnnData) else self._read(adata)
        index = obs.index
        all_groups = groups is None or isinstance(groups, AnnData)
        positions = np.arange(len(index)) if all_groups else index.positions(groups)
        if not len(positions):
            msg = f"{name}= names no group. Pass at least one key{', or None for all groups' * (name == 'groups')}."
            raise ValueError(msg)
        return self._encoded(data, obs, positions, exact, size)

    def _encoded(
        self, data: AnnData, obs: GroupedObs, positions: np.ndarray, exact: bool, size: int | None
    ) -> Populations:
        """The groups at ``positions``."""
        index = obs.index
        unique, place = np.unique(positions, return_inverse=True)
        encoding = self._encode(data, obs, unique, size)
        names = [
            " | ".join(map(str, n)) if isinstance(n, tuple) else str(n) for n in (index.names[i] for i in positions)
        ]
        mixtures = encoding.mixtures[place] if exact else None
        table, shares = index.table.iloc[positions], self._shares(obs, positions)
        return Populations(encoding.z[place], mixtures, table, names, shares, positions)

    def _given(self, frame: pd.DataFrame) -> Populations:
        numbers = all(pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes)
        if frame.shape[1] != self.options["n_latent"] or not numbers or not np.isfinite(frame.to_numpy()).all():
            msg = (
                f"Received an embedding of {frame.shape[1]} columns, expected {self.options['n_latent']} finite ones: "
                "rows of get_group_embedding()."
            )
            raise ValueError(msg)
        table = (
            frame.index.to_frame(index=False, name=frame.index.name or "embedding")
            if (frame.index.nlevels == 1)
            else frame.index.to_frame(index=False)
        )
        names = [" | ".join(map(str, n)) if isinstance(n, tuple) else str(n) for n in frame.index]
        z = torch.tensor(frame.to_numpy(dtype=np.float32), device=self.module.device)
        shares = self.fitted_.get("batch_shares")
        shares = None if shares is None else np.tile(shares, (len(frame), 1))
        return Populations(z, None, table, names, shares, np.arange(len(frame)))

    def _one(self, key: Any, adata: AnnData | None, exact: bool, size: int | None, name: str) -> Populations:
        population = self._populations(key, adata, exact, size, name)
        if len(population.z) != 1:
            msg = f"{name}= names {len(population.z)} groups, expected one."
            raise ValueError(msg)
        return population

    def _shares(self, obs: GroupedObs, positions: np.ndarray) -> np.ndarray | None:
        """Share of each batch in each group, (groups, batches)."""
        codes = self._batch_codes(obs)
        if codes is None:
            return None
        counts = np.zeros((len(obs.index), len(self._batches)))
        used = obs.index.codes >= 0
        np.add.at(counts, (obs.index.codes[used], codes[used]), 1)
        return counts[positions] / counts[positions].sum(1, keepdims=True)

    def _check_batch(self, batch: Any) -> None:
        if batch is not None and not self._batches:
            msg = f"batch={batch!r}, but the model knows no batches: set it up with batch_key=."
            raise ValueError(msg)

    def _batch_code(self, batch: Any, shares: np.ndarray | None) -> int:
        """Code of a named batch, else of the most frequent one."""
        if batch is None:
            assert shares is not None
            return int(np.argmax(shares))
        if batch not in self._batches:
            raise KeyError(unknown_key(batch, self._batches, "the batches of training (batch=)").args[0])
        return self._batches.index(batch)

    def _draw_batches(self, population: Populations, n_cells: int, batch: Any, seed: int) -> Tensor | None:
        if not self._batches:
            return None
        assert population.batch_shares is not None
        if batch is not None:
            return torch.full((len(population.z), n_cells), self._batch_code(batch, population.batch_shares))
        rng = np.random.default_rng(seed)
        draws = [rng.choice(len(self._batches), n_cells, p=shares) for shares in population.batch_shares]
        return torch.from_numpy(np.stack(draws))

    def _with_batch(self, obs: pd.DataFrame, codes: Tensor | None) -> pd.DataFrame:
        key = self.setup.batch_key
        if codes is None or key is None or key in obs:
            return obs
        return obs.assign(**{key: np.array(self._batches, dtype=object)[codes.flatten().numpy()]})
