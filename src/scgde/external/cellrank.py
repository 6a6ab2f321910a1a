"""CellRank on forecasts: terminal states, fate probabilities and driver genes from transported cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from scgde._validation import check_anndata, check_finite
from scgde.data._representation import Representation
from scgde.external._forecasts import TimeCourse, time_codes, time_course
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

if TYPE_CHECKING:
    from scgde import TDE

__all__ = ["kernel", "kernel_from_model", "transition_matrix"]


def kernel_from_model(
    model: TDE,
    adata: AnnData | None = None,
    *,
    n_neighbors: int = 20,
    weighting: str = "gaussian",
    batch_size: int | None = None,
    progress: bool = False,
) -> PrecomputedKernel:
    """Make a CellRank kernel of a model's forecasts between consecutive times.

    The cells of each time are moved to the next by :meth:`scgde.TDE.forecast`, those of groups that are seen at both
    times too, and go to the real cells near their forecast; see :func:`scgde.external.transition_matrix`. Growth does
    not enter: a transition matrix tells what becomes of one cell, not how many cells there will be.

    Parameters
    ----------
    model
        A trained model with a forecaster for each pair of consecutive times of ``adata``.
    adata
        Cells of two or more times, whose groups need not have been seen; by default the training data. Its times are
        the steps of the chain: leave out the cells of a time to step over it.
    n_neighbors
        Number of real cells that a forecast is connected to.
    weighting
        How neighbours at different distances count: "gaussian" or "uniform".
    batch_size
        Number of cells to move, and to look up neighbours of, at a time.
    progress
        Whether to show progress bars.

    Returns
    -------
    A kernel as of :func:`kernel`.

    Raises
    ------
    RuntimeError
        For a pair of consecutive times without a forecaster.
    TypeError
        For a model that does not forecast.
    ValueError
        For a model without times, a single time, cells without a time and cells of the same name.

    Examples
    --------
    >>> model = TDE.setup_anndata(adata, groupby="clone", time_key="day")  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    >>> for times in [(2, 4), (4, 6)]:  # doctest: +SKIP
    ...     model.fit_forecaster(*times)
    >>> estimator = GPCCA(kernel_from_model(model))  # as for kernel() from here on  # doctest: +SKIP
    """
    course = time_course(model, adata, batch_size=batch_size, progress=progress)
    return _kernel(
        model.adata if adata is None else adata,
        course,
        n_neighbors=n_neighbors,
        weighting=weighting,
        batch_size=batch_size or BATCH_SIZE,
        time_key=str(model.setup.time_key),
    )


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
    course = TimeCourse(_features(adata, use_rep), time_codes(adata, time_key), list(forecasts))
    return _kernel(
        adata, course, n_neighbors=n_neighbors, weighting=weighting, batch_size=batch_size, time_key=time_key
    )


def _kernel(
    adata: AnnData, course: TimeCourse, *, n_neighbors: int, weighting: str, batch_size: int, time_key: str
) -> PrecomputedKernel:
    matrix = transition_matrix(*course, n_neighbors=n_neighbors, weighting=weighting, batch_size=batch_size)
    made = PrecomputedKernel(matrix, adata=adata)
    n_before_last = int((course.time_codes < course.time_codes.max()).sum())
    n_forecast = sum(len(rows) for rows, _ in course.forecasts)
    made.params.update(
        origin="scgde",
        time_key=time_key,
        n_neighbors=n_neighbors,
        weighting=weighting,
        n_not_forecast=n_before_last - n_forecast,
    )
    return made


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
    return np.asarray(representation.read(adata))
