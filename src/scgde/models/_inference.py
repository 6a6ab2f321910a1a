"""Embedding groups, and generating and transporting cells, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from scgde.data._rows import CellRows
from scgde.models._blocks import GroupedRows, cells_at_a_time
from scgde.models._module import GDEModule
from scgde.nn._random import GROUP_STRIDE, CounterRandom
from scgde.nn.encoders import Block
from scgde.nn.encoders._base import add_by_group
from scgde.nn.generators import Generator, InvertibleGenerator
from scgde.nn.mixtures import Mixtures
from scgde.nn.transport import Transport

#: Cells that share one key of the noise generator.
NOISE_BLOCK = 256


class GroupEncoding:
    """Embeddings of groups and the statistics they were made from.

    Parameters
    ----------
    z
        (groups, n_latent) embeddings.
    coordinates, code
        Its two parts before the code is centred and scaled, float64 on the CPU.
    mixtures
        The groups' measured statistics.
    """

    def __init__(self, module: GDEModule, coordinates: Tensor, code: Tensor, mixtures: Mixtures) -> None:
        self.coordinates, self.code, self.mixtures = coordinates, code, mixtures
        self.z = module.embedding(coordinates, code).float().to(module.device)


@torch.inference_mode()
def encode_groups(
    module: GDEModule,
    x: CellRows,
    codes: np.ndarray,
    n_groups: int,
    *,
    weight: np.ndarray | None = None,
    cells: np.ndarray | None = None,
    batch_size: int | None = None,
) -> GroupEncoding:
    """Embed groups from all of their cells, one pass over the cells per pooling level.

    Parameters
    ----------
    module
        A built module.
    x
        (n_cells, features) representation, in the user's units.
    codes
        (n_cells,) group of each cell; -1 for cells to leave out.
    n_groups
        Number of groups.
    weight
        (n_cells,) masses of the cells.
    cells
        Where groups overlap, the row of ``x`` that each entry of ``codes`` and ``weight`` is about.
    batch_size
        Cells per chunk: the memory needed is that of one chunk, whatever the size of a group.
    """
    rows = GroupedRows.from_codes(codes, n_groups, weight, cells=cells)

    def blocks() -> Iterator[Block]:
        return rows.blocks(module, x, cells_at_a_time(batch_size, module.device))

    # Sums in float64: an embedding must not depend on the order of the cells, not even in its last digits.
    statistics = module.statistics
    sums = torch.zeros(n_groups, statistics.n_sums, dtype=torch.float64)
    for each, mass, group in blocks():
        add_by_group(sums, group, statistics.sums(each, mass))
    statistics = statistics.cpu() if module.device.type == "mps" else statistics
    mixtures = statistics.mixtures(sums.to(next(statistics.buffers()).device))
    coordinates = statistics.coordinates(mixtures).cpu()
    statistics.to(module.device)
    measured = mixtures.to(torch.float32).to(module.device)
    return GroupEncoding(module, coordinates, module.encoder.stream(blocks, n_groups), measured)


@torch.inference_mode()
def generate(
    module: GDEModule,
    z: Tensor,
    n_cells: int,
    *,
    mixtures: Mixtures | None,
    batch: Tensor | None,
    trust: Tensor | None = None,
    seed: int,
    same_noise: bool = False,
    n_steps: int | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Draw cells of embeddings, (groups, n_cells, features) in the user's units.

    Parameters
    ----------
    module
        A trained module.
    z
        (groups, n_latent).
    n_cells
        Cells per group.
    mixtures
        Measured statistics, or None to read them back from ``z``.
    batch
        (groups, n_cells) batch codes where the model knows batches.
    trust
        (groups,) weight of what was learned beyond the statistics; None is 1.
    seed
        Seed of the draws.
    same_noise
        Whether all groups start from the same noise, so that cell j of one group corresponds to cell j of another.
    n_steps
        Steps of the sampler; None is the generator's own number.
    batch_size
        Cells in memory at a time.
    progress
        Whether to show a progress bar.
    """
    generator = module.generator
    assert isinstance(generator, Generator)
    width = min(NOISE_BLOCK, n_cells)
    n_blocks = -(-n_cells // width)
    latent, condition = module.latent(z), module.condition(z, mixtures, trust=trust)
    # A job is a block of cells of a group. Its noise depends on neither the chunk nor the other groups.
    group = torch.arange(len(z)).repeat_interleave(n_blocks).to(module.device)
    block = torch.arange(n_blocks).repeat(len(z)).to(module.device)
    if batch is not None:
        batch = nn.functional.pad(batch, (0, n_blocks * width - n_cells)).view(-1, width).to(module.device)
    parts = []
    jobs = torch.arange(len(group)).split(max(1, cells_at_a_time(batch_size, module.device) // width))
    for job in tqdm(jobs, desc="Generating", disable=not progress):
        of = group[job]
        part = replace(condition[of], batch=None if batch is None else batch[job])
        random = CounterRandom(seed, 0, block[job] + (0 if same_noise else of * GROUP_STRIDE))
        parts.append(module.restore(generator.sample(latent[of], width, part, random, n_steps=n_steps)).cpu())
    return torch.cat(parts).view(len(z), n_blocks * width, -1)[:, :n_cells].numpy()


class Ends(NamedTuple):
    """Where cells come from and where they go, one row per population: embeddings, measured statistics, batches.

    Parameters
    ----------
    z
        (populations, n_latent).
    mixtures
        Measured statistics, or None to read them back from ``z``.
    batch
        (n_cells,) batch codes of the cells, where the model knows batches.
    trust
        Weight of what was learned beyond the statistics.
    """

    z: Tensor
    mixtures: Mixtures | None
    batch: Tensor | None = None
    trust: float = 1.0

    def select(self, index: Tensor) -> Ends:
        """The populations at ``index``."""
        return self._replace(z=self.z[index], mixtures=None if self.mixtures is None else self.mixtures[index])


@torch.inference_mode()
def move(
    module: GDEModule,
    x: np.ndarray,
    pair: np.ndarray,
    source: Ends,
    target: Ends,
    *,
    t: np.ndarray | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Move cells between populations, (times, n_cells, features) in the user's units.

    Parameters
    ----------
    module
        A trained module.
    x
        (n_cells, features) cells of the sources in the user's units.
    pair
        (n_cells,) position of each cell's source and target in ``source`` and ``target``.
    source, target
        Populations, row by row.
    t
        Positions on the paths to return; by default the end alone.
    seed
        Seed of the noise, where the transport takes any.
    batch_size
        Cells in memory at a time.
    progress
        Whether to show a progress bar.
    """
    times = np.ones(1) if t is None else t
    result = np.empty((len(times), *x.shape), dtype=np.float32)
    # The noise of a cell depends on its place in its population: neither on the chunk nor on the other populations.
    order = np.argsort(pair, kind="stable")
    place = np.empty(len(pair), dtype=np.int64)
    place[order] = np.arange(len(pair)) - np.searchsorted(pair[order], pair[order])
    jobs = list(_blocks(pair, cells_at_a_time(batch_size, module.device)))
    for rows, of in tqdm(jobs, desc="Transporting", disable=not progress):
        # Blocks are padded by repeating cells, whose results are written twice.
        cells = module.standardize(torch.from_numpy(x[rows]).to(module.device))
        start, end = (
            each.select(of)._replace(batch=None if each.batch is None else each.batch[rows].to(module.device))
            for each in (source, target)
        )
        random = CounterRandom(seed, 0, torch.from_numpy(place[rows].ravel()).to(module.device))
        for i, moved in enumerate(_paths(module, cells, start, end, times.tolist(), random)):
            result[i, rows] = module.restore(moved).cpu().numpy()
    return result


def _blocks(pair: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Rows of cells (blocks, cells) and the pairs they belong to (blocks,): cells of a block belong to one pair."""
    order = np.argsort(pair, kind="stable")
    starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
    blocks = [
        part
        for rows in np.split(order, starts[1:])
        for part in np.split(rows, range(NOISE_BLOCK, len(rows), NOISE_BLOCK))
    ]
    blocks.sort(key=len)
    stop = len(blocks)
    while stop:
        longest = len(blocks[stop - 1])
        chunk = blocks[max(0, stop - max(1, size // longest)) : stop]
        stop -= len(chunk)
        width = min(longest, size)
        last = np.array([len(rows) for rows in chunk])[:, None] - 1
        for start in range(0, longest, width):
            index = np.minimum(np.arange(start, start + width), last)
            rows = np.stack([rows[i] for rows, i in zip(chunk, index, strict=True)])
            yield rows, torch.from_numpy(pair[rows[:, 0]])


def _paths(
    module: GDEModule, x: Tensor, source: Ends, target: Ends, times: list[float], random: CounterRandom
) -> Iterator[Tensor]:
    """Cells (blocks, cells, features) at each time of their paths; ``random`` has a key for each cell."""
    start, end = (
        module.condition(each.z, each.mixtures, each.batch, torch.full_like(each.z[:, 0], each.trust))
        for each in (source, target)
    )
    generator = module.generator
    if isinstance(generator, Transport):
        yield from generator.path(x, module.latent(source.z), module.latent(target.z), start, end, times, random)
        return
    assert isinstance(generator, InvertibleGenerator)
    noise = generator.encode(x, module.latent(source.z), start)
    first, last = (module.statistics.vectorize(condition.mixtures) for condition in (start, end))
    for t in times:
        # The ends are taken as they are: read back from their vectors they would differ in their last digits.
        if t in (0, 1):
            condition = (start, end)[int(t)]
        else:
            mixtures = module.statistics.devectorize(torch.lerp(first, last, t))
            condition = replace(end, mixtures=mixtures, measured=torch.lerp(start.measured, end.measured, t))
        yield generator.decode(noise, module.latent(torch.lerp(source.z, target.z, t)), condition)
