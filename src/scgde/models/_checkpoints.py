"""Checkpoints of a training run: what a killed process needs to go on as if nothing had happened."""

from __future__ import annotations

import io
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from scgde._arguments import check_number, check_path
from scgde._compat import SimpleLogger
from scgde._files import write_bytes

#: Name of the file in ``checkpoint_dir``, and of our own entry in it.
CHECKPOINT, ENTRY = "checkpoint.ckpt", "scgde"


class AtomicIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name and renames it.

    Where it cannot be written, on a full disk say, a warning tells so; training goes on and the one before stays.
    """

    def __init__(self) -> None:
        self.last_step: int | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Called by Lightning, in the first process only."""
        # In memory first: torch itself turns a full disk into an error without the reason.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            write_bytes(buffer.getbuffer(), Path(path))
        except OSError as error:
            msg = (
                f"The checkpoint of step {checkpoint['global_step']} could not be written to {str(path)!r} ({error}). "
                f"Training goes on; {self.last()}"
            )
            warnings.warn(msg, UserWarning, stacklevel=2)
        else:
            self.last_step = checkpoint["global_step"]

    def last(self) -> str:
        """Which checkpoint there is, as a clause of a message."""
        if self.last_step is None:
            return "there is no checkpoint yet."
        return f"the last good checkpoint is that of step {self.last_step}."


class Checkpoints(pl.Callback):
    """Keeps a checkpoint that is at most some minutes old.

    Parameters
    ----------
    folder
        Where to.
    minutes
        Between two checkpoints.
    entry
        What the checkpoint must hold besides Lightning's own.
    """

    def __init__(self, folder: Path, minutes: float, entry: dict[str, Any]) -> None:
        self.path, self.minutes, self.entry = folder / CHECKPOINT, minutes, entry
        self.io, self._saved, self._done = AtomicIO(), 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time to; all processes together, since the first one's clock counts."""
        due = trainer.strategy.broadcast(time.monotonic() - self._saved >= 60 * self.minutes)
        # Not with gradients half accumulated, nor between the last step of an epoch and its validation.
        if not due or trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._done = batch_idx + 1
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved = time.monotonic()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add our entry. Weights that are not finite never replace good ones."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in pl_module.parameters()):
            raise RuntimeError(pl_module.not_finite("The weights are not finite", trainer.global_step))
        now = {"seconds": time.monotonic() - pl_module.started, "done": self._done, "log": to_plain(log_of(trainer))}
        checkpoint[ENTRY] = {**self.entry, **now}

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """A checkpoint that training goes on from is a good one."""
        self.io.last_step = checkpoint["global_step"]


class BestWeights(pl.Callback):
    """Remembers the weights of the smallest loss on held-out cells.

    It comes before the averaging of the weights in the list of callbacks, to see the averaged ones at validation.
    """

    def __init__(self) -> None:
        self.loss = float("inf")
        self.weights: dict[str, torch.Tensor] = {}
        self._now: dict[str, torch.Tensor] = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy what was validated."""
        self._now = {name: value.detach().clone() for name, value in pl_module.named_parameters()}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep it where it is the best."""
        loss = float(trainer.callback_metrics["validation_loss"])
        if loss < self.loss:
            self.loss, self.weights = loss, self._now

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"loss": self.loss, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.loss, self.weights = state_dict["loss"], state_dict["weights"]

    def restore(self, pl_module: pl.LightningModule) -> None:
        """Go back to the best weights, where there are any."""
        with torch.no_grad():
            for name, value in pl_module.named_parameters() if self.weights else ():
                value.copy_(self.weights[name])


def checkpoint_paths(
    checkpoint_dir: str | Path | None, checkpoint_minutes: float, resume_from: str | Path | None
) -> tuple[Path | None, Path | None]:
    """The folder to write checkpoints to and the file to go on from, checked before any work.

    Raises
    ------
    FileExistsError
        Where the folder holds a checkpoint that this call does not go on from.
    FileNotFoundError
        Where there is no checkpoint to go on from.
    ValueError
        For an interval that is not positive, and for "auto" without a folder.
    """
    check_path("checkpoint_dir", checkpoint_dir)
    check_path("resume_from", resume_from)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir)
    check_number("checkpoint_minutes", checkpoint_minutes, 0, above=True)
    if folder is not None and folder.exists() and not folder.is_dir():
        msg = f"checkpoint_dir={str(folder)!r} is a file: name a folder."
        raise ValueError(msg)
    if resume_from == "auto":
        if folder is None:
            msg = "resume_from='auto' goes on from what is in checkpoint_dir=: pass that too."
            raise ValueError(msg)
        resume_from = folder if (folder / CHECKPOINT).exists() else None
    elif folder is not None and resume_from is None and (folder / CHECKPOINT).exists():
        msg = (
            f"{str(folder)!r} holds a checkpoint of an earlier run. Pass resume_from='auto' to go on from it, or "
            "delete it."
        )
        raise FileExistsError(msg)
    source = None if resume_from is None else Path(resume_from)
    if source is not None and source.is_dir():
        source /= CHECKPOINT
    if source is not None and not source.is_file():
        msg = f"There is no checkpoint {str(source)!r}: name a folder that checkpoint_dir= has made, or its file."
        raise FileNotFoundError(msg)
    return folder, source


def read_entry(path: Path, run: dict[str, str]) -> dict[str, Any]:
    """Our entry of a checkpoint, and under "module" the state of the module.

    Parameters
    ----------
    path
        File.
    run
        What this call does, by name. The run of the checkpoint must have done the same.

    Raises
    ------
    ValueError
        For a file that is no checkpoint of ours, and for one of another run.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        entry = {**checkpoint[ENTRY], "module": module_state(checkpoint["state_dict"])}
    except Exception as error:  # torch raises whatever the broken bytes lead to
        msg = f"{str(path)!r} is no checkpoint of train(checkpoint_dir=...): {error}"
        raise ValueError(msg) from error
    differing = [name for name in {**entry["run"], **run} if entry["run"].get(name) != run.get(name)]
    if differing:
        parts = [f"{name} was {entry['run'].get(name)} and is now {run.get(name)}" for name in differing]
        msg = (
            f"The checkpoint {str(path)!r} belongs to another run: {'; '.join(parts)}. Set up and train with the same "
            "data and arguments to go on from it."
        )
        raise ValueError(msg)
    return entry


def module_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State of the module from that of the training plan."""
    prefix = "module."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def log_of(trainer: pl.Trainer) -> dict[str, pd.DataFrame]:
    """History so far, which only the first process has."""
    if trainer.is_global_zero and isinstance(trainer.logger, SimpleLogger):
        return trainer.logger.experiment.data
    return {}


def to_plain(history: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """History in types that torch loads without trust."""
    return {
        name: {"axis": frame.index.name, "index": frame.index.tolist(), "values": [float(v) for v in frame.iloc[:, 0]]}
        for name, frame in history.items()
    }


def from_plain(plain: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """The other way round."""
    return {
        name: pd.DataFrame({name: part["values"]}, index=pd.Index(part["index"], name=part["axis"]), dtype=float)
        for name, part in plain.items()
    }
