"""Tests of equal embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import f, false_discovery_control

if TYPE_CHECKING:
    from anndata import AnnData

    from scgde.models import GDE

#: Below this effective number of cells normal theory is not claimed, and groups are marked.
MIN_CELLS = 30


def compare(
    model: GDE,
    group_a: Any,
    group_b: Any,
    *,
    adata: AnnData | None = None,
    n_components: int = 5,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Test whether groups have the same embedding, up to the chance that lies in which cells were seen.

    The null hypothesis is that both groups' cells are drawn from one population. Donors differ, and with many cells any
    two differ significantly: `distance` says how much.

    Parameters
    ----------
    model
        A trained model.
    group_a, group_b
        Keys of groups, or lists of keys of equal length: one test per pair.
    adata
        Data with the groups; by default the training data.
    n_components
        Number of leading entries of the embedding to compare: coordinates of means and spreads, of which the first vary
        most between training groups.
    batch_size
        Cells in memory at a time.

    Returns
    -------
    One row per pair: `group_a`, `group_b`; `distance` between them and its part `expected` from chance alone, as the
    root of the summed variances, in these components; `statistic` (F), `df1`, `df2`, `p_value`, and `q_value`
    (Benjamini-Hochberg over the pairs); `n_a`, `n_b`, effective numbers of cells; `few_cells`, where one is below 30:
    the p-value is not to be relied on.

    Raises
    ------
    KeyError
        For unknown groups, with near matches.
    ValueError
        For lists of different lengths, a number of components that makes no sense, and overlapping groups that share
        cells: their embeddings are not independent.

    Examples
    --------
    >>> scgde.uncertainty.compare(model, "donor_1", "donor_7")
    >>> scgde.uncertainty.compare(model, ["donor_1", "donor_1"], ["donor_2", "donor_3"])
    """
    ends = [each if isinstance(each, list) else [each] for each in (group_a, group_b)]
    if len(ends[0]) != len(ends[1]) or not ends[0]:
        msg = f"Received {len(ends[0])} groups in group_a and {len(ends[1])} in group_b: expected pairs, one at least."
        raise ValueError(msg)
    n_latent = model.options["n_latent"]
    if not 1 <= n_components <= n_latent:
        msg = f"n_components={n_components}: expected 1 to n_latent={n_latent}."
        raise ValueError(msg)
    model._check_independent(ends[0], ends[1], adata)
    keys = [*ends[0], *ends[1]]
    z, found = model._estimates(keys, adata, batch_size, n_components)
    covariance, n, df = found.covariance, found.n_effective, found.joint_df
    assert df is not None
    a, b = np.arange(len(ends[0])), len(ends[0]) + np.arange(len(ends[1]))
    table = hotelling(z[a] - z[b], covariance[a], covariance[b], df[a], df[b])
    chance = np.sqrt(np.trace(covariance[a] + covariance[b], axis1=1, axis2=2))
    p_value = table["p_value"].to_numpy()
    tested = np.isfinite(p_value)
    q_value = np.full(len(p_value), np.nan)
    if tested.any():
        q_value[tested] = false_discovery_control(p_value[tested])
    names = {"group_a": pd.Series(ends[0], dtype=object), "group_b": pd.Series(ends[1], dtype=object)}
    distance = np.linalg.norm(z[a] - z[b], axis=1)
    return pd.DataFrame(names).assign(
        distance=distance,
        expected=chance,
        **table,
        q_value=q_value,
        n_a=n[a],
        n_b=n[b],
        few_cells=np.minimum(n[a], n[b]) < MIN_CELLS,
    )


def hotelling(
    difference: np.ndarray,
    covariance_a: np.ndarray,
    covariance_b: np.ndarray,
    df_a: np.ndarray,
    df_b: np.ndarray,
) -> pd.DataFrame:
    """Tests that differences of independent estimates are 0, with their covariances estimated from few cells.

    Hotelling's statistic without the assumption of equal covariances: with S = A + B, the covariances of the estimates,
    T^2 = d' S^-1 d is compared to F with p and v - p + 1 degrees of freedom, where ::

        1 / v = sum_g [tr(G^2) + tr(G)^2] / df_g / (p + p^2)          G = S^-1 A, S^-1 B

    Parameters
    ----------
    difference
        (pairs, p).
    covariance_a, covariance_b
        (pairs, p, p) of the two estimates.
    df_a, df_b
        (pairs,) their degrees of freedom: of the mean of n normal cells, n - 1. Infinite for what is known: with B = 0
        this is the one-sample test.

    Returns
    -------
    `statistic`, `df1`, `df2`, `p_value`; NaN where the cells do not suffice (v <= p - 1, or df is NaN).

    Notes
    -----
    Source: Krishnamoorthy & Yu, "Modified Nel and Van der Merwe test for the multivariate Behrens-Fisher problem"
    (2004).
    """
    p = difference.shape[1]
    total = covariance_a + covariance_b
    usable = np.isfinite(total).all((1, 2)) & ~np.isnan(df_a) & ~np.isnan(df_b)
    total = np.where(usable[:, None, None], total, np.eye(p))
    inverse = np.linalg.pinv(total, rcond=1e-10, hermitian=True)
    inverse_v = np.zeros(len(difference))
    for covariance, df in ((covariance_a, df_a), (covariance_b, df_b)):
        share = inverse @ np.where(usable[:, None, None], covariance, 0)
        traces = np.einsum("nij,nji->n", share, share) + np.einsum("nii->n", share) ** 2
        inverse_v += traces / np.where(usable, df, 1.0)
    v = (p + p**2) / np.maximum(inverse_v, 1e-300)
    df2 = v - p + 1
    t2 = np.einsum("ni,nij,nj->n", difference, inverse, difference)
    good = usable & (df2 > 0)
    statistic = np.where(good, t2 * df2 / (v * p), np.nan)
    p_value = f.sf(statistic, p, np.where(good, df2, np.nan))
    return pd.DataFrame({"statistic": statistic, "df1": p, "df2": np.where(good, df2, np.nan), "p_value": p_value})
