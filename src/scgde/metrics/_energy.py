"""Energy distance between two groups of cells."""

from __future__ import annotations

import numpy as np
import torch

from ._arguments import as_tensor, cell_pair, distance_blocks


def energy_distance(
    x: np.ndarray | torch.Tensor,
    y: np.ndarray | torch.Tensor,
    *,
    weight_x: np.ndarray | torch.Tensor | None = None,
    weight_y: np.ndarray | torch.Tensor | None = None,
    chunk_size: int = 2048,
) -> float:
    """Energy distance, ``2 E|x - y| - E|x - x'| - E|y - y'|`` with the Euclidean norm and no root.

    Self terms are U-statistics (no cell is paired with itself), so the estimate is unbiased: 0 in expectation for two
    draws of one population, and at times slightly negative. A group of one cell has no pair; its self term is 0.

    Parameters
    ----------
    x, y
        Cells, shape (n, features) and (m, features).
    weight_x, weight_y
        Masses of the cells, shape (n,) and (m,), of any positive total; equal by default.
    chunk_size
        Distances are computed in blocks of `chunk_size` x `chunk_size`: memory does not grow with n x m.

    Returns
    -------
    The distance, in units of the features.

    Raises
    ------
    ValueError
        For empty groups, NaN, different features or devices, and weights that do not fit the cells.

    Notes
    -----
    Source: Szekely and Rizzo, Energy statistics, J. Stat. Plan. Inference 2013. In one dimension it is twice the
    integral of the squared difference of the distribution functions, the square of
    :func:`scipy.stats.energy_distance` (up to the U-statistic).
    """
    x, y = cell_pair(x, y)
    w_x, w_y = _masses(weight_x, x, "weight_x"), _masses(weight_y, y, "weight_y")
    cross = _mean_distance(x, w_x, y, w_y, chunk_size)
    return 2 * cross - _self_distance(x, w_x, chunk_size) - _self_distance(y, w_y, chunk_size)


def _masses(weight: np.ndarray | torch.Tensor | None, cells: torch.Tensor, name: str) -> torch.Tensor:
    if weight is None:
        return torch.full((len(cells),), 1 / len(cells), dtype=torch.float64, device=cells.device)
    weight = as_tensor(weight, name).to(cells.device, torch.float64)
    if weight.shape != (len(cells),) or (weight < 0).any() or weight.sum() == 0:
        msg = (
            f"{name} has shape {tuple(weight.shape)}: expected one non-negative number for each of {len(cells)} cells, "
            "not all zero."
        )
        raise ValueError(msg)
    return weight / weight.sum()


def _self_distance(x: torch.Tensor, weight: torch.Tensor, chunk_size: int) -> float:
    mass_of_pairs = 1 - float(weight.square().sum())
    if (weight > 0).sum() < 2:
        return 0.0
    return _mean_distance(x, weight, x, weight, chunk_size) / mass_of_pairs


def _mean_distance(
    x: torch.Tensor, weight_x: torch.Tensor, y: torch.Tensor, weight_y: torch.Tensor, chunk_size: int
) -> float:
    blocks = distance_blocks(x, weight_x, y, weight_y, chunk_size)
    return sum(float(w_x @ distance @ w_y) for distance, w_x, w_y in blocks)
