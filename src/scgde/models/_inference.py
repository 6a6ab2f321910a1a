"""Embedding groups, and generating and transporting cells, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from scgde.models._module import GDEModule
from scgde.nn._random import CounterRandom
from scgde.nn.encoders._base import Chunk
from scgde.nn.generators import Condition, InvertibleGenerator
from scgde.nn.statistics import Mixtures

#: Cells per chunk where the user does not say.
BATCH_SIZE = 4096

#: Cells that share one key of the noise generator.
NOISE_BLOCK = 256

#: Spreads the keys of groups over 32 bits, so that blocks of different groups do not meet.
GROUP_STRIDE = 0x9E3779B1


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
    x: np.ndarray,
    codes: np.ndarray,
    n_groups: int,
    *,
    weight: np.ndarray | None = None,
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
    batch_size
        Cells per chunk: the memory needed is that of one chunk, whatever the size of a group.
    """
    rows = np.flatnonzero(codes >= 0)
    group = torch.from_numpy(codes[rows])
    mass = torch.ones(len(rows), dtype=torch.float64) if weight is None else torch.from_numpy(weight[rows]).double()
    mass = mass / torch.zeros(n_groups, dtype=torch.float64).index_add_(0, group, mass)[group]
    size = batch_size or BATCH_SIZE

    def chunks() -> Iterator[Chunk]:
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            cells = torch.from_numpy(x[rows[part]]).to(module.device)
            yield module.standardize(cells), mass[part], group[part]

    # Sums in float64: an embedding must not depend on the order of the cells, not even in its last digits.
    statistics = module.statistics
    sums = torch.zeros(n_groups, *statistics.sums_shape, dtype=torch.float64)
    for cells, share, target in chunks():
        shared = statistics.responsibilities(cells).cpu().double() * share[:, None]
        moments = statistics.monomials(cells.cpu().double())
        sums.index_add_(0, target, shared[:, :, None] * moments[:, None])
    statistics = statistics.cpu() if module.device.type == "mps" else statistics
    mixtures = statistics.mixtures(sums.to(next(statistics.buffers()).device))
    coordinates = statistics.coordinates(mixtures).cpu()
    statistics.to(module.device)
    measured = Mixtures(*(value.float().to(module.device) for value in (mixtures.weight, mixtures.mean, mixtures.root)))
    return GroupEncoding(module, coordinates, module.encoder.stream(chunks, n_groups), measured)


@torch.inference_mode()
def generate(
    module: GDEModule,
    z: Tensor,
    n_cells: int,
    *,
    mixtures: Mixtures | None,
    batch: Tensor | None,
    seed: int,
    same_noise: bool = False,
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
    seed
        Seed of the draws.
    same_noise
        Whether all groups start from the same noise, so that cell j of one group corresponds to cell j of another.
    batch_size
        Cells in memory at a time.
    progress
        Whether to show a progress bar.
    """
    width = min(NOISE_BLOCK, n_cells)
    n_blocks = -(-n_cells // width)
    latent, condition = module.latent(z), module.condition(z, mixtures)
    # A job is a block of cells of a group. Its noise depends on neither the chunk nor the other groups.
    group = torch.arange(len(z)).repeat_interleave(n_blocks).to(module.device)
    block = torch.arange(n_blocks).repeat(len(z)).to(module.device)
    if batch is not None:
        batch = nn.functional.pad(batch, (0, n_blocks * width - n_cells)).view(-1, width).to(module.device)
    parts = []
    jobs = torch.arange(len(group)).split(max(1, (batch_size or BATCH_SIZE) // width))
    for job in tqdm(jobs, desc="Generating", disable=not progress):
        of = group[job]
        part = Condition(condition.mixtures[of], condition.measured[of], None if batch is None else batch[job])
        random = CounterRandom(seed, 0, block[job] + (0 if same_noise else of * GROUP_STRIDE))
        parts.append(module.restore(module.generator.sample(latent[of], width, part, random)).cpu())
    return torch.cat(parts).view(len(z), n_blocks * width, -1)[:, :n_cells].numpy()


@torch.inference_mode()
def move(
    module: GDEModule,
    x: np.ndarray,
    source: tuple[Tensor, Mixtures | None],
    target: tuple[Tensor, Mixtures | None],
    *,
    source_batch: Tensor | None = None,
    target_batch: Tensor | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Transport cells: invert the flow under the source's embedding, run it under the target's.

    Parameters
    ----------
    module
        A trained module with an invertible generator.
    x
        (n_cells, features) cells of the source in the user's units.
    source, target
        Embedding (1, n_latent) and measured statistics, or None to read them back.
    source_batch, target_batch
        (n_cells,) batch codes where the model knows batches.
    batch_size
        Cells in memory at a time.
    progress
        Whether to show a progress bar.
    """
    generator = module.generator
    assert isinstance(generator, InvertibleGenerator)
    result = np.empty_like(x)
    size = batch_size or BATCH_SIZE
    for start in tqdm(range(0, len(x), size), desc="Transporting", disable=not progress):
        stop = start + size
        cells = module.standardize(torch.from_numpy(x[start:stop]).to(module.device))[None]
        for step, (z, mixtures), batch in (
            (generator.encode, source, source_batch),
            (generator.decode, target, target_batch),
        ):
            codes = None if batch is None else batch[None, start:stop].to(module.device)
            cells = step(cells, module.latent(z), module.condition(z, mixtures, codes))
        result[start:stop] = module.restore(cells[0]).cpu().numpy()
    return result
