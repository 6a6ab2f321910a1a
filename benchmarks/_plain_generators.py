"""Plain conditional generators, from their published descriptions: flow matching and DDPM without closed-form parts.

The residual mean-pooled encoder of ``_plain.py``; a plain network on the cell, the time and the embedding, in
coordinates standardised over all cells ("Generative distribution embeddings", 2025). The flow pairs noise and cells
independently; the DDPM has 400 steps, betas from 1e-4 to .02, and samples ancestrally with all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from _plain import PlainEncoder, mlp
from torch import Tensor, nn

#: Noise levels of the DDPM, and midpoint steps of the flow (two evaluations each).
DDPM_STEPS, FLOW_STEPS = 400, 25


@dataclass
class PlainGenerator:
    """A plain conditional generator.

    Parameters
    ----------
    objective
        "flow" or "ddpm".
    n_features
        Number of features of a cell.
    n_latent, width
        Size of the embedding, and of all hidden layers.
    lr
        Learning rate of Adam; it decays to 0 by a cosine, which helps short runs.
    batch_size
        Populations per step.
    n_cells
        Cells of each population per step: all are encoded, and all are scored.
    seed
        Of weights, training and sampling.
    """

    objective: str
    n_features: int
    n_latent: int = 64
    width: int = 128
    lr: float = 1e-3
    batch_size: int = 64
    n_cells: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        self.kept = (1 - torch.linspace(1e-4, 0.02, DDPM_STEPS, dtype=torch.float64)).cumprod(0).float()

    def fit(self, x: Tensor, n_steps: int) -> PlainGenerator:
        """Train on ``x`` (populations, cells, features)."""
        self.center, self.scale = x.flatten(0, 1).mean(0), x.flatten(0, 1).std(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.encoder = PlainEncoder(self.n_features, self.n_latent, self.width)
            self.net = mlp(self.n_features + 1 + self.n_latent, self.width, self.n_features, 4)
            parameters = [*self.encoder.parameters(), *self.net.parameters()]
            optimizer = torch.optim.Adam(parameters, lr=self.lr)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
            for _ in range(n_steps):
                index = torch.randint(len(x), (self.batch_size,))
                cell = torch.rand(self.batch_size, x.shape[1]).argsort(1)[:, : self.n_cells]
                cells = (x[index[:, None], cell] - self.center) / self.scale
                loss = getattr(self, f"_{self.objective}_loss")(cells, self.encoder(cells))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 2.0)
                optimizer.step()
                schedule.step()
        return self

    def _output(self, x: Tensor, t: Tensor | float, z: Tensor) -> Tensor:
        """The network, its first layer split: what it makes of the embedding is computed once per population."""
        first = self.net[0]
        known = first.weight[:, self.n_features + 1 :] @ z.T
        t = torch.as_tensor(t).expand(*x.shape[:2], 1)
        of_cell = nn.functional.linear(torch.cat([x, t], -1), first.weight[:, : self.n_features + 1], first.bias)
        return self.net[1:](of_cell + known.T[:, None])

    def _flow_loss(self, x: Tensor, z: Tensor) -> Tensor:
        noise, t = torch.randn_like(x), torch.rand(*x.shape[:2], 1)
        return (self._output(torch.lerp(noise, x, t), t, z) - (x - noise)).square().mean()

    def _ddpm_loss(self, x: Tensor, z: Tensor) -> Tensor:
        level = torch.randint(DDPM_STEPS, (*x.shape[:2], 1))
        kept, noise = self.kept[level], torch.randn_like(x)
        noised = kept.sqrt() * x + (1 - kept).sqrt() * noise
        return (self._output(noised, (level + 1) / DDPM_STEPS, z) - noise).square().mean()

    @torch.no_grad()
    def sample(self, cells: Tensor, n: int, chunk: int = 8) -> Tensor:
        """Draw ``n`` cells of each population that has ``cells`` (populations, cells, features)."""
        random = torch.Generator().manual_seed(self.seed)
        parts = []
        for part in ((cells - self.center) / self.scale).split(chunk):
            x = torch.randn(len(part), n, self.n_features, generator=random)
            parts.append(getattr(self, f"_{self.objective}_sample")(x, self.encoder(part), random))
        return torch.cat(parts) * self.scale + self.center

    def _flow_sample(self, x: Tensor, z: Tensor, random: torch.Generator) -> Tensor:
        for i in range(FLOW_STEPS):
            middle = x + 0.5 / FLOW_STEPS * self._output(x, i / FLOW_STEPS, z)
            x = x + self._output(middle, (i + 0.5) / FLOW_STEPS, z) / FLOW_STEPS
        return x

    def _ddpm_sample(self, x: Tensor, z: Tensor, random: torch.Generator) -> Tensor:
        kept = self.kept.tolist()
        for i in reversed(range(DDPM_STEPS)):
            alpha = kept[i] / (kept[i - 1] if i else 1.0)
            noise = self._output(x, (i + 1) / DDPM_STEPS, z)
            x = (x - (1 - alpha) / (1 - kept[i]) ** 0.5 * noise) / alpha**0.5
            if i:
                x = x + (1 - alpha) ** 0.5 * torch.randn(x.shape, generator=random)
        return x
