"""CellRank on forecasts: terminal states, fate probabilities and driver genes from transported cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData

from scgde._validation import check_anndata, check_columns, check_finite, listing
from scgde.data._representation import Representation
from scgde.data._times import time_values
from scgde.external._transitions import transition_matrix
from scgde.models._fates import BATCH_SIZE

try:
    from cellrank.kernels import PrecomputedKernel
except ImportError as error:
    msg = (
        f"scgde.external.cellrank needs CellRank, which could not be imported ({error}). "
        'Install it with: pip install "scgde[cellrank]".'
    )
    raise ImportError(msg) from error

__all__ = ["kernel", "transition_matrix"]


def kernel(
    adata: AnnData,
    forecasts: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    time_key: str,
    use_rep: str | np.ndarray | None = None,
    n_neighbors: int = 20,
    weighting: str = "gaussian",
    batch_size: int = BATCH_SIZE,
) -> PrecomputedKernel:
    """Make a CellRank kernel of forecasts between consecutive times.

    Cells go to the real cells of the next time near their forecast (cells that were not forecast: near themselves), and
    those of the last time diffuse among themselves; see :func:`scgde.external.transition_matrix`.

    Parameters
    ----------
    adata
        Cells of all times.
    forecasts
        For each time but the last, in their order: the rows of ``adata`` that were forecast (whole numbers), and their
        positions at the next time, shape (rows, features), in the representation.
    time_key
        Column of ``adata.obs`` with the times: numbers, text that holds numbers, or an ordered categorical.
    use_rep
        The representation: a key of ``adata.obsm``, "X", or an array of shape (n_cells, features). By default X if it
        is small, else ``adata.obsm["X_pca"]``.
    n_neighbors
        Number of real cells that a forecast is connected to.
    weighting
        How neighbours at different distances count: "gaussian" or "uniform".
    batch_size
        Number of cells whose neighbours are looked up at a time.

    Returns
    -------
    A kernel with a sparse transition matrix whose rows sum to 1, to be combined with other kernels and passed to
    CellRank's estimators. Its ``params`` hold the settings and ``n_not_forecast``, the number of cells before the last
    time that were not forecast.

    Raises
    ------
    KeyError
        For a column or a representation that ``adata`` lacks.
    ValueError
        For cells without a time, times without an order, and forecasts that do not fit.

    Notes
    -----
    Terminal states lie at the last time, which no cell leaves: name them by the cells' labels there, as below.
    States that an estimator looks for in this chain may lie at earlier times, since a cell whose fate is already
    certain is as typical of the fate as the cells at the end.

    Examples
    --------
    >>> from cellrank.estimators import GPCCA  # doctest: +SKIP
    >>> from scgde.external.cellrank import kernel  # doctest: +SKIP
    >>> estimator = GPCCA(kernel(adata, forecasts, time_key="day", use_rep="X_pca"))  # doctest: +SKIP
    >>> last = adata.obs["cell_type"].where(adata.obs["day"] == 6)  # doctest: +SKIP
    >>> estimator.set_terminal_states(last.cat.remove_unused_categories())  # doctest: +SKIP
    >>> estimator.compute_fate_probabilities()  # doctest: +SKIP
    """
    check_anndata(adata)
    codes = _time_codes(adata, time_key)
    matrix = transition_matrix(
        _features(adata, use_rep),
        codes,
        forecasts,
        n_neighbors=n_neighbors,
        weighting=weighting,
        batch_size=batch_size,
    )
    made = PrecomputedKernel(matrix, adata=adata)
    n_before_last = int((codes < codes.max()).sum())
    made.params.update(
        origin="scgde",
        time_key=time_key,
        n_neighbors=n_neighbors,
        weighting=weighting,
        n_not_forecast=n_before_last - sum(len(rows) for rows, _ in forecasts),
    )
    return made


def _time_codes(adata: AnnData, time_key: str) -> np.ndarray:
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


def _features(adata: AnnData, use_rep: str | np.ndarray | None) -> np.ndarray:
    if isinstance(use_rep, np.ndarray):
        if use_rep.ndim != 2 or len(use_rep) != adata.n_obs:
            msg = f"use_rep has shape {use_rep.shape}, expected (n_cells, n_features) with {adata.n_obs:,} cells."
            raise ValueError(msg)
        return use_rep
    representation = Representation.choose(adata, use_rep, None)
    if representation.project:
        msg = (
            f"adata.X has {adata.n_vars:,} variables, and there is no adata.obsm['X_pca']. Pass the features that the "
            "forecasts are in as use_rep=: a key of adata.obsm, or an array of shape (n_cells, n_features)."
        )
        raise ValueError(msg)
    check_finite(representation.raw(adata), adata.obs_names, representation.name)
    return representation.read(adata)
