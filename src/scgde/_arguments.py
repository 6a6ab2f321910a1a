"""Checks of single arguments: what was received, what was expected."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np

#: No count and no seed is larger: they become 32-bit and 64-bit integers.
MAX_COUNT, MAX_SEED = 2**31 - 1, 2**63 - 1


def shown(value: Any, limit: int = 60) -> str:
    """A value as a message shows it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else f"{text[:limit]}…"


def _refuse(name: str, value: Any, expected: str, *, optional: bool, kind: bool) -> None:
    msg = f"{name}={shown(value)}: expected {expected}{', or None' if optional else ''}."
    raise TypeError(msg) if kind else ValueError(msg)


def check_count(name: str, value: Any, least: int = 1, *, most: int = MAX_COUNT, optional: bool = False) -> None:
    """Raise unless ``value`` is an integer from ``least`` to ``most``, or None where it is ``optional``."""
    if value is None and optional:
        return
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        expected = f"an integer of at least {least}" + (f" and at most {most}" if whole and value > most else "")
        _refuse(name, value, expected, optional=optional, kind=not isinstance(value, Real) or isinstance(value, bool))


def check_seed(value: Any, name: str = "seed") -> None:
    """Raise unless ``value`` is an integer that the generators take."""
    check_count(name, value, 0, most=MAX_SEED)


def check_number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    optional: bool = False,
) -> None:
    """Raise unless ``value`` is a finite number in [low, high], or above ``low``, or None where it is ``optional``."""
    if value is None and optional:
        return
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high or (above and value == low):
        if above:
            expected = "a positive number" if low == 0 else f"a number above {low:g}"
        elif math.isfinite(high):
            expected = f"a number from {low:g} to {high:g}"
        else:
            expected = f"a number of at least {low:g}" if math.isfinite(low) else "a finite number"
        _refuse(name, value, expected, optional=optional, kind=not real)


def check_text(name: str, value: Any, what: str, *, optional: bool = False) -> None:
    """Raise unless ``value`` is text, or None where it is ``optional``."""
    if not (isinstance(value, str) and value) and not (value is None and optional):
        _refuse(name, value, f"{what}, as text", optional=optional, kind=not isinstance(value, str))


def check_flags(**values: Any) -> None:
    """Raise unless all are True or False."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            _refuse(name, value, "True or False", optional=False, kind=True)


def check_path(name: str, value: Any) -> None:
    """Raise unless ``value`` is a path, or None."""
    if value is not None and (not isinstance(value, str | PathLike) or not str(value)):
        _refuse(name, value, "a path", optional=True, kind=not isinstance(value, str))


def check_names(name: str, value: Any, what: str) -> None:
    """Raise unless ``value`` is text, or a list of it."""
    several = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
    if not isinstance(value, str) and not several:
        _refuse(name, value, f"{what}, as text or a list of text", optional=False, kind=True)


def check_options(name: str, value: Any, known: Iterable[str] | None = None) -> None:
    """Raise unless ``value`` is a dict from names to values, all of which are ``known``."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        _refuse(name, value, "a dict from names of options to values", optional=True, kind=True)
    unknown = [] if known is None else [key for key in value if key not in (known := list(known))]
    if unknown:
        msg = f"{name}= has unknown option(s) {', '.join(map(repr, unknown))}; there are {', '.join(known or ())}."
        raise TypeError(msg)


def options_of(function: Callable[..., Any]) -> list[str]:
    """Names of the keyword arguments of a function."""
    return [name for name in inspect.signature(function).parameters if name not in {"self", "args", "kwargs"}]
