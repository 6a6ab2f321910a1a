"""How the embeddings of two groups differ when their cells are dealt out to them anew."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scgde.data._rows import CellRows
from scgde.models._blocks import BATCH_SIZE, GroupedRows
from scgde.models._module import GDEModule

#: Deals, and cells of a pair up to which they are made: with more, influence functions tell the same.
N_DEALS, MAX_CELLS = 256, 20_000


@torch.no_grad()
def relabelled_differences(
    module: GDEModule, x: CellRows, rows: GroupedRows, n_entries: int, *, seed: list[int], batch_size: int | None = None
) -> np.ndarray:
    """Differences of the leading coordinates of two groups whose cells are dealt out anew, (N_DEALS, n_entries).

    Parameters
    ----------
    module
        A trained module.
    x
        (n_cells, features) representation, in the user's units.
    rows
        The cells of the two groups. A cell keeps its mass, relative to the masses of its group.
    n_entries
        Number of coordinates.
    seed
        Seed of the deals.
    batch_size
        Cells in memory at a time.
    """
    sizes = np.diff(rows.starts)
    rng = np.random.default_rng(seed)
    dealt = np.argsort(rng.random((N_DEALS, sizes.sum())), axis=1) < sizes[0]
    mass = rows.mass * np.repeat(rows.n_effective, sizes)
    statistics = module.statistics
    sums = torch.zeros(2, N_DEALS, statistics.n_sums, dtype=torch.float64)
    size = batch_size or BATCH_SIZE
    for start in range(0, len(mass), size):
        part = slice(start, start + size)
        cells = module.standardize(torch.from_numpy(np.asarray(x[rows.order[part]])).to(module.device))
        terms = statistics.terms(cells).cpu()
        first = torch.from_numpy(dealt[:, part] * mass[part]).to(terms)
        second = torch.from_numpy(~dealt[:, part] * mass[part]).to(terms)
        sums += torch.stack([first @ terms, second @ terms])
    a, b = (_coordinates(module, each)[:, :n_entries] for each in sums)
    return (a - b).double().numpy()


def _coordinates(module: GDEModule, sums: Tensor) -> Tensor:
    """Coordinates of groups by their sums, computed on the CPU, as those of the embedding are."""
    statistics, device = module.statistics, module.device
    exact = statistics.cpu()
    coordinates = exact.coordinates(exact.mixtures(sums))
    statistics.to(device)
    return coordinates
