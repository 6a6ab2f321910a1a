"""Generative distribution embeddings of groups of cells, as an scvi-tools model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from anndata import AnnData

from scgde._arguments import check_count, check_flags, check_number, check_options, check_seed, check_text
from scgde._compat import SETUP_ARGS_KEY, AnnDataManager
from scgde._constants import COLLECTION
from scgde._validation import check_anndata, check_setup, unknown_key
from scgde.data import Setup, chosen_representation, open_collection, setup_fields
from scgde.data._weighting import UNIFORM, group_weights
from scgde.models import _fitting
from scgde.models._checkpoints import checkpoint_paths
from scgde.models._devices import chosen_devices
from scgde.models._embedding import EmbeddingModel
from scgde.models._module import GDEModule, probe_generator
from scgde.models._saving import save_atomically
from scgde.models._start import Limits
from scgde.models._training_arguments import check_training
from scgde.nn.encoders import ENCODERS
from scgde.nn.generators import GENERATORS

if TYPE_CHECKING:
    from pathlib import Path


class GDE(EmbeddingModel):
    """Generative distribution embeddings: one vector per group of cells, from which its cells can be generated.

    An encoder maps the distribution of a group's cells to an embedding; a conditional generator maps the embedding back
    to cells; both are trained together. The embedding does not depend on the order or on the number of cells, and new
    groups are embedded without retraining.

    Parameters
    ----------
    adata
        AnnData after :meth:`setup_anndata`.
    registry
        Registry of a saved model, where there is no AnnData.
    encoder
        Name of the encoder: the networks "resnet", "deepsets" and "attention" (their ``encoder_kwargs`` choose the
        ``pooling``), a kernel mean embedding "kme", or the closed-form "moments" and "mixture".
    generator
        Name of the generator: "flow" and "diffusion", which can be inverted; "vae", whose ``likelihood`` is "normal",
        or "nb" or "zinb" of raw counts (whole numbers of at least 0, read with ``use_rep="X"`` or ``layer=``); or
        "energy", "sliced", "sinkhorn" and "mmd", trained by that divergence between generated and real cells.
    n_latent
        Size of the embedding: principal coordinates of the group's statistics, and at least a quarter learned code.
    n_components
        Components of the mixture shared by all groups; by default chosen by how well it predicts unseen cells, of up to
        40, and 20 in :class:`TDE`.
    encoder_kwargs, generator_kwargs
        Options of the encoder and of the generator.
    seed
        Seed of everything random: one seed, one result.
    labels_weight
        Weight of the ``labels`` of setup in training, relative to the reconstruction; it rises from 0 in the second
        quarter of training. 0: the embedding is the one without labels. None: 1 for labels of at least 100 training
        groups, and 0 for others, whose few labels the embedding would memorise.

    Raises
    ------
    ValueError
        For unknown names or sizes, and a negative weight.

    Notes
    -----
    Fishman, Gowri et al., "Generative distribution embeddings" (NeurIPS 2025).

    Examples
    --------
    >>> model = GDE.setup_anndata(adata, groupby="donor")
    >>> model.train()
    >>> z = model.get_group_embedding()
    """

    _module_cls = GDEModule

    #: Most components of the shared mixture that are chosen where ``n_components`` says nothing.
    _max_components = 40

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        encoder: str = "resnet",
        generator: str = "flow",
        n_latent: int = 128,
        n_components: int | None = None,
        encoder_kwargs: dict[str, Any] | None = None,
        generator_kwargs: dict[str, Any] | None = None,
        seed: int = 0,
        labels_weight: float | None = None,
    ) -> None:
        super().__init__(adata, registry)
        check_number("labels_weight", labels_weight, 0, optional=True)
        self._make(encoder, generator, n_latent, n_components, encoder_kwargs, generator_kwargs, seed)
        self.labels_weight = labels_weight
        self.init_params_ = self._get_init_params(locals())

    def _make(
        self,
        encoder: str,
        generator: str,
        n_latent: int,
        n_components: int | None,
        encoder_kwargs: dict[str, Any] | None,
        generator_kwargs: dict[str, Any] | None,
        seed: int,
        method: str = "composition",
        pairing: Any = None,
    ) -> None:
        """Check the options, and make an empty model: what depends on data is made when it is trained."""
        for name, known, argument in ((encoder, ENCODERS, "encoder="), (generator, GENERATORS, "generator=")):
            check_text(argument[:-1], name, "a name in the registry")
            if name not in known:
                raise ValueError(unknown_key(name, known, f"the {argument} registry").args[0])
        check_count("n_latent", n_latent, 0)
        check_count("n_components", n_components, optional=True)
        check_seed(seed)
        for name, value in (("encoder_kwargs", encoder_kwargs), ("generator_kwargs", generator_kwargs)):
            check_options(name, {} if value is None else value)
        if n_latent < 2:
            msg = f"n_latent={n_latent} is too small: statistics and code need at least one entry each. Pass 2 or more."
            raise ValueError(msg)
        self.module = GDEModule()
        self.options = {
            "encoder": encoder,
            "generator": generator,
            "n_latent": n_latent,
            "n_components": n_components,
            "encoder_kwargs": encoder_kwargs or {},
            "generator_kwargs": generator_kwargs or {},
            "seed": seed,
            "method": method,
            "pairing": pairing,
        }
        probe_generator(self.options)
        self.spec_: dict[str, Any] = {}
        self.representation_: dict[str, Any] = {}
        self.fitted_: dict[str, Any] = {}
        self.trained_labels_: list[dict[str, Any]] = []
        self.predictors_: dict[str, dict[str, Any]] = {}
        self.steps_ = 0

    # --- setup -----------------------------------------------------------------------------------------------------

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        groupby: str | list[str] | None = None,
        *,
        membership_key: str | None = None,
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
            Column(s) of ``.obs`` that make the groups, of any dtype.
        membership_key
            In place of ``groupby``, for overlapping, weighted groups: a key of ``.obsm`` with a sparse or dense matrix
            (cells, groups) of masses of at least 0, such as :func:`scgde.data.kernel_groups` makes. Groups are named by
            the columns of a DataFrame, else by ``.uns[membership_key]["names"]``, else "0", "1", …. Cells whose row is
            0 belong to no group. There is no embedding per cell; ``labels`` and ``split_key`` are refused (see
            :meth:`update_labels`). Groups that share cells are held out together, or not at all.
        use_rep
            What to read of a cell: a key of ``.obsm``, or "X". Without ``use_rep`` and ``layer``: X if it has at most
            50 variables, else ``.obsm["X_pca"]``, else a PCA of X that the model fits on the training groups and keeps.
        layer
            A key of ``.layers`` to read in place of X.
        labels
            Attributes of groups, missing values allowed: columns of ``.obs`` that are constant within groups, or a dict
            from a name to a column or to a list of binary columns. :meth:`predict` predicts them, and they come along
            in the results. Numbers with more than two values are numeric, ordered categoricals are levels, other values
            are classes.
        batch_key
            Column of ``.obs`` with technical batches of cells. The generator is told the batch of each cell.
        weight_key
            Column of ``.obs`` with the mass of each cell in its group; by default all are equal.
        split_key
            Column of ``.obs`` with "train", "validation" or "test" for whole groups. Test groups are never
            trained on.
        min_cells
            Smallest group that is accepted.
        drop_ungrouped
            Whether to leave out cells that have no value in ``groupby``; else they are an error. With
            ``membership_key`` they are left out in any case.
        **kwargs
            ``source_registry``, which scvi-tools passes when it loads a model.

        Returns
        -------
        A model, ready to train; None when ``source_registry`` is given.

        Raises
        ------
        KeyError
            For unknown columns or representations, with near matches.
        TypeError
            For what is not an AnnData.
        ValueError
            For views, missing groups or values, a single group, groups under ``min_cells``, and labels that are not
            constant within groups.
        """
        return cls._set_up(adata, cls._get_setup_method_args(**locals()), kwargs)

    @classmethod
    def _set_up(cls, adata: AnnData, arguments: dict[str, Any], kwargs: dict[str, Any]) -> Self | None:
        """Check everything, register, and make a model; scvi-tools passes ``source_registry`` when it loads one."""
        unexpected = set(kwargs) - {"source_registry"}
        if unexpected:
            msg = f"setup_anndata() got unexpected argument(s) {sorted(unexpected)}."
            raise TypeError(msg)
        check_anndata(adata, setup=True)
        arguments[SETUP_ARGS_KEY].pop("kwargs", None)
        check_setup(arguments[SETUP_ARGS_KEY])
        setup = Setup(**arguments[SETUP_ARGS_KEY])
        loads = "source_registry" in kwargs
        obs = setup.read(adata, training=not loads)
        for name in [] if loads else setup.label_names:
            setup.label(name, obs.labels)
        representation = chosen_representation(kwargs["source_registry"]) if loads else setup.representation(adata)
        representation.check(adata)
        manager = AnnDataManager(fields=setup_fields(setup, representation), setup_method_args=arguments)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)
        return None if loads else cls(adata)

    @classmethod
    def setup_annbatch(cls, path: str | Path, groupby: str | list[str] | None = None, **kwargs: Any) -> Self:
        """Name what the model reads of a collection on disk, and get a model with default settings.

        Training and embedding read the rows that a step needs. Results are those of the same cells in memory.

        Parameters
        ----------
        path
            A collection, written by :func:`scgde.data.write_collection`.
        groupby
            Columns that make the groups; by default those that the collection was written by, whose cells lie together.
        **kwargs
            Other arguments of :meth:`setup_anndata`, the representation aside. Columns must be in the collection.

        Returns
        -------
        A model, ready to train. ``model.adata`` stands for the collection: its cells have no names, and its
        representation stays on disk. To load a saved model, pass ``adata=scgde.data.open_collection(path)``.

        Raises
        ------
        FileNotFoundError, ValueError
            For what is no collection.
        """
        adata = open_collection(path)
        written = adata.uns[COLLECTION]
        representation = {"use_rep": written["use_rep"], "layer": written["layer"]}
        model = cls.setup_anndata(adata, groupby or written["groupby"], **representation, **kwargs)
        assert model is not None
        return model

    # --- training --------------------------------------------------------------------------------------------------

    def train(
        self,
        max_epochs: int | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        *,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        validation_size: float | None = None,
        early_stopping: bool = True,
        early_stopping_patience: int = 10,
        batch_size: int = 32,
        cells_per_group: int = 128,
        checkpoint_dir: str | Path | None = None,
        checkpoint_minutes: float = 10.0,
        resume_from: str | Path | None = None,
        group_weighting: str | Mapping[Any, float] | pd.Series = UNIFORM,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train encoder and generator together.

        Shared statistics are fitted first, in closed form. Each step draws groups and fresh cells of them, encodes some
        cells and scores others. Averaged weights are kept; with early stopping, those of the epoch with the smallest
        loss on held-out cells.

        Parameters
        ----------
        max_epochs
            Epochs; one shows each cell once in expectation and has at least 50 steps. Default 15, where no limit is
            set.
        max_steps, max_seconds
            Other limits; the first one met counts, and the learning rate decays towards it. Only training that is
            limited by steps or epochs repeats exactly.
        accelerator, devices
            As in Lightning, but one device unless several are asked for. With ``devices=2`` two processes run the same
            script and share the groups of each step; files are written by the first one.
        validation_size
            Share of the groups to hold out. Default 0.1 with at least 30 groups, else 0.
        early_stopping
            Whether to stop when the loss on held-out cells (a tenth of each group) no longer falls.
        early_stopping_patience
            Epochs without improvement.
        batch_size
            Groups per step.
        cells_per_group
            Cells to encode per group and step; a quarter as many others are scored.
        checkpoint_dir
            Folder to keep a checkpoint in, from which a killed run goes on. It holds no cells and no group names.
        checkpoint_minutes
            Minutes between checkpoints: what a killed process loses at most.
        resume_from
            A ``checkpoint_dir``, or its file, to go on from, with the same data and arguments; on a CPU the result is
            the one without the interruption, to the last bit. "auto" goes on from ``checkpoint_dir`` if it has a
            checkpoint, else begins: the same script then starts a run and restarts it.
        group_weighting
            What each group counts, in the shared statistics (fitted at the first call) and in the loss, by how often it
            is drawn: "uniform"; "balanced:" and a column of ``.obs``, whose values (of whole groups) then count
            equally; a column of ``.obs`` with weights; or a dict or Series from groups to weights. The embedding keeps
            more of what tells heavy groups apart.
        plan_kwargs
            Options of the training plan: lr, weight_decay, warmup_steps, ema_decay, reconstruction_weight.
        **trainer_kwargs
            Options of :class:`lightning.pytorch.Trainer`.

        Raises
        ------
        ValueError
            For limits or sizes that make no sense, weights that do not fit the groups, where the AnnData changed since
            setup, and for a checkpoint of other data or arguments.
        FileExistsError
            Where ``checkpoint_dir`` holds a checkpoint and ``resume_from`` is not given.
        FileNotFoundError
            Where ``resume_from`` names no checkpoint.
        RuntimeError
            Where the loss is not finite, with the step, the groups and the last good checkpoint.

        Examples
        --------
        >>> model.train(checkpoint_dir="run1", resume_from="auto")
        """
        limits, sizes = Limits(max_epochs, max_steps, max_seconds), (batch_size, cells_per_group)
        plan_kwargs = {} if plan_kwargs is None else plan_kwargs
        check_flags(early_stopping=early_stopping)
        check_training(limits, sizes, validation_size, early_stopping_patience, plan_kwargs, trainer_kwargs)
        several = {name: trainer_kwargs.pop(name) for name in ("strategy", "num_nodes") if name in trainer_kwargs}
        trainer_kwargs |= chosen_devices(devices, **several)
        folder, source = checkpoint_paths(checkpoint_dir, checkpoint_minutes, resume_from)
        adata, obs = self._read(None, training=True)
        split = _fitting.split_groups(obs, validation_size, self.options["seed"])
        obs = replace(obs, group_weight=group_weights(group_weighting, adata, obs, split["train"]))
        if obs.group_weight is not None and self.options["method"] != "composition":
            msg = f"group_weighting= does not go with method={self.options['method']!r}, which draws pairs of groups."
            raise ValueError(msg)
        _fitting.train(
            self,
            adata,
            obs,
            split,
            limits=limits,
            batch_size=batch_size,
            cells_per_group=cells_per_group,
            early_stopping=early_stopping,
            patience=early_stopping_patience,
            plan_kwargs=plan_kwargs,
            checkpoint_dir=folder,
            checkpoint_minutes=checkpoint_minutes,
            resume_from=source,
            accelerator=accelerator,
            **trainer_kwargs,
        )

    # --- housekeeping ----------------------------------------------------------------------------------------------

    def save(self, dir_path: str | Path, prefix: str | None = None, overwrite: bool = False, **kwargs: Any) -> None:
        """Save the model. The file holds no cells, no group names and no embeddings; of labels, the classes.

        Parameters
        ----------
        dir_path
            Folder to make. Files are written beside it and renamed, so an interrupted save leaves nothing half done.
        prefix
            Start of the names of the files.
        overwrite
            Whether the folder may exist.
        **kwargs
            As in scvi-tools, ``save_anndata=True`` among them.
        """
        save_atomically(super().save, dir_path, overwrite=overwrite, prefix=prefix, **kwargs)

    def __repr__(self) -> str:
        state = self.registry_["field_registries"]
        groups = state["sample"]["state_registry"]
        lines = [
            f"{type(self).__name__} of {groups['n_groups']} groups by {', '.join(map(str, groups['groupby']))} "
            f"({groups['n_grouped_cells']:,} cells), reads {state['X']['state_registry']['representation']}",
            f"encoder {self.options['encoder']}, generator {self.options['generator']}, "
            f"n_latent {self.options['n_latent']}",
        ]
        if self.is_trained_:
            spec = self.module.spec
            lines.append(
                f"trained for {self.steps_} steps; {spec['n_components']} shared components, "
                f"{spec['n_coordinates']} coordinates of statistics and {spec['n_code']} of learned code"
            )
        else:
            lines.append("not trained: call model.train()")
        return "\n  ".join(lines)
