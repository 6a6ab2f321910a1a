"""Distances between groups: of their embeddings, or of their cells."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scgde._validation import unknown_key
from scgde.data._rows import CellRows
from scgde.metrics import METRICS, pairwise
from scgde.metrics._mixture import Mixture
from scgde.models._blocks import GroupedRows
from scgde.models._module import GDEModule

#: The distances between embeddings; the other names are those of :data:`scgde.metrics.METRICS`.
LATENT, MIXTURE = "latent", "mixture"


def check_metric(metric: str) -> None:
    """Refuse names that are no metric."""
    known = [LATENT, MIXTURE, *METRICS]
    if metric not in known:
        raise ValueError(unknown_key(metric, known, "the metrics (metric=)").args[0])


def latent_distances(z: Tensor) -> np.ndarray:
    """(groups, groups) Euclidean distances between embeddings.

    Parameters
    ----------
    z
        (groups, n_latent) embeddings.
    """
    return torch.cdist(z.double(), z.double()).numpy()


def mixtures_of(module: GDEModule, z: Tensor) -> list[Mixture]:
    """Weights, means and covariances of the mixtures that embeddings stand for, in the representation's units.

    Parameters
    ----------
    module
        A built module.
    z
        (groups, n_latent) embeddings.
    """
    mixtures = module.read_back(z.float().to(module.device)).to(torch.float64).to("cpu")
    scale = module.scale.double().cpu()
    unit = scale[:, None] * scale if mixtures.full else scale.square()
    mean = mixtures.mean * scale + module.shift.double().cpu()
    return list(zip(mixtures.weight, mean, mixtures.covariance() * unit, strict=True))


def cell_distances(
    x: CellRows, rows: GroupedRows, metric: str, *, max_cells: int, seed: int, progress: bool
) -> np.ndarray:
    """(groups, groups) distances between the cells of groups, one pair at a time.

    Parameters
    ----------
    x
        (n_cells, features) cells.
    rows
        The cells of each group and their masses.
    metric
        A name in :data:`scgde.metrics.METRICS`.
    max_cells
        Cells that stand for a group of more, or for one whose cells have unequal masses.
    seed
        Seed of the choice of these cells.
    progress
        Whether to show a progress bar over pairs.
    """
    chosen = [_representatives(rows.select(g, g + 1), max_cells, seed, g) for g in range(len(rows))]
    return pairwise([np.asarray(x[part]) for part in chosen], metric=metric, progress=progress)


def _representatives(group: GroupedRows, max_cells: int, seed: int, number: int) -> np.ndarray:
    """Rows of cells that stand for a group: all, or a systematic draw by their masses."""
    order, mass = group.order[group.mass > 0], group.mass[group.mass > 0]
    equal = np.allclose(mass, mass[0], rtol=1e-6)
    if equal and len(order) <= max_cells:
        return order
    rng = np.random.default_rng([seed, number])
    shuffled = rng.permutation(len(order))
    if equal:
        return order[np.sort(shuffled[:max_cells])]
    levels = (rng.random() + np.arange(max_cells)) / max_cells
    place = np.searchsorted(np.cumsum(mass[shuffled]), levels * mass.sum())
    return order[shuffled[np.minimum(place, len(order) - 1)]]
