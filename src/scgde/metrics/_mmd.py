"""Maximum mean discrepancy between two groups of cells, with a Gaussian kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from ._arguments import cell_pair, distance_blocks

#: The median distance is found in a histogram, and then in one of its bins: to the range of distances / bins squared.
BINS = 4096


def mmd_rbf(
    x: np.ndarray | torch.Tensor, y: np.ndarray | torch.Tensor, *, bandwidth: float, chunk_size: int = 2048
) -> float:
    """Squared maximum mean discrepancy with the kernel ``exp(-|x - y|^2 / (2 bandwidth^2))``.

    ``E k(x, x') + E k(y, y') - 2 E k(x, y)`` between the empirical measures, each cell paired with itself too: never
    negative, and above 0 for two draws of one population, by about 1/n + 1/m at most.

    Parameters
    ----------
    x, y
        Cells, shape (n, features) and (m, features).
    bandwidth
        Standard deviation of the kernel, in units of the features. Distances between several groups are comparable
        with one bandwidth only.
    chunk_size
        The kernel is computed in blocks of `chunk_size` x `chunk_size`: memory does not grow with n x m.

    Returns
    -------
    The squared discrepancy, from 0 to 2.

    Raises
    ------
    ValueError
        For empty groups, NaN, different features or devices, and a bandwidth that is not positive.

    Notes
    -----
    Source: Gretton et al., A kernel two-sample test, JMLR 2012.
    """
    if not (math.isfinite(bandwidth) and bandwidth > 0):
        msg = f"bandwidth={bandwidth}: expected a positive number, in units of the features."
        raise ValueError(msg)
    x, y = cell_pair(x, y)
    w_x, w_y = _equal(x), _equal(y)

    def mean_kernel(a: torch.Tensor, w_a: torch.Tensor, b: torch.Tensor, w_b: torch.Tensor) -> float:
        blocks = distance_blocks(a, w_a, b, w_b, chunk_size)
        return sum(float(left @ (-0.5 * (d / bandwidth).square()).exp() @ right) for d, left, right in blocks)

    squared = mean_kernel(x, w_x, x, w_x) + mean_kernel(y, w_y, y, w_y) - 2 * mean_kernel(x, w_x, y, w_y)
    # Rounding can leave a distance of zero slightly below it.
    return max(squared, 0.0)


def mmd_rbf_median(x: np.ndarray | torch.Tensor, y: np.ndarray | torch.Tensor, *, chunk_size: int = 2048) -> float:
    """Squared maximum mean discrepancy, the bandwidth being the median distance between two cells of both groups.

    Parameters
    ----------
    x, y
        Cells, shape (n, features) and (m, features). Both groups count equally in the median, whatever their sizes.
    chunk_size
        Cells in a block of distances.

    Returns
    -------
    The squared discrepancy, from 0 to 2; see :func:`mmd_rbf`. Each pair of groups has a bandwidth of its own: to
    compare several distances, use :func:`mmd_rbf` with a common one.

    Raises
    ------
    ValueError
        For empty groups, NaN, and different features or devices.
    """
    x, y = cell_pair(x, y)
    cells, mass = torch.cat([x, y]), 0.5 * torch.cat([_equal(x), _equal(y)])
    bandwidth = _median_distance(cells, mass, chunk_size)
    # All cells of both groups in one place, or nearly so: any kernel calls them equal.
    return mmd_rbf(x, y, bandwidth=bandwidth, chunk_size=chunk_size) if bandwidth > 0 else 0.0


def _equal(cells: torch.Tensor) -> torch.Tensor:
    return torch.full((len(cells),), 1 / len(cells), dtype=torch.float64, device=cells.device)


def _median_distance(cells: torch.Tensor, mass: torch.Tensor, chunk_size: int) -> float:
    """Median distance of two independent draws of a weighted measure that differ, without holding all distances."""

    def blocks() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        return distance_blocks(cells, mass, cells, mass, chunk_size)

    low, high = 0.0, max(float(distance.max()) for distance, _, _ in blocks())
    if high == 0:
        return 0.0
    apart = sum(float(((w_x[:, None] * w_y) * (d > 0)).sum()) for d, w_x, w_y in blocks())
    below = 0.0
    for _ in range(2):
        counts = torch.zeros(BINS, dtype=torch.float64, device=cells.device)
        width = (high - low) / BINS
        for distance, w_x, w_y in blocks():
            inside = (distance > low) & (distance <= high)
            place = ((distance[inside] - low) / width).long().clamp_(max=BINS - 1)
            counts.index_add_(0, place, (w_x[:, None] * w_y)[inside])
        # A share of exactly one half is met by rounding only: a hair less is enough.
        reached = below + counts.cumsum(0) >= (0.5 - 1e-9) * apart
        first = int(reached.int().argmax())
        below += float(counts[:first].sum())
        low, high = low + first * width, low + (first + 1) * width
    return 0.5 * (low + high)
