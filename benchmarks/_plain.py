"""The papers' way, from their published description: a plain flow between pairs of populations, in raw coordinates.

Encoder: the residual mean-pooled network ("ResNet-GNN") with SELU; velocity: a plain network on the cell, the time and
both embeddings, concatenated; training: random ordered pairs of populations, cells paired at random, a straight path
with constant noise ("Distribution-conditioned transport", 2026; facts on encoder and velocity from its text).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


def mlp(n_in: int, width: int, n_out: int, n_hidden: int) -> nn.Sequential:
    """Fully connected network with SELU."""
    sizes = [n_in, *[width] * n_hidden]
    layers = [each for a, b in zip(sizes, sizes[1:], strict=False) for each in (nn.Linear(a, b), nn.SELU())]
    return nn.Sequential(*layers, nn.Linear(width, n_out))


class _Pooled(nn.Module):
    """Each cell beside the mean over its population, through a network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = mlp(2 * width, width, width, 2)

    def forward(self, h: Tensor) -> Tensor:
        return self.net(torch.cat([h, h.mean(1, keepdim=True).expand_as(h)], dim=-1))


class PlainEncoder(nn.Module):
    """Residual mean-pooled encoder of populations (populations, cells, features) to (populations, latent)."""

    def __init__(self, n_features: int, n_latent: int, width: int) -> None:
        super().__init__()
        self.first, self.skip = mlp(n_features, width, width, 2), nn.Linear(n_features, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.blocks = nn.ModuleList(_Pooled(width) for _ in range(2))
        self.skips = nn.ModuleList(nn.Linear(n_features, width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.last = nn.Sequential(nn.Linear(width, n_latent), nn.SELU())

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first(x) + self.skip(x))
        for block, skip, norm in zip(self.blocks, self.skips, self.norms, strict=True):
            h = norm(block(h) + h + skip(x))
        return self.last(h.mean(1))


@dataclass
class PlainFlow:
    """A plain pair-trained flow.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_latent, width
        Size of the embedding, and of all hidden layers.
    lr
        Learning rate of Adam; it decays to 0 by a cosine, which helps short runs.
    batch_size
        Pairs of populations per step.
    n_cells
        Cells of each population per step.
    sigma
        Standard deviation of the path's noise, in units of the features' pooled standard deviation.
    seed
        Of weights and training.
    """

    n_features: int
    n_latent: int = 64
    width: int = 128
    lr: float = 1e-3
    batch_size: int = 64
    n_cells: int = 100
    sigma: float = 0.0
    seed: int = 0

    def fit(self, x: Tensor, n_steps: int) -> PlainFlow:
        """Train on ``x`` (populations, cells, features)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.build()
            optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
            self.spread = x.flatten(0, 1).std(0)
            for _ in range(n_steps):
                index = torch.randint(len(x), (2 * self.batch_size,))
                cell = torch.rand(2 * self.batch_size, x.shape[1]).argsort(1)[:, : self.n_cells]
                self.step(*x[index[:, None], cell].chunk(2), optimizer)
                schedule.step()
        return self

    def build(self) -> None:
        """Make the networks."""
        self.encoder = PlainEncoder(self.n_features, self.n_latent, self.width)
        self.velocity = mlp(self.n_features + 1 + 2 * self.n_latent, self.width, self.n_features, 4)

    def parameters(self) -> list[nn.Parameter]:
        """Of both networks."""
        return [*self.encoder.parameters(), *self.velocity.parameters()]

    def step(self, x0: Tensor, x1: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """One step of training, from sources to targets, both (pairs, cells, features)."""
        t = torch.rand(*x0.shape[:2], 1)
        xt = torch.lerp(x0, x1, t) + self.sigma * self.spread * torch.randn_like(x0)
        loss = (self._velocity(xt, t, self.encoder(x0), self.encoder(x1)) - (x1 - x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), 2.0)
        optimizer.step()

    def _velocity(self, x: Tensor, t: Tensor, z_source: Tensor, z_target: Tensor) -> Tensor:
        z = torch.cat([z_source, z_target], dim=-1)[:, None].expand(-1, x.shape[1], -1)
        return self.velocity(torch.cat([x, t, z], dim=-1))

    @torch.no_grad()
    def transport(self, source: Tensor, target: Tensor, n_steps: int = 20) -> Tensor:
        """Cells of ``source`` populations moved to ``target`` populations, both (populations, cells, features)."""
        z = self.encoder(source), self.encoder(target)
        x = source
        for i in range(n_steps):
            t = torch.full((*x.shape[:2], 1), i / n_steps)
            middle = x + 0.5 / n_steps * self._velocity(x, t, *z)
            x = x + self._velocity(middle, t + 0.5 / n_steps, *z) / n_steps
        return x
