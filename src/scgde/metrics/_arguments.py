"""What metrics of two arrays of cells share: checks of what they receive, and distances in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch


def cell_pair(x: np.ndarray | torch.Tensor, y: np.ndarray | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both groups as floating tensors of one dtype on one device, or say what is wrong with them.

    Parameters
    ----------
    x, y
        Cells, shape (n, features) and (m, features).
    """
    x, y = _cells(x, "x"), _cells(y, "y")
    if x.shape[1] != y.shape[1]:
        msg = f"x has {x.shape[1]} features and y has {y.shape[1]}: give both groups in the same representation."
        raise ValueError(msg)
    if x.device != y.device:
        msg = f"x is on {x.device} and y on {y.device}: move both to one device with `.to(device)`."
        raise ValueError(msg)
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


def _cells(values: np.ndarray | torch.Tensor, name: str) -> torch.Tensor:
    cells = as_tensor(values, name)
    if cells.ndim != 2 or 0 in cells.shape:
        msg = (
            f"{name} has shape {tuple(cells.shape)}: expected (n_cells, n_features) with at least one cell and one "
            "feature. Reshape a single feature with `[:, None]` and drop empty groups."
        )
        raise ValueError(msg)
    return cells


def as_tensor(values: np.ndarray | torch.Tensor, name: str) -> torch.Tensor:
    """Return `values` as a finite float32 or float64 tensor on the device they are on.

    Parameters
    ----------
    values
        Dense array of any shape and number type.
    name
        What errors call it.
    """
    if not isinstance(values, torch.Tensor):
        # A view of an AnnData is an array with a method `toarray`.
        if hasattr(values, "toarray") and not isinstance(values, np.ndarray):
            msg = f"{name} is a {type(values).__name__}: expected a dense array. Convert it with `.toarray()`."
            raise TypeError(msg)
        # torch warns about read-only memory and refuses negative strides: numpy copies only where it has to.
        values = torch.from_numpy(np.require(np.asarray(values), requirements=["C", "W"]))
    if values.dtype not in (torch.float32, torch.float64):
        values = values.to(torch.float32 if values.is_floating_point() else torch.float64)
    n_bad = int((~torch.isfinite(values)).sum())
    if n_bad:
        msg = f"{name} holds {n_bad} values that are NaN or infinite: expected finite numbers. Drop or impute them."
        raise ValueError(msg)
    return values.detach()


def distance_blocks(
    x: torch.Tensor, weight_x: torch.Tensor, y: torch.Tensor, weight_y: torch.Tensor, chunk_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Distances (double precision) between blocks of x and of y, with the masses of both blocks.

    Parameters
    ----------
    x, y
        Cells, shape (n, features) and (m, features).
    weight_x, weight_y
        Masses, shape (n,) and (m,).
    chunk_size
        Cells in a block.
    """
    for x_block, w_x in zip(x.split(chunk_size), weight_x.split(chunk_size), strict=True):
        for y_block, w_y in zip(y.split(chunk_size), weight_y.split(chunk_size), strict=True):
            # The shortcut through |x|^2 + |y|^2 - 2xy cancels in float32 when the cells lie far from the origin.
            yield torch.cdist(x_block, y_block, compute_mode="donot_use_mm_for_euclid_dist").double(), w_x, w_y
