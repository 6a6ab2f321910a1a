"""A Markov chain over all cells from forecasts between consecutive times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from scgde.models._fates import BATCH_SIZE, neighbor_graph


def transition_matrix(
    x: np.ndarray,
    time_codes: np.ndarray,
    forecasts: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    n_neighbors: int = 20,
    weighting: str = "gaussian",
    batch_size: int = BATCH_SIZE,
) -> sparse.csr_matrix:
    """Transition probabilities between cells: each cell goes to the real cells of the next time near its forecast.

    A cell that was not forecast goes to the cells of the next time that lie nearest to where it is: without a model of
    its change, no change is assumed. A loop would make it a terminal state instead. Cells of the last time diffuse
    among themselves on their symmetrised neighbour graph, loops included, and never leave it: a reversible walk, as in
    CellRank's ``RealTimeKernel``.

    Parameters
    ----------
    x
        All cells, shape (n_cells, features).
    time_codes
        (n_cells,) number of each cell's time in the order of times: 0, 1, …, each with at least one cell.
    forecasts
        For each time but the last, the rows of ``x`` that were forecast, and their positions at the next time in the
        features of ``x``, shape (rows, features).
    n_neighbors
        Number of real cells that a forecast is connected to; all of a time where it has fewer.
    weighting
        How neighbours at different distances count: "gaussian", with the width of each row's own distances, or
        "uniform".
    batch_size
        Number of cells whose neighbours are looked up at a time.

    Returns
    -------
    Sparse matrix, shape (n_cells, n_cells), float64; rows sum to 1.

    Raises
    ------
    ValueError
        For shapes, times or rows that do not fit, NaN, and options out of range.
    """
    rows_of_time = _rows_of_times(time_codes, len(x))
    _check_forecasts(forecasts, rows_of_time, x)
    x = np.asarray(x, dtype=np.result_type(x, np.float32))
    blocks = []
    for here, there, (rows, positions) in zip(rows_of_time[:-1], rows_of_time[1:], forecasts, strict=True):
        expected = x[here]
        expected[np.searchsorted(here, rows)] = positions
        blocks.append(neighbor_graph(expected, x[there], n_neighbors, weighting=weighting, batch_size=batch_size))
    last = x[rows_of_time[-1]]
    diffusion = neighbor_graph(last, last, n_neighbors, weighting=weighting, batch_size=batch_size)
    diffusion = diffusion + diffusion.T
    blocks.append(sparse.diags(1 / np.asarray(diffusion.sum(axis=1)).ravel()) @ diffusion)
    targets = [*rows_of_time[1:], rows_of_time[-1]]
    entries = [block.tocoo() for block in blocks]
    row = np.concatenate([rows[block.row] for rows, block in zip(rows_of_time, entries, strict=True)])
    column = np.concatenate([cells[block.col] for cells, block in zip(targets, entries, strict=True)])
    values = np.concatenate([block.data for block in entries])
    return sparse.csr_matrix((values, (row, column)), shape=(len(x), len(x)))


def _rows_of_times(time_codes: np.ndarray, n_cells: int) -> list[np.ndarray]:
    codes = np.asarray(time_codes)
    valid = codes.shape == (n_cells,) and n_cells > 0 and np.issubdtype(codes.dtype, np.integer)
    if not valid or codes.min() < 0 or not np.bincount(codes).all():
        msg = (
            f"time_codes has shape {codes.shape} and holds {codes.dtype}, {len(np.unique(codes))} different values: "
            f"expected for each of {n_cells:,} cells the number of its time, 0, 1, …, with at least one cell a time. "
            "Leave out cells without a time, and times without a cell."
        )
        raise ValueError(msg)
    return [np.flatnonzero(codes == t) for t in range(codes.max() + 1)]


def _check_forecasts(
    forecasts: Sequence[tuple[np.ndarray, np.ndarray]], rows_of_time: list[np.ndarray], x: np.ndarray
) -> None:
    if len(forecasts) != len(rows_of_time) - 1:
        msg = (
            f"There are {len(forecasts)} forecasts and {len(rows_of_time)} times. Give one forecast for each pair of "
            "consecutive times, in the order of times."
        )
        raise ValueError(msg)
    for t, (rows, positions) in enumerate(forecasts):
        if np.shape(positions) != (len(rows), x.shape[1]) or not len(rows):
            msg = (
                f"Forecast {t} has {len(rows)} rows and positions of shape {np.shape(positions)}. Expected at least "
                f"one row, and positions of shape (rows, {x.shape[1]}), in the representation of the cells."
            )
            raise ValueError(msg)
        elsewhere = np.setdiff1d(rows, rows_of_time[t])
        if len(elsewhere) or len(np.unique(rows)) < len(rows):
            what = f"{len(elsewhere)} rows of other times" if len(elsewhere) else "some rows more than once"
            msg = f"Forecast {t} holds {what}. Give each cell of time {t} that was forecast once, and no other."
            raise ValueError(msg)
