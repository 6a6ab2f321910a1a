"""Where a training run begins and ends: afresh, after an earlier call, or in the middle of one that was killed."""

from __future__ import annotations

import copy
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from scgde.models._checkpoints import from_plain, read_entry, to_plain
from scgde.models._module import GDEModule
from scgde.models._training import Budget

if TYPE_CHECKING:
    from pathlib import Path

    from scgde.data import GroupedObs
    from scgde.models._gde import GDE

#: Epochs where no limit is set.
MAX_EPOCHS = 15

#: Options of Lightning's trainer that change what is computed, not only how or where.
COMPUTED = ("accumulate_grad_batches", "gradient_clip_val", "precision")


@dataclass(frozen=True)
class Limits:
    """The limits that a user sets; None: no such limit."""

    max_epochs: int | None
    max_steps: int | None
    max_seconds: float | None

    def budget(self, steps_per_epoch: int) -> Budget:
        """In steps and seconds."""
        max_epochs = self.max_epochs
        if max_epochs is None and self.max_steps is None and self.max_seconds is None:
            max_epochs = MAX_EPOCHS
        limits = [n for n in (self.max_steps, max_epochs and max_epochs * steps_per_epoch) if n]
        return Budget(min(limits) if limits else None, self.max_seconds)


@dataclass(frozen=True)
class Start:
    """What is there when a run begins.

    Parameters
    ----------
    module
        With fitted statistics, or None where they are still to be fitted.
    representation
        Fitted arguments of the representation, or none yet.
    steps
        Steps that earlier calls of ``train`` took.
    skip
        Steps of the current epoch that the killed process took.
    history
        Of the earlier calls.
    """

    module: GDEModule | None = None
    representation: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    skip: int = 0
    history: dict[str, pd.DataFrame] | None = None

    @classmethod
    def of(cls, model: GDE) -> Start:
        """From the model as it is."""
        module = copy.deepcopy(model.module).to("cpu").train() if model.module.built else None
        representation = model.representation_ if model.spec_ else {}
        return cls(module, representation, model.steps_, history=model.history_)

    @classmethod
    def resumed(cls, path: Path, run: dict[str, str]) -> Start:
        """From a checkpoint of the same run; weights, optimiser and the rest come back through Lightning."""
        entry = read_entry(path, run)
        module = GDEModule()
        module.build(**entry["spec"])
        module.load_state_dict(entry["module"])
        arrays = {name: v.numpy() if isinstance(v, torch.Tensor) else v for name, v in entry["representation"].items()}
        return cls(module, arrays, entry["steps"], entry["done"], from_plain(entry["history"]))

    def entry(self, run: dict[str, str], module: GDEModule, representation: dict[str, Any]) -> dict[str, Any]:
        """For :meth:`resumed`, in types that a checkpoint may hold."""
        tensors = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in representation.items()}
        history = to_plain(self.history or {})
        return {"run": run, "spec": module.spec, "representation": tensors, "steps": self.steps, "history": history}


def run_of(
    model: GDE,
    obs: GroupedObs,
    split: dict[str, np.ndarray],
    labels: torch.Tensor | None,
    arguments: dict[str, Any],
    trainer_kwargs: dict[str, Any],
) -> dict[str, str]:
    """What a run is a function of, as text by name: a checkpoint belongs to the run that has the same."""
    state = model.registry_["field_registries"]["X"]["state_registry"]
    values = {
        "the model": type(model).__name__,
        "the data": state["fingerprint"],
        "the split": _checksum(split["train"], split["validation"]),
        "labels": _checksum(labels),
        "weights": _checksum(obs.weight),
        "group_weighting": _checksum(obs.group_weight),
        "batches": _checksum(model._batch_codes(obs)),
        **model.options,
        **arguments,
        **{name: trainer_kwargs[name] for name in COMPUTED if name in trainer_kwargs},
    }
    return {name: str(value) for name, value in values.items()}


def _checksum(*arrays: Any) -> int:
    check = 0
    for array in arrays:
        if array is not None:
            check = zlib.crc32(np.ascontiguousarray(array).tobytes(), check)
    return check
