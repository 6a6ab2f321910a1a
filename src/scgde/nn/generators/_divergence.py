"""Generators that are trained by a divergence: noise in, cells out, one evaluation of the network."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from scgde.nn._blocks import ConditionalMLP
from scgde.nn._random import CounterRandom
from scgde.nn.divergences import DIVERGENCES, Divergence
from scgde.nn.generators._base import Condition, Generator
from scgde.nn.mixtures import Mixtures


def drawn(weight: Tensor, u: Tensor) -> Tensor:
    """Indices (groups, n) drawn by weight (groups, m) with uniform numbers (groups, n); weight 0 is never drawn."""
    cumulative = weight.cumsum(1)
    return torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True).clamp_max(weight.shape[1] - 1)


def with_batches(x: Tensor, batch: Tensor | None, n_batch: int) -> Tensor:
    """Cells with their batches as further features, about as far apart as cells are."""
    if batch is None:
        return x
    return torch.cat([x, x.shape[-1] ** 0.5 * nn.functional.one_hot(batch, n_batch).to(x)], dim=-1)


def draw_components(mixtures: Mixtures, n: int, random: CounterRandom) -> tuple[Tensor, Tensor]:
    """Components (groups, n) drawn by weight, and standard normal noise (groups, n, features)."""
    groups, _, features = mixtures.mean.shape
    component = drawn(mixtures.weight, random.uniform("component", n))
    return component, random.normal("noise", n * features).view(groups, n, features)


def place(noise: Tensor, component: Tensor, mixtures: Mixtures) -> Tensor:
    """Positions of standardised positions ``noise`` (groups, cells, features) within their components."""
    group = torch.arange(len(noise), device=noise.device)[:, None]
    root = mixtures.root[group, component]
    inner = torch.einsum("gnij,gnj->gni", root, noise) if mixtures.full else root * noise
    return mixtures.mean[group, component] + inner


class DivergenceGenerator(Generator):
    """A map from a draw of the group's mixture to a cell, trained by a divergence to real cells.

    With a component c and noise e, both drawn::

        x = mean_c + root_c e + scale_c net(mean_c + root_c e, e, z)

    The network starts at zero: an untrained map already generates the mixture. Where the model knows batches, cells and
    batches are compared jointly.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_latent
        Size of the embedding.
    n_batch
        Number of batches; 0 where cells have none.
    width
        Hidden features; by default 128 up to 6 features and 256 above.
    n_layers
        Number of residual layers.
    dropout
        Share of hidden features set to zero in training.
    n_generated
        Cells that are generated per group and training step, an even number.
    """

    divergence: ClassVar[Divergence]

    def __init__(
        self,
        n_features: int,
        n_latent: int,
        n_batch: int = 0,
        *,
        width: int | None = None,
        n_layers: int = 3,
        dropout: float = 0.0,
        n_generated: int = 64,
    ) -> None:
        if n_generated < 4 or n_generated % 2:
            msg = f"n_generated={n_generated}: expected an even number of at least 4."
            raise ValueError(msg)
        super().__init__(n_features, n_latent, n_batch)
        self.n_generated = n_generated
        self.net = ConditionalMLP(
            2 * n_features,
            n_latent + 1,
            n_features,
            n_batch=n_batch,
            width=width or (128 if n_features <= 6 else 256),
            n_layers=n_layers,
            dropout=dropout,
        )

    def loss(self, x: Tensor, weight: Tensor, z: Tensor, condition: Condition, random: CounterRandom) -> Tensor:
        batch, n = None, self.n_generated
        weight = weight / weight.sum(1, keepdim=True)
        if condition.batch is not None:
            batch = condition.batch.gather(1, drawn(weight, random.uniform("batch", n)))
        generated = self._generate(z, n, replace(condition, batch=batch), random)
        with torch.autocast(x.device.type, enabled=False):
            generated = with_batches(generated.float(), batch, self.n_batch)
            return type(self).divergence(generated, with_batches(x, condition.batch, self.n_batch), weight, random)

    def _generate(self, z: Tensor, n: int, condition: Condition, random: CounterRandom) -> Tensor:
        mixtures = condition.mixtures
        component, noise = draw_components(mixtures, n, random)
        base = place(noise, component, mixtures)
        spread = mixtures.root.diagonal(dim1=-2, dim2=-1) if mixtures.full else mixtures.root
        scale = spread.mean(-1).gather(1, component)[..., None]
        known = torch.cat([z, condition.measured[:, None]], dim=-1)
        learned = scale * self.net(torch.cat([base, noise], dim=-1), known, condition.batch)
        return base + (learned if condition.trust is None else condition.trust[:, None, None] * learned)

    def sample(
        self, z: Tensor, n: int, condition: Condition, random: CounterRandom, *, n_steps: int | None = None
    ) -> Tensor:
        with torch.no_grad():
            return self._generate(z, n, condition, random)


def _trained_by(name: str) -> type[DivergenceGenerator]:
    attributes = {"divergence": staticmethod(DIVERGENCES[name]), "__doc__": DivergenceGenerator.__doc__}
    return type(f"{name.capitalize()}Generator", (DivergenceGenerator,), attributes)


#: Generators by the name of their divergence.
BY_DIVERGENCE: dict[str, type[DivergenceGenerator]] = {name: _trained_by(name) for name in DIVERGENCES}
