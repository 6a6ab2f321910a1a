"""What becomes of transported cells, read off the real cells that lie nearest to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

#: Transported cells whose neighbours are looked up at a time.
BATCH_SIZE = 4096


def _gaussian(distance: np.ndarray) -> np.ndarray:
    squared = np.square(distance, dtype=np.float64)
    # Cells that all coincide have no scale, and share the weight equally.
    scale = squared.mean(axis=1, keepdims=True)
    return np.exp(-squared / (2 * np.where(scale > 0, scale, 1)))


#: Weights, up to a factor for each row, of neighbours at distances of shape (rows, neighbours).
WEIGHTINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"uniform": np.ones_like, "gaussian": _gaussian}


def neighbor_graph(
    x_forecast: np.ndarray,
    x_reference: np.ndarray,
    n_neighbors: int,
    *,
    weighting: str = "gaussian",
    weight: np.ndarray | None = None,
    batch_size: int = BATCH_SIZE,
) -> sparse.csr_matrix:
    """Connect each transported cell to the real cells nearest to it.

    Parameters
    ----------
    x_forecast
        Transported cells, shape (n, features).
    x_reference
        Real cells, shape (m, features).
    n_neighbors
        Number of neighbours; all real cells where there are fewer.
    weighting
        "uniform": neighbours count equally. "gaussian": they count ``exp(-d^2 / (2 s^2))``, ``d`` the Euclidean
        distance and ``s^2`` its mean square over the row's own neighbours, so that sparse and dense regions, and cells
        transported near the real ones or off them, have kernels of the same relative width.
    weight
        (m,) masses of the real cells, which multiply the weights; equal by default. Cells of mass 0 are no neighbours.
    batch_size
        Number of transported cells at a time. Neighbours are exact, and the same for any batch size.

    Returns
    -------
    Weights, shape (n, m), float64; rows sum to 1 and hold at most ``n_neighbors`` entries.

    Raises
    ------
    ValueError
        For shapes that do not fit, NaN, no real cell of positive mass, and options out of range.
    """
    mass = _masses(weight, len(x_reference))
    kept = np.flatnonzero(mass)
    blocks = list(_neighbor_blocks(x_forecast, x_reference[kept], mass[kept], n_neighbors, weighting, batch_size))
    index = np.concatenate([kept[index] for _, index, _ in blocks]) if blocks else np.empty((0, 1), dtype=np.int64)
    values = np.concatenate([values for _, _, values in blocks]) if blocks else np.empty((0, 1))
    pointer = np.arange(len(x_forecast) + 1) * index.shape[1]
    graph = sparse.csr_matrix((values.ravel(), index.ravel(), pointer), shape=(len(x_forecast), len(x_reference)))
    graph.sort_indices()
    return graph


def neighbor_fates(
    x_forecast: np.ndarray,
    x_reference: np.ndarray,
    label_codes: np.ndarray,
    n_labels: int,
    *,
    n_neighbors: int = 20,
    weight: np.ndarray | None = None,
    weighting: str = "uniform",
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Share of each label among the real cells nearest to each transported cell.

    Parameters
    ----------
    x_forecast
        Transported cells, shape (n, features).
    x_reference
        Real cells at the target time, shape (m, features).
    label_codes
        (m,) label of each real cell, in 0 … ``n_labels`` - 1; -1 where it is not known. Cells of unknown label are left
        out before neighbours are looked for, so that each transported cell has its full number of neighbours.
    n_labels
        Number of labels.
    n_neighbors
        Number of neighbours; all labelled cells where there are fewer.
    weight
        (m,) masses of the real cells; equal by default. Cells of mass 0 are no neighbours.
    weighting
        How neighbours at different distances count, see :func:`neighbor_graph`.
    batch_size
        Number of transported cells at a time: besides input and result, memory does not grow with n.

    Returns
    -------
    Probabilities, shape (n, n_labels), float32; rows sum to 1.

    Raises
    ------
    ValueError
        As :func:`neighbor_graph`, and for codes out of range or unknown for all cells.
    """
    codes = _codes(label_codes, len(x_reference), n_labels, "label_codes")
    mass = _masses(weight, len(x_reference))
    kept = np.flatnonzero((codes >= 0) & (mass > 0))
    if not len(kept):
        msg = (
            f"None of the {len(codes):,} real cells has a label and positive mass, so there is nothing to read fates "
            "off. Choose a column of labels that is filled in at the target time."
        )
        raise ValueError(msg)
    labels = codes[kept]
    fates = np.empty((len(x_forecast), n_labels), dtype=np.float32)
    for part, index, values in _neighbor_blocks(
        x_forecast, x_reference[kept], mass[kept], n_neighbors, weighting, batch_size
    ):
        flat = np.arange(len(index))[:, None] * n_labels + labels[index]
        shares = np.bincount(flat.ravel(), weights=values.ravel(), minlength=len(index) * n_labels)
        fates[part] = shares.reshape(-1, n_labels)
    return fates


def group_fates(
    cell_probabilities: np.ndarray, codes: np.ndarray, n_groups: int, weight: np.ndarray | None = None
) -> np.ndarray:
    """Mean fate of the cells of each group.

    Parameters
    ----------
    cell_probabilities
        Fates of cells, shape (n, labels). Cells with NaN, which were not transported, do not count.
    codes
        (n,) group of each cell, in 0 … ``n_groups`` - 1; -1 for cells of no group.
    n_groups
        Number of groups.
    weight
        (n,) masses of the cells; equal by default.

    Returns
    -------
    Probabilities, shape (n_groups, labels), float32; rows sum to 1, and are NaN for groups without a cell that counts.

    Raises
    ------
    ValueError
        For shapes that do not fit, codes out of range and weights that are negative or not finite.
    """
    n_cells = len(cell_probabilities)
    codes = _codes(codes, n_cells, n_groups, "codes")
    mass = np.ones(n_cells) if weight is None else _masses(weight, n_cells)
    rows = np.flatnonzero((codes >= 0) & (mass > 0) & np.isfinite(cell_probabilities).all(axis=1))
    members = sparse.csr_matrix((mass[rows], (codes[rows], rows)), shape=(n_groups, n_cells))
    total = np.asarray(members.sum(axis=1))
    sums = members @ cell_probabilities
    means = np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)
    return means.astype(np.float32)


def _neighbor_blocks(
    x_forecast: np.ndarray,
    x_reference: np.ndarray,
    mass: np.ndarray,
    n_neighbors: int,
    weighting: str,
    batch_size: int,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """For blocks of transported cells: which, their neighbours, and the weights of these, which sum to 1."""
    _check_options(n_neighbors, weighting, batch_size)
    _check_cells(x_forecast, x_reference)
    dtype = np.result_type(x_forecast, x_reference, np.float32)
    nearest = NearestNeighbors(n_neighbors=min(n_neighbors, len(x_reference)))
    nearest.fit(np.ascontiguousarray(x_reference, dtype=dtype))
    for start in range(0, len(x_forecast), batch_size):
        part = slice(start, min(start + batch_size, len(x_forecast)))
        distance, index = nearest.kneighbors(np.ascontiguousarray(x_forecast[part], dtype=dtype))
        values = WEIGHTINGS[weighting](distance) * mass[index]
        yield part, index, values / values.sum(axis=1, keepdims=True, dtype=np.float64)


def _check_options(n_neighbors: int, weighting: str, batch_size: int) -> None:
    if weighting not in WEIGHTINGS:
        msg = f"weighting={weighting!r} is unknown. Choose from {sorted(WEIGHTINGS)}."
        raise ValueError(msg)
    for name, value in (("n_neighbors", n_neighbors), ("batch_size", batch_size)):
        if value != int(value) or value < 1:
            msg = f"{name}={value!r} is no number of cells. Give a whole number of at least 1."
            raise ValueError(msg)


def _check_cells(x_forecast: np.ndarray, x_reference: np.ndarray) -> None:
    if x_forecast.ndim != 2 or x_reference.ndim != 2 or x_forecast.shape[1] != x_reference.shape[1]:
        msg = (
            f"The transported cells have shape {x_forecast.shape}, the real cells {x_reference.shape}. Expected "
            "(n_cells, n_features) with the same features: give both in the same representation."
        )
        raise ValueError(msg)
    for name, x in (("transported", x_forecast), ("real", x_reference)):
        bad = ~np.isfinite(x).all(axis=1)
        if bad.any():
            msg = (
                f"{bad.sum():,} of {len(x):,} {name} cells hold NaN or infinity (the first in row {bad.argmax()}). "
                "Leave these cells out: cells that were not transported have no neighbours."
            )
            raise ValueError(msg)


def _codes(codes: np.ndarray, n_cells: int, n_levels: int, name: str) -> np.ndarray:
    codes = np.asarray(codes)
    whole = np.issubdtype(codes.dtype, np.integer)
    if codes.shape != (n_cells,) or not whole or ((codes < -1) | (codes >= n_levels)).any():
        span = f" from {codes.min()} to {codes.max()}" if whole and codes.size else ""
        msg = (
            f"{name} has shape {codes.shape} and holds {codes.dtype}{span}: expected whole numbers from -1 (unknown) "
            f"to {n_levels - 1} for each of {n_cells:,} cells. Give the codes of a categorical column."
        )
        raise ValueError(msg)
    return codes


def _masses(weight: np.ndarray | None, n_cells: int) -> np.ndarray:
    mass = np.ones(n_cells) if weight is None else np.asarray(weight, dtype=np.float64)
    if mass.shape != (n_cells,) or not np.isfinite(mass).all() or (mass < 0).any() or not mass.any():
        msg = (
            f"weight has shape {mass.shape}: expected one finite number of at least 0 for each of {n_cells:,} cells, "
            "and at least one cell of positive mass."
        )
        raise ValueError(msg)
    return mass / mass.max()
