"""Tests of equal embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import beta, f, false_discovery_control

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

    from scgde.models import GDE

#: Below this effective number of cells normal theory is not claimed, and groups are marked.
MIN_CELLS = 30

#: Deals more extreme than a difference from which on the p-value is its rank among them.
N_TAIL = 10


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

    The null hypothesis is that both groups' cells are drawn from one population: a difference between embeddings is
    compared to those between groups of the same sizes that the cells of both are dealt out to at random. Donors differ,
    and with many cells any two differ significantly: `distance` says how much.

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

    Notes
    -----
    Hotelling's statistic with the covariance of 256 deals; the p-value is its rank among theirs, and in the tail, below
    0.04, goes on as the F distribution does. Above 20,000 cells, or with entries of the code among those
    compared, it has the covariances of the influence functions instead (:meth:`scgde.GDE.group_covariance`).

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
    covariance, n = found.covariance, found.n_effective
    a, b = np.arange(len(ends[0])), len(ends[0]) + np.arange(len(ends[1]))
    table = _test(
        z[a] - z[b],
        covariance[a],
        covariance[b],
        n[a],
        n[b],
        model._dealt(ends[0], ends[1], adata, batch_size, n_components),
    )
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


def _test(
    difference: np.ndarray,
    covariance_a: np.ndarray,
    covariance_b: np.ndarray,
    n_a: np.ndarray,
    n_b: np.ndarray,
    dealt: Iterable[np.ndarray | None],
) -> pd.DataFrame:
    """Hotelling's test with the covariance of the differences between groups whose cells are dealt out anew.

    Where they are not (None), covariances are those of the influence functions, with n - 1 degrees of freedom.
    """
    difference, a, b = difference.copy(), covariance_a.copy(), covariance_b.copy()
    df_a, df_b = n_a - 1, n_b - 1
    normal: dict[int, np.ndarray] = {}
    for i, draws in enumerate(dealt):
        if draws is None or min(n_a[i], n_b[i]) <= 1 + 1e-9:
            continue
        # Swapping groups of one size changes the sign of the difference: its mean is 0, and need not be estimated.
        same = bool(n_a[i] == n_b[i])
        normal[i] = _own_p_values(np.vstack([difference[i], draws]), centred=same)
        n = len(draws)
        mean, df, error = (0.0, n, 0.0) if same else (draws.mean(0), n - 1, 1 / n)
        a[i], b[i] = (1 + error) / df * (draws - mean).T @ (draws - mean), 0.0
        difference[i] -= mean
        df_a[i], df_b[i] = df, np.inf
    table = hotelling(difference, a, b, df_a, df_b)
    for i, values in normal.items():
        table.loc[i, "p_value"] = _calibrated(values)
    return table


def _own_p_values(draws: np.ndarray, *, centred: bool) -> np.ndarray:
    """p-value of each of (n, p) normal vectors among all of them; for a known mean of 0, or their own mean."""
    n, p = draws.shape
    if not centred:
        draws, n = (draws - draws.mean(0)) * np.sqrt(n / (n - 1)), n - 1
    inverse = np.linalg.pinv(draws.T @ draws, rcond=1e-10, hermitian=True)
    return beta.sf(np.einsum("ni,ij,nj->n", draws, inverse, draws), p / 2, (n - p) / 2)


def _calibrated(p_values: np.ndarray) -> float:
    """The first p-value by its rank among all, which is uniform whatever the law of the draws.

    Below the smallest :data:`N_TAIL`, where ranks cannot say more, it goes on as a power of the normal p-value: the
    first power, or a lower one where these p-values are smaller than normal draws have them (Hill's estimate).
    """
    own, others = p_values[0], np.sort(p_values[1:])
    rank = 1 + np.searchsorted(others, own, side="right")
    if rank > N_TAIL or others[N_TAIL - 1] == 0:
        return rank / len(p_values)
    tail = np.maximum(others[: N_TAIL - 1] / others[N_TAIL - 1], 1e-300)
    power = min(1.0, -1 / np.log(tail).mean())
    return N_TAIL / len(p_values) * (own / others[N_TAIL - 1]) ** power


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
