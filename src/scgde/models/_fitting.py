"""From a set-up model to a trained one: splits, the representation, shared statistics, gradient steps."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scgde._validation import check_counts
from scgde.data import GroupDataModule, GroupedCells, GroupedObs
from scgde.data._cells import fold_sums, moments
from scgde.data._datamodule import training_counts
from scgde.models._checkpoints import Checkpoints
from scgde.models._label_fitting import fit_labels, own_labels, shaping_labels
from scgde.models._module import GDEModule, probe_generator
from scgde.models._novelty import fit_novelty
from scgde.models._start import Limits, Start, run_of
from scgde.models._training import Budget, GDETrainingPlan, fit
from scgde.models._trust import default_trust, fit_trust, learning_alone
from scgde.nn._shared_mixture import FEW, MAX_CELLS, MIN_CELLS_PER_GROUP, fit_shared_mixture
from scgde.nn.generators import Generator
from scgde.nn.statistics import most_weights

if TYPE_CHECKING:
    from pathlib import Path

    from scgde.data._labels import Label
    from scgde.models._gde import GDE

#: Least number of steps of an epoch.
MIN_STEPS_PER_EPOCH = 50

#: Options of a model that its module is built from.
MODULE_OPTIONS = ("encoder", "generator", "encoder_kwargs", "generator_kwargs", "seed", "method")

#: Share of an embedding that is learned code, at least.
CODE_SHARE = 0.25

#: Groups are held out by default where there are at least this many.
MIN_GROUPS_TO_HOLD_OUT = 30


def split_groups(obs: GroupedObs, validation_size: float | None, seed: int) -> dict[str, np.ndarray]:
    """Positions of the training, validation and test groups: the user's split, else a random one by unit.

    Groups that share cells are one unit: they are held out together, or not at all.
    """
    if obs.split is not None:
        return {name: np.flatnonzero(obs.split == name) for name in ("train", "validation", "test")}
    n = int(obs.unit.max()) + 1
    if validation_size is None:
        validation_size = 0.1 if n >= MIN_GROUPS_TO_HOLD_OUT else 0.0
    n_held = round(validation_size * n)
    if validation_size and not n_held and n < len(obs.unit) and obs.index.rows is not None:
        msg = (
            f"validation_size={validation_size} holds out no group: those that share cells, directly or through "
            f"others, go together, and the {len(obs.unit)} groups make up {n} such set(s). Pass validation_size=0, or "
            "groups that share fewer cells."
        )
        raise ValueError(msg)
    held = np.isin(obs.unit, np.random.default_rng([seed, n]).permutation(n)[:n_held])
    if not 0 <= validation_size < 1 or (~held).sum() < 2:
        msg = (
            f"validation_size={validation_size} leaves {(~held).sum()} of {len(held)} groups to train on; pass a share "
            "of the groups, from 0 to below 1, that leaves at least two."
        )
        raise ValueError(msg)
    return {"train": np.flatnonzero(~held), "validation": np.flatnonzero(held), "test": np.array([], dtype=int)}


def fit_representation(model: GDE, adata: AnnData, obs: GroupedObs, split: dict[str, np.ndarray]) -> None:
    """Complete the representation (a PCA, where there is none) from the training groups."""
    rows = obs.index.cells_of(split["train"])
    model.representation_ = asdict(model.representation.fit(adata, rows, model.options["seed"]))


def build_module(
    module: GDEModule,
    cells: GroupedCells,
    split: dict[str, np.ndarray],
    n_batch: int,
    options: dict[str, Any],
    heads: list[dict[str, Any]],
    group_weight: np.ndarray | None,
    max_components: int,
) -> tuple[GroupedCells, torch.Tensor]:
    """Fit what is closed form on the training groups, then make the networks; returns cells and fold sums."""
    train = torch.from_numpy(split["train"])
    weight = None if group_weight is None else torch.from_numpy(group_weight).float()[train]
    counts = training_counts(cells.counts, torch.from_numpy(split["validation"]))
    shift, scale = moments(cells, torch.zeros_like(counts).index_copy_(0, train, counts[train]))
    # A constant feature has no scale of its own; a small one keeps it from blowing up in new data.
    scale = scale.clamp_min(1e-3 * scale.square().mean().sqrt().clamp_min(1e-6))
    # Groups that share cells may have many times as many as there are.
    limit = counts if cells.cell is None else counts.clamp(max=max(MIN_CELLS_PER_GROUP, MAX_CELLS // len(train)))
    standard = cells.standardized(shift, scale)
    groups = standard.parts(train.tolist(), limit)
    n_coordinates = options["n_latent"] - max(1, int(options["n_latent"] * CODE_SHARE))
    statistics = fit_shared_mixture(
        groups,
        feature_scale=scale,
        n_components=options["n_components"],
        seed=options["seed"],
        weight=weight,
        max_components=min(max_components, max(FEW, most_weights(n_coordinates))),
    )
    folds = fold_sums(standard, counts, statistics)
    sums = folds.sum(1)[train]
    statistics.fit_pooled(sums, weight)
    statistics.fit_basis(statistics.mixtures(sums), n_coordinates, weight)
    n_coordinates = len(statistics.basis)
    module.build(
        n_features=cells.x.shape[1],
        n_components=statistics.n_components,
        n_coordinates=n_coordinates,
        n_code=options["n_latent"] - n_coordinates,
        n_crossed=statistics.n_crossed,
        n_whole=statistics.n_whole,
        n_batch=n_batch,
        heads=heads,
        statistics=statistics,
        **{name: options[name] for name in MODULE_OPTIONS},
    )
    module.shift.copy_(shift)
    module.scale.copy_(scale)
    if isinstance(module.generator, Generator):
        module.generator.fit(shift, scale)
    module.encoder.fit(groups, options["seed"])
    return standard, folds


def train(
    model: GDE,
    adata: AnnData,
    obs: GroupedObs,
    split: dict[str, np.ndarray],
    *,
    limits: Limits,
    batch_size: int,
    cells_per_group: int,
    early_stopping: bool,
    patience: int,
    plan_kwargs: dict[str, Any],
    checkpoint_dir: Path | None,
    checkpoint_minutes: float,
    resume_from: Path | None,
    **trainer_kwargs: Any,
) -> None:
    """Fit shared statistics at the first call, then take gradient steps; the model changes only on success."""
    labels, y = shaping_labels(model, obs, split["train"])
    run: dict[str, str] = {}
    if checkpoint_dir is not None or resume_from is not None:
        sizes = {"batch_size": batch_size, "cells_per_group": cells_per_group}
        stopping = {"early_stopping": early_stopping, "early_stopping_patience": patience}
        arguments = {**asdict(limits), **sizes, **stopping, "plan_kwargs": plan_kwargs}
        run = run_of(model, obs, split, y, arguments, trainer_kwargs)
    start = Start.of(model) if resume_from is None else Start.resumed(resume_from, run)
    if start.representation:
        model.representation_ = start.representation
    else:
        fit_representation(model, adata, obs, split)
    module, cells, folds = _module_and_cells(model, adata, obs, split, start, labels, y)
    data, budget = _data_and_budget(model, obs, split, cells, folds, limits, batch_size, cells_per_group, start, y)
    plan_kwargs = {"ema_decay": budget.ema_decay, "labels_weight": model.labels_weight, **plan_kwargs}
    ema_decay = plan_kwargs.pop("ema_decay")
    plan = GDETrainingPlan(module, seed=model.options["seed"], budget=budget, names=obs.index.names, **plan_kwargs)
    checkpoints = None
    if checkpoint_dir is not None:
        checkpoints = Checkpoints(checkpoint_dir, checkpoint_minutes, start.entry(run, module, model.representation_))
    callbacks = trainer_kwargs.pop("callbacks", None) or []
    history = fit(
        plan,
        data,
        early_stopping=early_stopping,
        patience=patience,
        ema_decay=ema_decay,
        callbacks=callbacks if isinstance(callbacks, list | tuple) else [callbacks],
        checkpoints=checkpoints,
        resume_from=resume_from,
        **trainer_kwargs,
    )
    # Lightning leaves the module on the CPU; users expect it where it was trained.
    module.eval().to(plan.trainer.strategy.root_device)
    model.module = module
    model.spec_, model.trained_labels_ = module.spec, [label.state() for label in labels]
    model.steps_ = start.steps + plan.trainer.global_step
    model.history_ = _joined(start.history, history)
    trust = None
    if isinstance(module.generator, Generator):
        trust = default_trust(math.inf) if learning_alone(model) else fit_trust(plan, data)
    _finish(model, adata, obs, split, trust)


def _module_and_cells(
    model: GDE,
    adata: AnnData,
    obs: GroupedObs,
    split: dict[str, np.ndarray],
    start: Start,
    labels: list[Label],
    y: torch.Tensor | None,
) -> tuple[GDEModule, GroupedCells, torch.Tensor]:
    """The module to train, its shared statistics fitted, standardised cells and their fold sums."""
    x, seed = model.representation.read(adata), model.options["seed"]
    if getattr(probe_generator(model.options), "counts", False):
        # Of a file that does not fit in memory, the first cells stand for all.
        check_counts(x if isinstance(x, np.ndarray) else x[:10_000], model.representation.name)
    batch, index = model._batch_codes(obs), obs.index
    cells = GroupedCells.from_arrays(x, index.codes, len(index), obs.weight, batch, seed, cells=index.rows)
    if start.module is not None:
        cells = cells.standardized(start.module.shift, start.module.scale)
        counts = training_counts(cells.counts, torch.from_numpy(split["validation"]))
        return start.module, cells, fold_sums(cells, counts, start.module.statistics)
    module, specs = GDEModule(), [label.spec for label in labels]
    sizes = len(model._batches), model.options, specs
    cells, folds = build_module(module, cells, split, *sizes, obs.group_weight, model._max_components)
    if y is not None:
        module.heads.fit_constants(y[split["train"]])
    return module, cells, folds


def _data_and_budget(
    model: GDE,
    obs: GroupedObs,
    split: dict[str, np.ndarray],
    cells: GroupedCells,
    folds: torch.Tensor,
    limits: Limits,
    batch_size: int,
    cells_per_group: int,
    start: Start,
    y: torch.Tensor | None,
) -> tuple[GroupDataModule, Budget]:
    """What serves the steps, and how many there are."""
    validation = torch.from_numpy(split["validation"])
    counts = training_counts(cells.counts, validation)
    scored = max(8, cells_per_group // 4)
    per_step = min(batch_size, len(split["train"])) * scored
    steps_per_epoch = max(MIN_STEPS_PER_EPOCH, math.ceil(int(counts[split["train"]].sum()) / per_step))
    budget = limits.budget(steps_per_epoch)
    data = GroupDataModule(
        cells,
        folds,
        torch.from_numpy(split["train"]),
        validation,
        batch_size=batch_size,
        cells_per_group=cells_per_group,
        scored_per_group=scored,
        seed=model.options["seed"],
        steps_per_epoch=min(steps_per_epoch, budget.max_steps or steps_per_epoch),
        first_step=start.steps,
        skip=start.skip,
        pairing=model._pairing(obs, split),
        labels=y,
        group_weight=None if obs.group_weight is None else torch.from_numpy(obs.group_weight).float(),
    )
    return data, budget


def _finish(
    model: GDE, adata: AnnData, obs: GroupedObs, split: dict[str, np.ndarray], trust: dict[str, float] | None
) -> None:
    """Fit what needs the trained encoder."""
    batch, module = model._batch_codes(obs), model.module
    shares = None
    if batch is not None:
        shares = np.bincount(batch[np.isin(obs.index.codes, split["train"])], minlength=len(model._batches))
    model.fitted_ = {
        "batch_shares": None if shares is None else shares / shares.sum(),
        "n_train": len(split["train"]),
        "trust": trust,
        "validation_size": len(np.unique(obs.unit[split["validation"]])) / len(np.unique(obs.unit)),
    }
    encoding = model._encode(adata, obs, split["train"], None)
    module.calibrate_code(encoding.coordinates, encoding.code)
    known = module.embedding(encoding.coordinates, encoding.code).numpy()
    held_out = known[:0]
    if len(split["validation"]):
        held_out = model._encode(adata, obs, split["validation"], None).z.cpu().numpy()
    model.fitted_["novelty"] = fit_novelty(known, held_out)
    model.predictors_ = fit_labels(model, adata, obs, own_labels(model, obs), split) if model.fits_predictors else {}
    model.is_trained_ = True


def _joined(before: dict[str, pd.DataFrame] | None, now: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """History of this call after that of earlier ones, with running epochs."""
    if not before:
        return now
    joined = {}
    for name, frame in now.items():
        earlier = before.get(name)
        if earlier is not None:
            frame = frame.set_axis(frame.index + earlier.index.max() + 1)
            frame = pd.concat([earlier, frame])
        joined[name] = frame
    return joined
