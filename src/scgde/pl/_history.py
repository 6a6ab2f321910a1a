"""Training curves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator

from ._color import palette
from ._style import finish, legend_columns, new_axes, shorten, style, unknown


def history(
    model: Any,
    *,
    keys: str | Sequence[str] | None = None,
    smooth: int = 1,
    best: Literal["min", "max"] | None = "min",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | PathLike[str] | None = None,
) -> Axes | None:
    """Training and validation curves, with the best validation epoch.

    Parameters
    ----------
    model
        A trained model, or its ``history``: a dictionary of DataFrames of one column, indexed by epoch.
    keys
        Which curves; by default the training and validation loss, or all curves by epoch where there is neither.
    smooth
        Number of epochs in the centred moving average; the curve as recorded stays behind it, pale.
    best
        Mark the lowest (``"min"``) or highest (``"max"``) recorded value of the first validation curve, or nothing.
    ax
        Axes to draw on, instead of a new figure of one journal column.
    show
        Show the figure, and return None.
    save
        Path to save the figure to.

    Returns
    -------
    The axes, or None with ``show=True``.

    Raises
    ------
    KeyError
        If a key is not in the history.
    ValueError
        If there is no history, or ``smooth`` is below 1.
    """
    curves = _read(model, [keys] if isinstance(keys, str) else keys)
    if smooth < 1:
        msg = f"`smooth` is {smooth}, but must be a number of epochs, at least 1 (no smoothing)."
        raise ValueError(msg)
    with style():
        n_columns = min(3 if len(curves) < 3 else 2, legend_columns(map(_label, curves)))
        ax = new_axes(ax, height=2.0 + 0.14 * -(-(len(curves) + 1) // n_columns))
        for (name, curve), color in zip(curves.items(), palette(len(curves)), strict=True):
            _draw(ax, curve, smooth, color=color, ls="-" if _is_validation(name) else "--", label=_label(name))
        validation = next((name for name in curves if _is_validation(name)), None)
        if best is not None and validation is not None:
            _mark_best(ax, curves[validation], best)
        ax.set(xlabel="epoch", ylabel="loss" if all("loss" in name for name in curves) else "value")
        epochs = np.unique(np.concatenate([curve.index for curve in curves.values()]))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True) if len(epochs) > 1 else FixedLocator(epochs.tolist()))
        # above the axes: curves may fill any corner
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=n_columns,
            borderaxespad=0.2,
            handlelength=1.8,
            columnspacing=1,
        )
        return finish(ax, show=show, save=save)


def _read(model: Any, keys: Sequence[str] | None) -> dict[str, pd.Series]:
    """Read the recorded curves by key, without the epochs at which nothing was recorded."""
    record = model if isinstance(model, Mapping) else getattr(model, "history", None)
    if not record:
        msg = "There is no training history. Call `model.train()` first."
        raise ValueError(msg)
    missing = [key for key in keys or [] if key not in record]
    if missing:
        raise KeyError(unknown("History key", missing[0], list(record), "Give keys of `model.history`."))
    curves = {key: _series(record[key]) for key in keys or _default_keys(record)}
    curves = {key: curve for key, curve in curves.items() if len(curve)}
    if not curves:
        msg = f"No finite value was recorded for {list(keys or record)}. Train for longer, or give other keys."
        raise ValueError(msg)
    return curves


def _series(recorded: pd.DataFrame | pd.Series) -> pd.Series:
    column = recorded.iloc[:, 0] if isinstance(recorded, pd.DataFrame) else recorded
    return pd.to_numeric(column).astype(float).replace([np.inf, -np.inf], np.nan).dropna()


def _default_keys(record: Mapping[str, Any]) -> list[str]:
    by_epoch = [key for key in record if not key.endswith("_step")]
    losses = [key for key in by_epoch if re.fullmatch(r"(train|validation)_loss(_epoch)?", key)]
    # scvi-tools records the training loss under both names
    twice = {key for key in losses if f"{key}_epoch" in losses}
    return [key for key in losses if key not in twice] or by_epoch or list(record)


def _is_validation(name: str) -> bool:
    return "validation" in name or name.startswith("val_")


def _label(name: str) -> str:
    return shorten(name.removesuffix("_epoch").replace("_", " "), 24)


def _draw(ax: Axes, curve: pd.Series, smooth: int, **line: Any) -> None:
    # a single epoch is a point, which a line would not show
    marker = "o" if len(curve) == 1 else ""
    if smooth > 1:
        ax.plot(curve.index, curve, lw=0.6, alpha=0.3, marker=marker, ms=3, **{**line, "label": "_recorded"})
        curve = curve.rolling(smooth, center=True, min_periods=1).mean()
    ax.plot(curve.index, curve, lw=1.1, marker=marker, ms=3, **line)


def _mark_best(ax: Axes, curve: pd.Series, best: str) -> None:
    at = int(curve.argmin() if best == "min" else curve.argmax())
    epoch, value = curve.index[at], curve.iloc[at]
    ax.axvline(epoch, color="0.4", lw=0.6, ls=":", zorder=1)
    label = f"best: epoch {epoch}"
    ax.plot(epoch, value, marker="v", ms=4, mfc="black", mec="white", mew=0.4, ls="", zorder=5, label=label)
