"""Checks of the arguments of ``train``, before any work."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from scgde._arguments import check_count, check_number, check_options, options_of, shown
from scgde.models._start import Limits

#: Options of the training plan that are numbers: lowest and highest value.
PLAN_NUMBERS: dict[str, tuple[float, float]] = {
    "lr": (0.0, float("inf")),
    "weight_decay": (0.0, float("inf")),
    "ema_decay": (0.0, 1.0),
    "reconstruction_weight": (0.0, float("inf")),
}


def check_training(
    limits: Limits,
    sizes: tuple[Any, Any],
    validation_size: Any,
    patience: Any,
    plan_kwargs: dict[str, Any],
    trainer_kwargs: dict[str, Any],
) -> None:
    """Raise for limits and sizes that make no sense, and for options that do not exist.

    Raises
    ------
    TypeError
        For values of other types, and unknown options.
    ValueError
        For numbers out of range.
    """
    check_count("max_epochs", limits.max_epochs, optional=True)
    check_count("max_steps", limits.max_steps, optional=True)
    check_number("max_seconds", limits.max_seconds, 0, above=True, optional=True)
    for name, value in zip(("batch_size", "cells_per_group"), sizes, strict=True):
        check_count(name, value)
    check_number("validation_size", validation_size, optional=True)
    check_count("early_stopping_patience", patience)
    check_options("plan_kwargs", plan_kwargs, [*PLAN_NUMBERS, "warmup_steps", "labels_weight"])
    for name, (low, high) in PLAN_NUMBERS.items():
        if name in plan_kwargs:
            check_number(f"plan_kwargs: {name}", plan_kwargs[name], low, high)
    check_count("plan_kwargs: warmup_steps", plan_kwargs.get("warmup_steps", 1))
    check_number("plan_kwargs: labels_weight", plan_kwargs.get("labels_weight"), 0, optional=True)
    known = options_of(pl.Trainer.__init__)
    unknown = [name for name in trainer_kwargs if name not in known]
    if unknown:
        msg = f"train() got unexpected argument(s) {', '.join(unknown)}: not its own, nor of lightning.pytorch.Trainer."
        raise TypeError(msg)
    callbacks = trainer_kwargs.get("callbacks", [])
    several = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    if callbacks is not None and not all(isinstance(callback, pl.Callback) for callback in several):
        msg = f"callbacks={shown(callbacks)}: expected a Lightning callback, or a list of them."
        raise TypeError(msg)
