"""Conditional flow matching on top of the closed-form drift of the group's own statistics."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from scgde.nn._blocks import ConditionalMLP, time_features
from scgde.nn._random import CounterRandom
from scgde.nn.generators._base import Condition, InvertibleGenerator
from scgde.nn.generators._drift import Drift


class Flow(InvertibleGenerator):
    """An invertible flow from standard normal noise to the cells of a group.

    The velocity is that of the group's mixture, in closed form, plus a network's correction::

        v(x, t; z) = drift(x, t) + scale(x, t) net(x, whitened x, t, z)

    The network starts at zero: an untrained flow already generates, and transports between, the mixtures.

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
    n_times
        Number of times per group and training step; the cells of a group are dealt to them.
    n_steps
        Integration steps, two network evaluations each.

    Notes
    -----
    Lipman et al., "Flow matching for generative modeling" (2023), with independent pairing of noise and cells.
    """

    n_steps: int

    def __init__(
        self,
        n_features: int,
        n_latent: int,
        n_batch: int = 0,
        *,
        width: int | None = None,
        n_layers: int = 3,
        dropout: float = 0.0,
        n_times: int = 4,
        n_steps: int = 10,
    ) -> None:
        super().__init__(n_features, n_latent, n_batch)
        self.n_times, self.n_steps = n_times, n_steps
        self.net = ConditionalMLP(
            2 * n_features,
            n_latent + 9,
            n_features,
            n_batch=n_batch,
            width=width or (128 if n_features <= 6 else 256),
            n_layers=n_layers,
            dropout=dropout,
        )

    def loss(self, x: Tensor, weight: Tensor, z: Tensor, condition: Condition, random: CounterRandom) -> Tensor:
        groups, cells, features = x.shape
        times = min(self.n_times, cells)
        fill = -cells % times
        noise = random.normal("noise", (cells + fill) * features).view(groups, cells + fill, features)
        # One time per stratum of [0, 1] and group; cell j of a group gets stratum j mod times. The strata are turned by
        # a random angle: where a group has fewer cells than slots, the slots in use are always the same ones.
        u = random.uniform("time", times + 1)
        t = self._time(((torch.arange(times, device=x.device) + u[:, 1:]) / times + u[:, :1]) % 1)

        def deal(cell_values: Tensor) -> Tensor:
            return cell_values.unflatten(1, (-1, times)).transpose(1, 2).flatten(0, 1)

        # Slots of weight 0 make the cells up to a multiple of the times.
        x, weight = nn.functional.pad(x, (0, 0, 0, fill)), nn.functional.pad(weight, (0, fill))
        batch = None if condition.batch is None else deal(nn.functional.pad(condition.batch, (0, fill)))
        index = torch.arange(groups, device=x.device).repeat_interleave(times)
        x0, x1, t = deal(noise), deal(x), t.flatten()
        block = replace(replace(condition, batch=None)[index], batch=batch)
        velocity, _ = self.velocity(torch.lerp(x0, x1, t[:, None, None]), t, z[index], block)
        error = self._loss_weight(t)[:, None] * (x1 - x0 - velocity).square().mean(-1)
        error = error.view(groups, times, -1).transpose(1, 2).flatten(1)
        return (weight * error).sum(1) / weight.sum(1).clamp_min(1e-12)

    def _time(self, u: Tensor) -> Tensor:
        """Times to train on, of uniform numbers."""
        return u

    def _loss_weight(self, t: Tensor) -> Tensor:
        """What the squared error of a velocity counts at these times."""
        return torch.ones_like(t)

    def _residual(self, x: Tensor, whitened: Tensor, t: Tensor, z: Tensor, condition: Condition) -> Tensor:
        """The network's output, of the order of 1."""
        level = ((1 - t).square() + t.square()).rsqrt()[:, None, None]
        features = torch.cat([x * level, whitened], dim=-1)
        known = torch.cat([z, time_features(t), condition.measured[:, None]], dim=-1)
        return self.net(features, known, condition.batch)

    def velocity(
        self, x: Tensor, t: Tensor, z: Tensor, condition: Condition, drift: Drift | None = None
    ) -> tuple[Tensor, Tensor]:
        """Velocity of cells ``x`` (groups, cells, features) at times ``t`` (groups,), and their responsibilities.

        ``drift`` is that of the condition's mixtures, where it is at hand.
        """
        velocity, whitened, scale, share = (drift or Drift(condition.mixtures))(x, t)
        if not condition.trusted:
            return velocity, share
        learned = scale * self._residual(x, whitened, t, z, condition)
        if condition.trust is not None:
            learned = condition.trust[:, None, None] * learned
        return velocity + learned, share

    def _integrate(self, x: Tensor, z: Tensor, condition: Condition, start: float, stop: float, n_steps: int) -> Tensor:
        """Solve dx/dt = v(x, t) by the midpoint rule, exactly where v is the drift of a single component."""
        drift = Drift(condition.mixtures)
        step = (stop - start) / n_steps
        for i in range(n_steps):
            first = start + i * step
            at, point = first, x
            for t in (first + 0.5 * step, first + step):
                now = x.new_full((len(x),), at)
                velocity, share = self.velocity(point, now, z, condition, drift)
                point = x + (t - first) * velocity + drift.bend(share, x, first, at, t)
                at = t
            x = point
        return x

    def encode(self, x: Tensor, z: Tensor, condition: Condition) -> Tensor:
        return self._integrate(x, z, condition, 1.0, 0.0, self.n_steps)

    def decode(self, noise: Tensor, z: Tensor, condition: Condition, *, n_steps: int | None = None) -> Tensor:
        return self._integrate(noise, z, condition, 0.0, 1.0, n_steps or self.n_steps)
