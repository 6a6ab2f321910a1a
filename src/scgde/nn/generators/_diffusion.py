"""Denoising diffusion of the residual of the group's mixture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scgde.nn._random import CounterRandom
from scgde.nn.generators._base import Condition
from scgde.nn.generators._drift import Drift
from scgde.nn.generators._flow import Flow

#: Levels of noise that are trained on.
N_LEVELS = 400


def _cosine() -> Tensor:
    return torch.cos(0.5 * math.pi * torch.arange(N_LEVELS + 1, dtype=torch.float64) / N_LEVELS)


def _linear() -> Tensor:
    kept = 1 - torch.linspace(1e-4, 0.02, N_LEVELS, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), kept.cumprod(0).sqrt()])


#: Share of the cell in x_n = share x_1 + sqrt(1 - share^2) x_0 at the levels n = 0 … N_LEVELS, by name.
SCHEDULES: dict[str, Callable[[], Tensor]] = {"cosine": _cosine, "linear": _linear}

#: Steps by name of the sampler, where none are given.
SAMPLERS = {"midpoint": 10, "ancestral": N_LEVELS}


class Diffusion(Flow):
    """A network that predicts the noise in a cell, as a correction of the prediction by the group's mixture.

    A cell at level n is x_n = a x_1 + b x_0 with a^2 + b^2 = 1. Divided by a + b it lies on the path of :class:`Flow`,
    at t = a / (a + b), so the mixture's prediction is known in closed form::

        noise(x, t; z) = x - t (drift(x, t) + scale(x, t) net(x, whitened x, t, z))

    What differs from the flow is the training (the squared error of the noise, at the levels of a schedule) and the
    sampling. The deterministic sampler is invertible.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_latent
        Size of the embedding.
    n_batch
        Number of batches; 0 where cells have none.
    schedule
        "cosine", or "linear" as published, whose last level is not quite noise.
    sampler
        "midpoint", deterministic, that of :class:`Flow` with two network evaluations per step; or "ancestral", as
        published, with one evaluation and fresh noise per step.
    n_steps
        Steps of the sampler; by default 10, or all 400 of "ancestral".
    **kwargs
        Those of :class:`Flow`.

    Notes
    -----
    Ho et al., "Denoising diffusion probabilistic models" (2020); schedule of Nichol and Dhariwal (2021). In the
    coordinates of the flow a step of DDIM (Song et al., 2021) is one of Euler's method; the midpoint rule is of second
    order, as the sampler of Karras et al., "Elucidating the design space of diffusion-based generative models" (2022).
    """

    times: Tensor

    def __init__(
        self,
        n_features: int,
        n_latent: int,
        n_batch: int = 0,
        *,
        schedule: str = "cosine",
        sampler: str = "midpoint",
        n_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        for name, value, known in (("schedule", schedule, SCHEDULES), ("sampler", sampler, SAMPLERS)):
            if value not in known:
                msg = f"{name}={value!r} is unknown: choose from {list(known)}."
                raise ValueError(msg)
        super().__init__(n_features, n_latent, n_batch, n_steps=n_steps or SAMPLERS[sampler], **kwargs)
        self.sampler = sampler
        share = SCHEDULES[schedule]()
        time = share / (share + (1 - share.square()).clamp_min(0).sqrt())
        self.register_buffer("times", time.float(), persistent=False)

    def _time(self, u: Tensor) -> Tensor:
        return self.times[1 + (u * N_LEVELS).long()]

    def _loss_weight(self, t: Tensor) -> Tensor:
        # The noise is x - t v.
        return t.square()

    def encode(self, x: Tensor, z: Tensor, condition: Condition) -> Tensor:
        # Codes of cells are deterministic with either sampler.
        n_steps = SAMPLERS["midpoint"] if self.sampler == "ancestral" else self.n_steps
        return self._integrate(x, z, condition, 1.0, 0.0, n_steps)

    def sample(
        self, z: Tensor, n: int, condition: Condition, random: CounterRandom, *, n_steps: int | None = None
    ) -> Tensor:
        if self.sampler != "ancestral":
            return super().sample(z, n, condition, random, n_steps=n_steps)
        n_steps = n_steps or self.n_steps
        if n_steps > N_LEVELS:
            msg = f"n_steps={n_steps}: the ancestral sampler has {N_LEVELS} levels of noise, and no more steps."
            raise ValueError(msg)

        def noise(step: int) -> Tensor:
            draws = replace(random, step=random.step + step).normal("noise", n * self.n_features)
            return draws.view(len(z), n, self.n_features)

        with torch.no_grad():
            return self._ancestral(noise, z, condition, n_steps)

    def _ancestral(self, noise: Callable[[int], Tensor], z: Tensor, condition: Condition, n_steps: int) -> Tensor:
        """Draw each level from its distribution given the level above and the predicted cell."""
        level = torch.linspace(N_LEVELS, 0, n_steps + 1).round().long()
        times = self.times[level].double()
        share = times / (times.square() + (1 - times).square()).sqrt()
        variance = 1 - share.square()
        x, drift = noise(0), Drift(condition.mixtures)
        for i, t in enumerate(times[:-1].tolist()):
            unit = math.hypot(t, 1 - t)
            point = unit * x
            velocity, _ = self.velocity(point, torch.full((len(x),), t, device=x.device), z, condition, drift)
            cell = point + (1 - t) * velocity
            kept = share[i] / share[i + 1]
            fresh = 1 - kept.square()
            x = float(share[i + 1] * fresh / variance[i]) * cell + float(kept * variance[i + 1] / variance[i]) * x
            spread = float((fresh * variance[i + 1] / variance[i]).clamp_min(0).sqrt())
            x = x + spread * noise(i + 1) if spread else x
        return x
