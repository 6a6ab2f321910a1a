"""The papers' way to train, from its description: a Dataset of padded sets, a collate, and a plain loop over batches.

Every set of cells has one length and lies in memory. An item is one pair of populations, drawn anew each time; the
collate stacks the pairs of a batch; worker processes make the batches. Source and target are encoded separately. What
is known of a population is concatenated to each of its cells: the embeddings in the velocity, and what was pooled in
the encoder. Otherwise the encoder is our own, level by level, and the velocity has as many layers of our width.

:class:`PlainLoop` is as published. :class:`SameArithmetic` has what our flow on pairs has besides: statistics of each
set in its embedding, and the closed-form velocity between the moments of source and target. A plain loop knows the
cells of the batch alone, and computes the statistics from them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from _plain import PlainFlow, mlp
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from scgde import TDE
from scgde.nn.encoders import Encoder, Level
from scgde.nn.encoders._base import Lift, readout, standardizing
from scgde.nn.gaussians import moments
from scgde.nn.statistics import MixtureStatistics

#: Pairs of a step, cells of each population, width of all networks and size of the embedding.
PAIRS, CELLS, WIDTH, LATENT = 256, 100, 64, 64

#: Processes that make the batches.
WORKERS = 2


class Pairs(Dataset):
    """Ordered pairs of populations, each a random part of a padded set.

    Parameters
    ----------
    x
        (populations, cells, features), standardised.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        j = int(torch.randint(len(self.x), ()))
        return {"source": self._part(i), "target": self._part(j)}

    def _part(self, i: int) -> Tensor:
        return self.x[i, torch.randperm(self.x.shape[1])[:CELLS]]


def collate(items: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """Sources and targets of a batch, each (pairs, cells, features)."""
    return torch.stack([item["source"] for item in items]), torch.stack([item["target"] for item in items])


def loader(x: Tensor, workers: int = WORKERS) -> DataLoader:
    """Batches without end."""
    pairs = Pairs(x)
    sampler = RandomSampler(pairs, replacement=True, num_samples=10**6 * PAIRS)
    return DataLoader(pairs, PAIRS, sampler=sampler, collate_fn=collate, num_workers=workers)


class _Concatenated(Level):
    """The block of our ResNet with what was pooled beside each cell, in place of adding it once per population."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.activation = nn.LayerNorm(WIDTH), nn.SiLU()
        self.inner, self.outer = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        both = torch.cat([self.norm(hidden), context.expand_as(hidden)], dim=-1)
        return hidden + self.outer(self.activation(self.inner(both)))


class _Encoder(Encoder):
    """Our ResNet at its defaults, for populations whose cells all count the same."""

    def __init__(self, n_features: int, n_code: int) -> None:
        levels = [*standardizing(), Lift(n_features, WIDTH), _Concatenated(), _Concatenated()]
        super().__init__(n_features, n_code, levels, readout(WIDTH, n_code))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x.new_full(x.shape[:2], 1 / x.shape[1]))


class PlainLoop(PlainFlow):
    """A plain flow between pairs with our encoder, trained on whatever batches it is given."""

    def __init__(self, x: Tensor, seed: int) -> None:
        super().__init__(x.shape[-1], LATENT, WIDTH, batch_size=PAIRS, n_cells=CELLS, seed=seed)
        self.center, self.scale = x.flatten(0, 1).mean(0), x.flatten(0, 1).std(0)
        self.spread = torch.ones(self.n_features)
        torch.manual_seed(seed)
        self.build()
        self.optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        #: Seconds trained for, which the learning rate falls with.
        self.seconds = 0.0

    def build(self) -> None:
        """See :meth:`PlainFlow.build`."""
        super().build()
        self.encoder = _Encoder(self.n_features, LATENT)

    def standardized(self, x: Tensor) -> Tensor:
        """Cells in units of the training cells' spread."""
        return (x - self.center) / self.scale

    def steps_per_second(self, batches: Iterable[Any], steps: int, warm_up: int = 3) -> float:
        """Steps per second after a few that start everything."""
        iterator: Iterator[Any] = iter(batches)
        for step in range(warm_up + steps):
            if step == warm_up:
                start = time.perf_counter()
            self.step(*next(iterator), self.optimizer)
        return steps / (time.perf_counter() - start)

    def train_until(self, batches: Iterator[Any], seconds: float, budget: float) -> int:
        """Train until so many seconds were spent of a budget, over which the learning rate falls; count the steps."""
        steps, start = 0, time.perf_counter() - self.seconds
        while self.seconds < seconds:
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, self.seconds / budget)))
            self.step(*next(batches), self.optimizer)
            steps, self.seconds = steps + 1, time.perf_counter() - start
        return steps

    @torch.no_grad()
    def transport(self, source: Tensor, target: Tensor, n_steps: int = 20) -> Tensor:
        """See :meth:`PlainFlow.transport`."""
        moved = super().transport(self.standardized(source), self.standardized(target), n_steps)
        return moved * self.scale + self.center


class Encoded(NamedTuple):
    """Embedding (populations, latent), mean and variances (populations, features)."""

    z: Tensor
    mean: Tensor
    variance: Tensor


class _WithStatistics(nn.Module):
    """Statistics of the cells of each population beside the code of an encoder."""

    def __init__(self, statistics: MixtureStatistics, encoder: nn.Module) -> None:
        super().__init__()
        self.statistics, self.encoder = statistics, encoder

    def forward(self, x: Tensor) -> Encoded:
        with torch.no_grad():
            sums = self.statistics.sums(x, x.new_full(x.shape[:2], 1 / x.shape[1]))
            mixtures = self.statistics.mixtures(sums)
            coordinates = self.statistics.coordinates(mixtures) / self.statistics.spread
            mean, variance = moments(mixtures)
        return Encoded(torch.cat([coordinates, self.encoder(x)], dim=-1), mean, variance)


class SameArithmetic(PlainLoop):
    """The loop with all that our flow on pairs computes; the shared statistics are those of a trained ``model``."""

    def __init__(self, x: Tensor, seed: int, model: TDE) -> None:
        self.module = model.module
        super().__init__(x, seed)
        self.center, self.scale = self.module.shift, self.module.scale

    def build(self) -> None:
        """See :meth:`PlainFlow.build`."""
        n_code = LATENT - self.module.n_coordinates
        self.encoder = _WithStatistics(self.module.statistics, _Encoder(self.n_features, n_code))
        self.velocity = mlp(2 * self.n_features + 1 + 2 * LATENT, WIDTH, self.n_features, 4)

    def _velocity(self, x: Tensor, t: Tensor, source: Encoded, target: Encoded) -> Tensor:
        # Gaussians that are paired at random, as in PairTransport with coupling="independent".
        m0, c0, m1, c1 = (each[:, None] for each in (source.mean, source.variance, target.mean, target.variance))
        centred, variance = x - torch.lerp(m0, m1, t), (1 - t).square() * c0 + t.square() * c1
        drift = m1 - m0 + centred * (t * c1 - (1 - t) * c0) / variance
        z = torch.cat([source.z, target.z], dim=-1)[:, None].expand(-1, x.shape[1], -1)
        return drift + c1.sqrt() * self.velocity(torch.cat([x, centred / variance.sqrt(), t, z], dim=-1))
