"""Transport between populations and over time, as an scvi-tools model."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scgde._constants import TDE_KEY
from scgde._validation import unknown_key
from scgde.data import GroupedObs
from scgde.data._groups import GroupIndex
from scgde.data._pairs import PAIRINGS, Pairing
from scgde.models._forecast import ForecastModel
from scgde.models._gde import GDE
from scgde.nn.generators import GENERATORS
from scgde.nn.transport import TRANSPORTS


class TDE(ForecastModel):
    """Transport of cells between any two populations: donors, clones at several times, perturbations.

    The unit is the group, or with ``time_key`` the group at a time. All populations train the model, also those of
    groups that are seen at one time only; no pairs are needed.

    Parameters
    ----------
    adata
        AnnData after :meth:`setup_anndata`.
    registry
        Registry of a saved model, where there is no AnnData.
    method
        "composition": a conditional flow is inverted under the source's embedding and run under the target's.
        "flow": a velocity field conditioned on both embeddings, trained on ordered pairs of populations. "energy",
        "sliced", "sinkhorn" and "mmd": a map of a cell and noise in one evaluation of a network, trained on such pairs
        by that divergence between moved cells and those of the target; which cell goes where is not learned. With
        ``batch_key`` all but the composition are told the target's batch only.
    pairing
        Pairs that all methods but the composition are trained on: "any", "forward" (from earlier to later),
        "within_group" (forward, inside one donor or clone), or a list of pairs of keys.
    orphans
        Whether donors, clones, … that are seen at one time only take part in training. Without them the model is a
        baseline that shows what they are worth.
    encoder, generator, n_latent, n_components, encoder_kwargs, generator_kwargs, seed
        As in :class:`GDE`. With ``method="flow"``, ``generator_kwargs`` are those of the velocity field, ``coupling``
        ("ot", "sinkhorn", "independent") and ``condition_on`` ("both", "source") among them.

    Raises
    ------
    ValueError
        For unknown names or sizes.

    Notes
    -----
    "Distribution-conditioned transport" (2026) trains on pairs, as ``method="flow"`` does; the composition is ours.

    Examples
    --------
    >>> model = TDE.setup_anndata(adata, groupby="clone", time_key="day")
    >>> model.train()
    >>> moved = model.transport(source=("clone_7", "4"), target=("clone_7", "6"))
    """

    #: More say more of a population, but its cells pass less well through noise that they share with another.
    _max_components = 20

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        method: str = "composition",
        pairing: str | list[tuple[Any, Any]] = "any",
        orphans: bool = True,
        encoder: str = "resnet",
        generator: str = "flow",
        n_latent: int = 128,
        n_components: int | None = None,
        encoder_kwargs: dict[str, Any] | None = None,
        generator_kwargs: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super(GDE, self).__init__(adata, registry)
        methods = ["composition", *TRANSPORTS]
        if method not in methods:
            raise ValueError(unknown_key(method, methods, "the methods (method=)").args[0])
        if isinstance(pairing, str) and pairing not in PAIRINGS:
            raise ValueError(unknown_key(pairing, PAIRINGS, "the pairings (pairing=)").args[0])
        if method == "composition" and pairing != "any":
            able = " or ".join(map(repr, TRANSPORTS))
            msg = f"pairing={pairing!r} is for method={able}; the composition is trained on single populations."
            raise ValueError(msg)
        invertible = [name for name, kind in GENERATORS.items() if kind.invertible]
        if method == "composition" and generator in GENERATORS and generator not in invertible:
            msg = (
                f"generator={generator!r} cannot be inverted, and method='composition' inverts it: choose from "
                f"{invertible}, or a method that trains on pairs, from {list(TRANSPORTS)}."
            )
            raise ValueError(msg)
        self._make(encoder, generator, n_latent, n_components, encoder_kwargs, generator_kwargs, seed, method, pairing)
        self.options["orphans"] = orphans
        self.forecasters_: dict[str, Any] = {}
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        groupby: str | list[str] | None = None,
        *,
        membership_key: str | None = None,
        time_key: str | None = None,
        use_rep: str | None = None,
        layer: str | None = None,
        labels: list[str] | dict[str, Any] | None = None,
        batch_key: str | None = None,
        weight_key: str | None = None,
        split_key: str | None = None,
        min_cells: int = 1,
        drop_ungrouped: bool = False,
        **kwargs: Any,
    ) -> Self | None:
        """Name what the model reads, and get a model with default settings.

        Parameters
        ----------
        adata
            Cells. Nothing is written to it but scvi-tools' own keys.
        groupby
            Column(s) of ``.obs`` that name donors, clones, …: what is held out as a whole.
        time_key
            Column of ``.obs`` with the time: numbers, text that holds numbers, or an ordered categorical. A population
            is then a group at a time, and its key ends with the time.
        membership_key, use_rep, layer, labels, batch_key, weight_key, split_key, min_cells, drop_ungrouped
            As in :meth:`GDE.setup_anndata`; ``membership_key`` goes without ``time_key``. A split is one of whole
            groups, all of their times included.
        **kwargs
            ``source_registry``, which scvi-tools passes when it loads a model.

        Returns
        -------
        A model, ready to train; None when ``source_registry`` is given.

        Raises
        ------
        KeyError, TypeError, ValueError
            As in :meth:`GDE.setup_anndata`, and for times without an order.
        """
        return cls._set_up(adata, cls._get_setup_method_args(**locals()), kwargs)

    @classmethod
    def from_gde(cls, model: GDE, *, adata: AnnData | None = None) -> TDE:
        """A model that starts from the encoder and the generator of a trained GDE.

        Parameters
        ----------
        model
            A trained GDE.
        adata
            AnnData after :meth:`TDE.setup_anndata`, in the same representation; by default the GDE's own data and
            grouping. It transports at once, and :meth:`train` goes on from there.

        Raises
        ------
        ValueError
            Where the representations differ.
        """
        model._check_trained()
        if adata is None:
            adata = model.adata
            arguments = {name: value for name, value in vars(model.setup).items() if name != "time_key"}
            cls.setup_anndata(adata, **arguments)
        options = {name: value for name, value in model.options.items() if name not in ("method", "pairing")}
        started = cls(adata, **options)
        started.representation_ = dict(model.representation_)
        if started._chosen.name != model.representation.name:
            msg = (
                f"The GDE reads {model.representation.name}, adata was set up to read {started._chosen.name}. Set it "
                "up with the same use_rep= or layer=."
            )
            raise ValueError(msg)
        if started._batches != model._batches:
            msg = f"The GDE knows the batches {model._batches}, adata has {started._batches}: expected the same."
            raise ValueError(msg)
        started.representation.check(adata)
        started.module = copy.deepcopy(model.module)
        started.spec_ = started.module.spec
        started.fitted_ = dict(model.fitted_)
        started.history_ = model.history_
        started.steps_, started.is_trained_ = model.steps_, True
        return started

    def _read(self, adata: AnnData | None, *, training: bool = False) -> tuple[AnnData, GroupedObs]:
        adata, obs = super()._read(adata, training=training)
        if training and not self.options["orphans"]:
            obs = _without_orphans(obs)
        return adata, obs

    def _pairing(self, obs: GroupedObs, split: dict[str, np.ndarray]) -> Pairing | None:
        if self.options["method"] == "composition":
            return None
        pairing = self.options["pairing"]
        if isinstance(pairing, str):
            made = Pairing.by_name(pairing, obs.unit, obs.time)
        else:
            keys = [obs.index.positions([pair[end] for pair in pairing]) for end in (0, 1)]
            made = Pairing(listed=torch.from_numpy(np.stack(keys, axis=1)))
        train = torch.from_numpy(split["train"])
        listed = made.among(train).listed
        if listed is not None and not len(listed):
            msg = f"pairing={pairing!r} makes no pair of training groups: no group is seen at two times."
            raise ValueError(msg)
        if made.time is not None and len(made.time[train].unique()) < 2:
            msg = "pairing='forward' needs two times among the training groups, and there is one only."
            raise ValueError(msg)
        return made

    def get_group_embedding(
        self,
        adata: AnnData | None = None,
        *,
        return_se: bool = False,
        batch_size: int | None = None,
        key_added: str | None = TDE_KEY,
        write_obsm: bool = True,
    ) -> Any:
        """Embedding of each population; see :meth:`GDE.get_group_embedding`. Written to ``.uns["tde"]``."""
        options: dict[str, Any] = {"return_se": return_se, "batch_size": batch_size}
        return super().get_group_embedding(adata, key_added=key_added, write_obsm=write_obsm, **options)

    def predict(
        self,
        label: str,
        adata: AnnData | None = None,
        *,
        batch_size: int | None = None,
        key_added: str | None = TDE_KEY,
    ) -> pd.DataFrame:
        """Predict an attribute of populations; see :meth:`GDE.predict`. Labels do not shape the embedding.

        What holds of a donor or clone is held out with it as a whole: its times are on one side of every fold.
        """
        return super().predict(label, adata, batch_size=batch_size, key_added=key_added)

    def transport(
        self,
        source: Any,
        target: Any,
        adata: AnnData | None = None,
        *,
        exact_moments: bool = False,
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
        """Move the cells of populations to other populations; see :meth:`GDE.transport`.

        The target is read through its embedding alone unless ``exact_moments`` is set: a predicted one is as good.
        """
        return super().transport(
            source,
            target,
            adata,
            exact_moments=exact_moments,
            space=space,
            return_trajectory=return_trajectory,
            n_steps=n_steps,
            n_cells=n_cells,
            batch=batch,
            trust=trust,
            seed=seed,
            batch_size=batch_size,
            key_added=key_added,
            progress=progress,
        )


def _without_orphans(obs: GroupedObs) -> GroupedObs:
    """The same as if the cells of units that are seen at one time only belonged to no group."""
    kept = np.flatnonzero(np.bincount(obs.unit)[obs.unit] > 1)
    if not len(kept) or obs.time is None:
        msg = "orphans=False leaves no group: none is seen at two times. It needs time_key=."
        raise ValueError(msg)
    place = np.full(len(obs.index) + 1, -1)
    place[kept] = np.arange(len(kept))
    return replace(
        obs,
        index=GroupIndex(place[obs.index.codes], obs.index.table.iloc[kept].reset_index(drop=True)),
        labels=obs.labels.iloc[kept].reset_index(drop=True),
        split=None if obs.split is None else obs.split[kept],
        unit=np.unique(obs.unit[kept], return_inverse=True)[1],
        time=None if obs.time is None else obs.time[kept],
    )
