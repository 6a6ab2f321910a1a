"""A model of groups of cells: how it reads data and embeds groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgde._compat import SETUP_ARGS_KEY, BaseModelClass
from scgde._validation import check_anndata, unknown_key
from scgde.data import GroupedObs, Representation, Setup, chosen_representation, fingerprint
from scgde.data._pairs import Pairing
from scgde.models._inference import GroupEncoding, encode_groups
from scgde.models._module import GDEModule, probe_generator


class GroupModel(BaseModelClass):
    """Reads an AnnData as groups of cells, the model's own or any other, and embeds the groups."""

    module: GDEModule
    options: dict[str, Any]
    representation_: dict[str, Any]
    fitted_: dict[str, Any]

    @property
    def setup(self) -> Setup:
        """The arguments of :meth:`setup_anndata`."""
        return Setup(**self.registry_[SETUP_ARGS_KEY])

    @property
    def representation(self) -> Representation:
        """How the model reads cells."""
        return Representation(**self.representation_) if self.representation_ else self._chosen

    @property
    def _chosen(self) -> Representation:
        """What was chosen at setup, not yet fitted: later additions to the AnnData do not change it."""
        return chosen_representation(self.registry_)

    @property
    def _batches(self) -> list[Any]:
        return self.registry_["field_registries"]["sample"]["state_registry"].get("batches", [])

    def _read(self, adata: AnnData | None, *, training: bool = False) -> tuple[AnnData, GroupedObs]:
        """Check an AnnData, by default the model's own, and read its groups."""
        if adata is None:
            if self.adata is None:
                msg = "The model was loaded without data. Pass adata=, or load it with GDE.load(path, adata=adata)."
                raise ValueError(msg)
            self._check_unchanged()
            adata = self.adata
        else:
            check_anndata(adata)
            if self.is_trained_:
                self._check_representation(adata)
        return adata, self._known_batches(self.setup.read(adata, training=training))

    def _whole(self, adata: AnnData, name: str) -> tuple[AnnData, GroupedObs]:
        """All cells of an AnnData as one population, which needs no grouping column."""
        check_anndata(adata)
        self._check_representation(adata)
        return adata, self._known_batches(self.setup.read_whole(adata, name))

    def _check_representation(self, adata: AnnData) -> None:
        self.representation.check(adata, counts=getattr(probe_generator(self.options), "counts", False))

    def _known_batches(self, obs: GroupedObs) -> GroupedObs:
        if obs.batch is not None:
            unseen = [b for b in obs.batch[obs.index.codes >= 0].unique() if b not in self._batches]
            if unseen:
                what = f"the batches of training (batch_key={self.setup.batch_key!r})"
                raise ValueError(unknown_key(unseen[0], self._batches, what).args[0])
        return obs

    def _check_unchanged(self) -> None:
        state = self.registry_["field_registries"]["X"]["state_registry"]
        try:
            now = fingerprint(self.adata, self.setup, self._chosen)
        except KeyError:
            now = None
        if now != state["fingerprint"]:
            msg = (
                f"The AnnData's groups ({self.setup.columns}) or its representation ({state['representation']}) "
                "changed since setup. Run setup_anndata again and train, or pass the changed data as adata=."
            )
            raise ValueError(msg)

    def _pairing(self, obs: GroupedObs, split: dict[str, np.ndarray]) -> Pairing | None:
        """Pairs of groups to train on, where the model is trained on pairs."""
        return None

    def _check_disjoint(self, name: str) -> None:
        """Raise where groups may overlap: what is asked for is one thing per cell."""
        if self.setup.membership_key is not None:
            msg = (
                f"{name} gives one result per cell, and with membership_key={self.setup.membership_key!r} a cell may "
                "be in several groups. Use the embedding of the groups, model.get_group_embedding()."
            )
            raise ValueError(msg)

    def _check_trained(self) -> None:
        if not self.is_trained_:
            msg = "The model is not trained. Call model.train() first."
            raise RuntimeError(msg)

    def _batch_codes(self, obs: GroupedObs) -> np.ndarray | None:
        if obs.batch is None:
            return None
        return pd.Index(self._batches).get_indexer(pd.Index(obs.batch.astype(object)))

    def _encode(self, adata: AnnData, obs: GroupedObs, positions: np.ndarray | None, size: int | None) -> GroupEncoding:
        """Embed the groups at ``positions``, by default all, from all of their cells."""
        codes, n_groups = obs.index.codes, len(obs.index)
        if positions is not None:
            place = np.full(n_groups + 1, -1, dtype=np.int32)
            place[positions] = np.arange(len(positions))
            codes, n_groups = place[codes], len(positions)
        x = self.representation.read(adata)
        cells = obs.index.rows
        return encode_groups(self.module, x, codes, n_groups, weight=obs.weight, cells=cells, batch_size=size)
