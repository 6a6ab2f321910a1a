"""How many cells a group needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

    from scgde.models import GDE


def n_cells_needed(
    model: GDE, precision: float = 0.1, *, adata: AnnData | None = None, batch_size: int | None = None
) -> pd.Series:
    """Cells that each group needs for its embedding to be known to a given precision.

    Parameters
    ----------
    model
        A trained model.
    precision
        Standard error of the embedding relative to the standard deviation between groups, both over all of its entries.
        With 0.1, chance adds 1% to the variance that is seen between groups.
    adata
        Data with the groups; by default the training data.
    batch_size
        Cells in memory at a time.

    Returns
    -------
    One number per group, rounded up: with n cells the variance is that of one cell divided by n. NaN for groups of one
    cell. Cells of equal weight are meant; of weighted cells, the effective number.

    Raises
    ------
    ValueError
        For a precision that is not positive, or fewer than two groups.
    """
    if not precision > 0:
        msg = f"precision={precision}: expected a positive number, such as 0.1."
        raise ValueError(msg)
    z, se = model.get_group_embedding(adata, return_se=True, batch_size=batch_size, key_added=None)
    n = model.effective_cells(adata).to_numpy()
    error = relative_error(z.to_numpy(), se.to_numpy(), n)
    return pd.Series(np.ceil(n * (error / precision) ** 2), index=z.index, name="n_cells")


def relative_error(z: np.ndarray, se: np.ndarray, n_effective: np.ndarray) -> np.ndarray:
    """Standard error of each group relative to the standard deviation between groups, (groups,).

    The variance between groups is that of the embeddings, less what is due to chance in the cells. Groups of fewer than
    two effective cells have no standard error and do not count.

    Parameters
    ----------
    z, se
        (groups, n_latent) embeddings and their standard errors.
    n_effective
        (groups,) effective numbers of cells.

    Raises
    ------
    ValueError
        Where groups do not differ by more than chance, or are fewer than two.
    """
    own = np.where(n_effective >= 2, (se.astype(np.float64) ** 2).sum(1), np.nan)
    known = np.isfinite(own)
    between = z[known].astype(np.float64).var(0, ddof=1).sum() - own[known].mean() if known.sum() > 1 else np.nan
    if not between > 0:
        msg = (
            f"Received {known.sum()} groups with standard errors, which do not differ by more than chance: expected "
            "two or more that do, to know how much groups vary."
        )
        raise ValueError(msg)
    return np.sqrt(own / between)
