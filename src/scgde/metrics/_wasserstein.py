"""Squared 2-Wasserstein distances: sliced, exact between cells, and closed form between Gaussians."""

from __future__ import annotations

import numpy as np
import ot
import torch

from ._arguments import as_tensor, cell_pair


def sliced_w2(
    x: np.ndarray | torch.Tensor,
    y: np.ndarray | torch.Tensor,
    *,
    n_projections: int = 200,
    seed: int = 0,
    chunk_size: int = 32,
) -> float:
    """Squared sliced 2-Wasserstein distance: the exact one-dimensional W2 squared, averaged over random directions.

    Parameters
    ----------
    x, y
        Cells, shape (n, features) and (m, features). The quantile functions of unequal groups are compared exactly.
    n_projections
        Number of directions, uniform on the sphere.
    seed
        Directions are a function of the seed and the number of features only: all pairs see the same ones.
    chunk_size
        Directions handled at a time; memory is (n + m) x `chunk_size`.

    Returns
    -------
    The squared distance, in squared units of the features.

    Raises
    ------
    ValueError
        For empty groups, NaN, and different features or devices.

    Notes
    -----
    Source: Bonneel et al., Sliced and Radon Wasserstein barycenters of measures, JMIV 2015.
    """
    x, y = cell_pair(x, y)
    directions = np.random.default_rng(seed).standard_normal((n_projections, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rank_x, rank_y, mass = _matched_quantiles(len(x), len(y), x.device)
    total = 0.0
    for block in torch.as_tensor(directions, dtype=x.dtype, device=x.device).split(chunk_size):
        sorted_x, sorted_y = (x @ block.T).sort(dim=0).values, (y @ block.T).sort(dim=0).values
        squared = (sorted_x[rank_x] - sorted_y[rank_y]).square()
        total += float((mass @ squared.double()).sum())
    return total / n_projections


def _matched_quantiles(n: int, m: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pieces of (0, 1] on which both quantile functions are constant: rank in x, rank in y, length.

    Levels i/n and j/m are held as the integers i m and j n, so that ties between them are exact.
    """
    levels = torch.cat([torch.arange(1, n + 1, device=device) * m, torch.arange(1, m + 1, device=device) * n]).unique()
    mass = torch.diff(levels, prepend=levels.new_zeros(1)).double() / (n * m)
    return (levels - 1) // m, (levels - 1) // n, mass


def w2_empirical(x: np.ndarray | torch.Tensor, y: np.ndarray | torch.Tensor) -> float:
    """Squared 2-Wasserstein distance between two clouds of cells, by exact optimal transport.

    The estimate is biased upwards (it is above 0 for two draws of one population): read it as an excess over another
    draw of the target. The plan needs the n x m matrix of costs in memory and about n^3 operations; above a few
    thousand cells take :func:`sliced_w2`.

    Parameters
    ----------
    x, y
        Cells, shape (n, features) and (m, features).

    Returns
    -------
    The squared distance, in squared units of the features.

    Raises
    ------
    ValueError
        For empty groups, NaN, and different features or devices.

    Notes
    -----
    Source: `ot.emd2` of POT (Flamary et al., JMLR 2021) with squared Euclidean cost.
    """
    x, y = cell_pair(x, y)
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    # POT's solver runs on the CPU; its default number of iterations is too small for 2,000 cells.
    return float(ot.emd2([], [], distance.double().square().cpu().numpy(), numItermax=10_000_000))


def w2_gaussian(
    mean_x: np.ndarray | torch.Tensor,
    cov_x: np.ndarray | torch.Tensor,
    mean_y: np.ndarray | torch.Tensor,
    cov_y: np.ndarray | torch.Tensor,
) -> float:
    """Squared 2-Wasserstein (Bures) distance between two Gaussians.

    Parameters
    ----------
    mean_x, mean_y
        Means, shape (features,).
    cov_x, cov_y
        Covariances, shape (features, features), positive semi-definite.

    Returns
    -------
    ``|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^(1/2) C_y C_x^(1/2))^(1/2))``, in squared units of the features.

    Raises
    ------
    ValueError
        For NaN and for shapes that do not fit together.

    Notes
    -----
    Source: Dowson and Landau, J. Multivariate Analysis 1982. The last trace is computed as the sum of the singular
    values of ``C_x^(1/2) C_y^(1/2)``, which loses no digits for singular covariances.
    """
    named = {"mean_x": mean_x, "cov_x": cov_x, "mean_y": mean_y, "cov_y": cov_y}
    mean_x, cov_x, mean_y, cov_y = (as_tensor(value, name).double() for name, value in named.items())
    d = mean_x.numel()
    shapes = [tuple(value.shape) for value in (mean_x, cov_x, mean_y, cov_y)]
    if shapes != [(d,), (d, d)] * 2:
        msg = f"Shapes of mean_x, cov_x, mean_y, cov_y are {shapes}: expected (d,), (d, d), (d,), (d, d) with one d."
        raise ValueError(msg)
    overlap = torch.linalg.svdvals(matrix_root(cov_x) @ matrix_root(cov_y)).sum()
    squared = (mean_x - mean_y).square().sum() + cov_x.trace() + cov_y.trace() - 2 * overlap
    # Rounding can leave a distance of zero slightly below it.
    return max(float(squared), 0.0)


def matrix_root(cov: torch.Tensor) -> torch.Tensor:
    """Symmetric square roots of positive semi-definite matrices, shape (..., features, features)."""
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp_min(0).sqrt()[..., None, :]) @ vectors.mT


def gaussian_w2(x: np.ndarray | torch.Tensor, y: np.ndarray | torch.Tensor) -> float:
    """Squared 2-Wasserstein distance between the Gaussians with the moments of two groups of cells.

    Parameters
    ----------
    x, y
        Cells, shape (n, features) and (m, features). Covariances are divided by the number of cells: the moments are
        those of the empirical measure, and duplicating all cells of a group changes nothing.

    Returns
    -------
    The squared distance, in squared units of the features; see :func:`w2_gaussian`.

    Raises
    ------
    ValueError
        For empty groups, NaN, and different features or devices.
    """
    return w2_gaussian(*(moment for cells in cell_pair(x, y) for moment in _moments(cells.double())))


def _moments(cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = cells.mean(dim=0)
    centred = cells - mean
    return mean, centred.T @ centred / len(cells)
