"""Training of a GDE on Lightning: loss, learning rate, budgets, averaged weights, early stopping."""

from __future__ import annotations

import math
import time
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, Timer, WeightAveraging
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchmetrics import MeanMetric

from scgde._arguments import shown
from scgde._compat import ProgressBar, SimpleLogger
from scgde.data import GroupBatch, GroupDataModule
from scgde.models._checkpoints import ENTRY, BestWeights, Checkpoints, from_plain, log_of
from scgde.models._module import GDEModule
from scgde.nn._random import GROUP_STRIDE, CounterRandom
from scgde.nn.generators import Condition, Generator
from scgde.nn.mixtures import Mixtures

#: Noise and times drawn per held-out cell at each validation.
VALIDATION_DRAWS = 4

#: The weights are averaged over about a sixth of the budget, and over at most 500 steps: a longer average of a short
#: run would still hold the weights it began with.
AVERAGED_SHARE, MAX_EMA_DECAY = 1 / 6, 0.998


@dataclass(frozen=True)
class Budget:
    """How long to train: whichever limit is met first. The learning rate decays towards it."""

    max_steps: int | None = None
    max_seconds: float | None = None

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget that is used, from 0 to 1."""
        parts = [0.0]
        if self.max_steps:
            parts.append(step / self.max_steps)
        if self.max_seconds:
            parts.append(seconds / self.max_seconds)
        return min(1.0, max(parts))

    @property
    def ema_decay(self) -> float:
        """Default decay of the average of the weights."""
        if not self.max_steps:
            return MAX_EMA_DECAY
        return min(MAX_EMA_DECAY, max(0.0, 1 - 1 / (AVERAGED_SHARE * self.max_steps)))


class GDETrainingPlan(pl.LightningModule):
    """One training step, and the optimiser.

    Parameters
    ----------
    module
        A built module.
    seed
        The user's seed.
    budget
        How long to train.
    lr, weight_decay
        Of AdamW.
    warmup_steps
        Steps over which the learning rate rises.
    labels_weight
        Weight of the heads' loss, relative to that of the reconstruction, in the second half of training; it rises
        from 0 in the second quarter, when there is a code to shape. Default 1.
    reconstruction_weight
        Weight of the reconstruction; 0 trains on labels alone, from the first step.
    names
        Keys of the groups, for messages.
    """

    def __init__(
        self,
        module: GDEModule,
        *,
        seed: int,
        budget: Budget,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        warmup_steps: int = 50,
        labels_weight: float | None = None,
        reconstruction_weight: float = 1.0,
        names: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        self.module, self.seed, self.budget = module, seed, budget
        self.labels_weight = 1.0 if labels_weight is None else labels_weight
        self.reconstruction_weight = reconstruction_weight
        self.lr, self.weight_decay, self.warmup_steps = lr, weight_decay, warmup_steps
        self.names, self.seen = names, torch.empty(0, dtype=torch.int64)
        self.started, self.seconds = time.monotonic(), 0.0
        # Metrics of ours, and not plain numbers: a checkpoint in the middle of an epoch keeps what they hold.
        self.train_loss, self.train_loss_labels = MeanMetric(), MeanMetric()
        for metric in (self.train_loss, self.train_loss_labels):
            metric.persistent(True)
        self.logged_epoch = -1

    def loss(
        self, batch: GroupBatch, *, step: int, measured: Tensor, trust: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Reconstruction loss of each group, (groups,), or pair of groups, (pairs,), and the loss of the labels.

        Parameters
        ----------
        batch
            Cells to encode and to score.
        step
            Key of the random numbers.
        measured
            (groups,) whether the generator gets the measured statistics, or those read back from the embedding: it
            learns to use both.
        trust
            Weight of what was learned beyond the statistics; None is 1.
        """
        module = self.module
        with torch.no_grad(), torch.autocast(batch.x.device.type, enabled=False):
            own = module.statistics.mixtures(batch.sums)
            coordinates = module.statistics.coordinates(own)
            read = module.statistics.read_back(coordinates)
            mixtures = Mixtures(
                *(
                    torch.where(measured.view(-1, *[1] * (a.ndim - 1)), a, b)
                    for a, b in ((own.weight, read.weight), (own.mean, read.mean), (own.root, read.root))
                )
            )
            mixtures = module.statistics.predictive(mixtures, batch.sums)
        latent = torch.cat([coordinates / module.statistics.spread, module.encoder(batch.x, batch.weight)], dim=-1)
        labels = latent.new_zeros(()) if batch.labels is None else self._labels_loss(latent, batch.labels)
        scored = slice(len(batch.x_score))
        latent, weight = latent[scored], None if trust is None else latent.new_full((len(batch.x_score),), trust)
        condition = Condition(mixtures[scored], measured[scored].float(), batch.batch_score, weight)
        generator = module.generator
        if isinstance(generator, Generator):
            random = CounterRandom(self.seed, step, batch.group[scored])
            return generator.loss(batch.x_score, batch.weight_score, latent, condition, random), labels
        assert batch.pairs is not None
        group, (source, target) = batch.group[batch.pairs], batch.pairs.T
        random = CounterRandom(self.seed, step, group[:, 0] * GROUP_STRIDE + group[:, 1])
        loss = generator.loss(
            (batch.x_score[source], batch.x_score[target]),
            (batch.weight_score[source], batch.weight_score[target]),
            (latent[source], latent[target]),
            (condition[source], condition[target]),
            random,
        )
        return loss, labels

    def training_step(self, batch: GroupBatch, batch_idx: int) -> Tensor:
        """Mean loss over the groups of a step."""
        measured = CounterRandom(self.seed, batch.step, batch.group).uniform("batch", 1)[:, 0] < 0.5
        reconstruction, labels = self.loss(batch, step=batch.step, measured=measured)
        reconstruction = mean_loss(reconstruction, batch)
        loss = self.reconstruction_weight * reconstruction + self._labels_factor() * labels
        self.seen = batch.group
        if (loss.device.type == "cpu" or batch.step % 50 == 0) and not torch.isfinite(loss):
            raise RuntimeError(self.not_finite(f"The loss is {loss.item()}", batch.step))
        n_scored = len(batch.x_score)
        self.train_loss.update(reconstruction.detach(), n_scored)
        if batch.labels is not None:
            self.train_loss_labels.update(labels.detach(), n_scored)
        if self.logged_epoch != self.current_epoch:
            # Lightning computes them when the epoch ends: to log them once is enough, and at each step is slow.
            self.logged_epoch = self.current_epoch
            options: dict[str, Any] = {"on_step": False, "on_epoch": True, "prog_bar": True}
            self.log("train_loss", self.train_loss, **options)
            if batch.labels is not None:
                self.log("train_loss_labels", self.train_loss_labels, **options)
        return loss

    def not_finite(self, what: str, step: int) -> str:
        """Message about a loss, or weights, that went wrong at a step."""
        names = [self.names[i] if i < len(self.names) else i for i in self.seen.tolist()]
        shown = ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        kept = [c for c in self.trainer.callbacks if isinstance(c, Checkpoints)]  # type: ignore[attr-defined]
        last = f"In {str(kept[0].path)!r}, {kept[0].io.last()}" if kept else "Pass checkpoint_dir= to keep checkpoints."
        return (
            f"{what} at step {step} (groups {shown}). Check these groups for extreme values, or lower the learning "
            f"rate: model.train(plan_kwargs={{'lr': 5e-4}}). {last}"
        )

    def setup(self, stage: str) -> None:
        """See that all processes have fitted the same, before the first one's weights are given to all."""
        if self.trainer.world_size > 1:
            check = state_checksum(self.module.state_dict())
            if check != self.trainer.strategy.broadcast(check):
                msg = (
                    "The processes have fitted different statistics to their data. Give each of them the same AnnData, "
                    "the same arguments and the same number of threads (OMP_NUM_THREADS)."
                )
                raise RuntimeError(msg)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the clock and the history up again."""
        self.started = time.monotonic() - checkpoint[ENTRY]["seconds"]
        log_of(self.trainer).update(from_plain(checkpoint[ENTRY]["log"]))

    def on_train_batch_start(self, batch: GroupBatch, batch_idx: int) -> None:
        """Make dropout a function of the seed and the step, and look at the clock: the first process's, for all."""
        # Not torch.manual_seed: of devices that are not in use it keeps a stack trace, at each call.
        seed = hash((self.seed, batch.step))
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            getattr(torch, self.device.type).manual_seed(seed)
        if self.budget.max_seconds:
            self.seconds = self.trainer.strategy.broadcast(time.monotonic() - self.started)

    def _labels_loss(self, latent: Tensor, y: Tensor) -> Tensor:
        """Loss of the heads, whose mean over processes is that of all groups together: some know more labels."""
        n_known = self.module.heads.n_known(y)
        if self.trainer.world_size > 1:
            n_known = self.trainer.strategy.reduce(n_known, reduce_op="mean")
        return self.module.heads.loss(latent, y, n_known)

    def _labels_factor(self) -> float:
        """The weight of the labels at this step."""
        if not self.reconstruction_weight:
            return self.labels_weight
        used = self.budget.progress(self.trainer.global_step, self.seconds)
        return self.labels_weight * min(1.0, max(0.0, 4 * (used - 0.25)))

    def validation_step(self, batch: GroupBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Loss on held-out cells: of training groups, and of held-out groups where there are any."""
        measured = torch.ones_like(batch.group)
        losses = [
            mean_loss(self.loss(batch, step=2**31 + draw, measured=measured == draw % 2)[0], batch)
            for draw in range(VALIDATION_DRAWS)
        ]
        loss, n = torch.stack(losses).mean(), len(batch.group)
        options: dict[str, Any] = {"on_epoch": True, "batch_size": n, "add_dataloader_idx": False, "sync_dist": True}
        self.log(("validation_loss", "validation_loss_new_groups")[dataloader_idx], loss, **options)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, with a rise and a cosine decay that ends with the budget."""
        optimizer = torch.optim.AdamW(
            self.module.parameters(),
            lr=self.lr,
            betas=(0.9, 0.99),
            weight_decay=self.weight_decay,
            # Lightning refuses to clip the gradients of a fused optimiser in mixed precision.
            fused="mixed" not in str(self.trainer.precision),
        )

        def factor(step: int) -> float:
            used = self.budget.progress(step, self.seconds)
            return min(1.0, (step + 1) / self.warmup_steps) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * used)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def mean_loss(losses: Tensor, batch: GroupBatch) -> Tensor:
    """Mean of the groups' losses, by what they count."""
    return losses.mean() if batch.importance is None else (batch.importance * losses).mean()


class _EpochBar(ProgressBar):
    """The progress bar of scvi-tools, without the logger's version number."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


def state_checksum(state: dict[str, Tensor]) -> int:
    """A checksum of a state: the same for equal bits."""
    check = 0
    for name, value in state.items():
        content = value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        check = zlib.crc32(content, zlib.crc32(name.encode(), check))
    return check


def fit(
    plan: GDETrainingPlan,
    data: GroupDataModule,
    *,
    early_stopping: bool,
    patience: int,
    ema_decay: float,
    callbacks: Sequence[pl.Callback],
    checkpoints: Checkpoints | None = None,
    resume_from: Path | None = None,
    **trainer_kwargs: Any,
) -> dict[str, pd.DataFrame]:
    """Train, leave the best averaged weights in the module, and return the history.

    Parameters
    ----------
    plan, data
        What to train, on what.
    early_stopping
        Whether to stop when the loss on held-out cells has not fallen for ``patience`` epochs, and to go back to the
        best epoch.
    patience
        Epochs.
    ema_decay
        Of the exponential moving average of the weights.
    callbacks
        The user's own.
    checkpoints
        Writes checkpoints, where they are asked for.
    resume_from
        Checkpoint to go on from.
    **trainer_kwargs
        For :class:`lightning.pytorch.Trainer`.
    """
    budget, best = plan.budget, BestWeights() if early_stopping and data.val_dataloader() else None
    callbacks = list(callbacks)
    if best is not None:
        callbacks += [best, EarlyStopping("validation_loss", patience=patience, check_on_train_epoch_end=False)]
    callbacks.append(WeightAveraging(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(ema_decay)))
    if trainer_kwargs.get("enable_progress_bar", True):
        callbacks.append(_EpochBar())
    if budget.max_seconds:
        callbacks.append(Timer(duration=timedelta(seconds=budget.max_seconds), interval="step", verbose=False))
    if checkpoints is not None:
        callbacks.append(checkpoints)
        plugins = trainer_kwargs.get("plugins") or []
        trainer_kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), checkpoints.io]
    settings: dict[str, Any] = {
        "logger": SimpleLogger(),
        "max_epochs": math.ceil(budget.max_steps / data.steps_per_epoch) if budget.max_steps else -1,
        "max_steps": budget.max_steps or -1,
        "gradient_clip_val": 2.0,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": min(10, data.steps_per_epoch),
        "limit_val_batches": None if data.val_dataloader() else 0,
        # Processes share the groups of a step; Lightning would have them share the steps.
        "use_distributed_sampler": False,
    }
    try:
        trainer = pl.Trainer(**{**settings, **trainer_kwargs}, callbacks=callbacks)
    except Exception as error:
        told = ", ".join(f"{name}={shown(value)}" for name, value in trainer_kwargs.items())
        msg = f"lightning.pytorch.Trainer does not take these options ({told}): {error}"
        raise ValueError(msg) from error
    with warnings.catch_warnings():
        # Lightning's own, with torch 2.13 and newer.
        warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
        # Steps are drawn from tensors in memory: worker processes would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # It is: the data module is told where.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            # Lightning and dropout draw from the global generator: from the seed, and without a trace.
            torch.manual_seed(plan.seed)
            # The clock; a checkpoint sets it back.
            plan.started = time.monotonic()
            trainer.fit(plan, datamodule=data, ckpt_path=resume_from, weights_only=True)
    if best is not None:
        best.restore(plan)
    # Lightning logs in the first process; the others get what it has.
    history = trainer.strategy.broadcast(log_of(trainer))
    return {name: frame.astype(float) for name, frame in history.items() if name.startswith(("train", "validation"))}
