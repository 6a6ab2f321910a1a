"""What a chain over all cells needs from a trained model: cells, times and forecasts, as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from anndata import AnnData

from scgde._validation import check_columns, listing
from scgde.data._times import time_values

if TYPE_CHECKING:
    from scgde import TDE


class TimeCourse(NamedTuple):
    """Cells of several times with their forecasts, as :func:`transition_matrix` reads them.

    Parameters
    ----------
    x
        (n_cells, features) cells in the representation of the model, in the order of their AnnData.
    time_codes
        (n_cells,) number of each cell's time in the order of times.
    forecasts
        For each time but the last, the rows that were forecast and their positions at the next time.
    """

    x: np.ndarray
    time_codes: np.ndarray
    forecasts: list[tuple[np.ndarray, np.ndarray]]


def time_course(
    model: TDE, adata: AnnData | None = None, *, batch_size: int | None = None, progress: bool = False
) -> TimeCourse:
    """Forecast the cells of each time to the next one.

    All groups are forecast, those too that are seen at the next time: what their cells become is then judged in the
    same way for all cells.

    Parameters
    ----------
    model
        A trained model with a forecaster for each pair of consecutive times of ``adata``.
    adata
        Cells of two or more times; by default the training data. Its times are the steps of the chain: leave out the
        cells of a time to step over it. Cells without a group are not forecast.
    batch_size
        Cells to move at a time.
    progress
        Whether to show progress bars.

    Returns
    -------
    Arrays for :func:`transition_matrix`: ``transition_matrix(*time_course(model))``.

    Raises
    ------
    RuntimeError
        For a pair of consecutive times without a forecaster.
    TypeError
        For a model that does not forecast.
    ValueError
        For a model without times, a single time, cells without a time and cells of the same name.
    """
    time_key = _time_key(model)
    data, obs = model._read(adata)
    if not data.obs_names.is_unique:
        twice = data.obs_names[data.obs_names.duplicated()].unique()
        msg = (
            f"Several cells have the same name ({listing(twice)}), so that forecasts cannot be told apart. "
            "Make the names unique: adata.obs_names_make_unique()."
        )
        raise ValueError(msg)
    codes = time_codes(data, time_key)
    times = data.obs[time_key].iloc[np.unique(codes, return_index=True)[1]].tolist()
    if len(times) < 2:
        msg = f"All cells are of time {times[0]!r} (adata.obs[{time_key!r}]); a chain needs at least two times."
        raise ValueError(msg)
    pairs = list(zip(times[:-1], times[1:], strict=True))
    for pair in pairs:
        model._fitted_forecaster(*pair)
    forecasts = []
    for source, target in pairs:
        cells = model.forecast(source, target, data, groups="all", batch_size=batch_size, progress=progress)
        forecasts.append((data.obs_names.get_indexer(cells.obs_names), np.asarray(cells.X)))
    return TimeCourse(np.asarray(model.representation.read(data)), codes, forecasts)


def time_codes(adata: AnnData, time_key: str) -> np.ndarray:
    """Number of each cell's time in the order of times, (n_cells,) from 0 on.

    Raises
    ------
    KeyError
        For a column that ``adata`` lacks.
    ValueError
        For cells without a time, and times without an order.
    """
    check_columns(adata, [time_key], "time_key")
    column = adata.obs[time_key]
    missing = column.isna().to_numpy()
    if missing.any():
        msg = (
            f"{missing.sum():,} of {len(missing):,} cells have no time in adata.obs[{time_key!r}] (cells "
            f"{listing(adata.obs_names[missing])}). A chain needs the time of each cell: remove these cells first."
        )
        raise ValueError(msg)
    return np.unique(time_values(column), return_inverse=True)[1]


def _time_key(model: TDE) -> str:
    if not hasattr(model, "forecast"):
        msg = f"Received {type(model).__name__}, which does not forecast. Pass a trained TDE."
        raise TypeError(msg)
    if model.setup.time_key is None:
        msg = "The model knows no times, which a chain follows. Set it up with time_key=, train it and fit forecasters."
        raise ValueError(msg)
    return model.setup.time_key
