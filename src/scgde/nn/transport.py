"""Direct transport: a velocity field from any population to any other, conditioned on both embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scgde.nn._blocks import ConditionalMLP, time_features
from scgde.nn._random import CounterRandom
from scgde.nn.couplings import COUPLINGS
from scgde.nn.direct import DIRECT, Transport
from scgde.nn.gaussians import gaussian_map, moments
from scgde.nn.generators import Condition
from scgde.nn.mixtures import Mixtures, symmetric_root
from scgde.nn.ode import integrate


@dataclass(frozen=True)
class _GaussianPath:
    """The path between the moments of pairs of populations, under a coupling.

    Parameters
    ----------
    mean
        (pairs, features) of source and target.
    covariance
        Of source and target: variances (pairs, features), or matrices.
    linear
        The optimal map's linear part, in the same shape; None where cells are coupled independently.
    """

    mean: tuple[Tensor, Tensor]
    covariance: tuple[Tensor, Tensor]
    linear: Tensor | None

    @classmethod
    def between(cls, source: Mixtures, target: Mixtures, *, independent: bool) -> _GaussianPath:
        """The path between the moments of mixtures."""
        (m0, c0), (m1, c1) = moments(source), moments(target)
        return cls((m0, m1), (c0, c1), None if independent else gaussian_map(c0, c1))

    def __getitem__(self, index: Tensor) -> _GaussianPath:
        (m0, m1), (c0, c1) = self.mean, self.covariance
        linear = None if self.linear is None else self.linear[index]
        return _GaussianPath((m0[index], m1[index]), (c0[index], c1[index]), linear)

    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Velocity of cells ``x`` (pairs, cells, features) at ``t`` (pairs, 1, 1), whitened cells and target scale."""
        (m0, m1), (c0, c1), linear = self.mean, self.covariance, self.linear
        centred = x - torch.lerp(m0[:, None], m1[:, None], t)
        shift = (m1 - m0)[:, None]
        full = c0.ndim == 3
        if linear is None:
            c0, c1 = (c if full else c[:, None] for c in (c0, c1))
            covariance = (1 - t).square() * c0 + t.square() * c1
            cross = t * c1 - (1 - t) * c0
            gain = cross @ covariance.inverse() if full else cross / covariance
        else:
            unit = torch.eye(x.shape[-1], device=x.device).expand_as(linear) if full else torch.ones_like(linear)
            linear, unit = (value if full else value[:, None] for value in (linear, unit))
            between = torch.lerp(unit, linear, t)
            gain = (linear - unit) @ between.inverse() if full else (linear - unit) / between
            covariance = between @ c0 @ between.transpose(1, 2) if full else between.square() * c0[:, None]
        if not full:
            root = covariance.sqrt()
            return shift + centred * gain, centred / root, c1.view_as(shift).sqrt()
        inverse = symmetric_root(covariance).inverse()
        scale = c1.diagonal(dim1=-2, dim2=-1).mean(-1).sqrt()[:, None, None]
        return shift + centred @ gain.transpose(1, 2), centred @ inverse, scale


class PairTransport(Transport):
    """A velocity field that moves cells of a source population to a target population.

    The velocity is that of the Gaussian path with the moments of both populations, in closed form, plus a network's
    correction, which starts at zero::

        v(x, t; z_s, z_t) = gaussian(x, t) + net(x, whitened x, t, z_s, z_t)

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_latent
        Size of an embedding.
    n_batch
        Number of batches; 0 where cells have none.
    coupling
        Name in :data:`scgde.nn.couplings.COUPLINGS`.
    condition_on
        "both" embeddings, or the "source" alone: then the target's embedding is zero and its statistics are not used.
    base
        "gaussian", or "none" for a plain network on standardised cells, as published.
    width
        Hidden features; by default 128 up to 6 features and 256 above.
    n_layers
        Number of residual layers.
    dropout
        Share of hidden features set to zero in training.
    n_times
        Number of times per pair and training step; the pairs of cells are dealt to them.
    n_steps
        Integration steps, two network evaluations each.

    Notes
    -----
    "Distribution-conditioned transport" (2026): any-to-any flow matching on pairs of populations. The Gaussian base is
    ours.
    """

    def __init__(
        self,
        n_features: int,
        n_latent: int,
        n_batch: int = 0,
        *,
        coupling: str = "ot",
        condition_on: str = "both",
        base: str = "gaussian",
        width: int | None = None,
        n_layers: int = 3,
        dropout: float = 0.0,
        n_times: int = 4,
        n_steps: int = 8,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("coupling", coupling, list(COUPLINGS)),
            ("condition_on", condition_on, ["both", "source"]),
            ("base", base, ["gaussian", "none"]),
        ):
            if value not in known:
                msg = f"{name}={value!r} is unknown: choose from {known}."
                raise ValueError(msg)
        self.n_features, self.coupling, self.n_times, self.n_steps = n_features, coupling, n_times, n_steps
        self.condition_on, self.base = condition_on, base
        self.net = ConditionalMLP(
            2 * n_features,
            2 * n_latent + 8,
            n_features,
            n_batch=n_batch,
            width=width or (128 if n_features <= 6 else 256),
            n_layers=n_layers,
            dropout=dropout,
        )

    def loss(
        self,
        x: tuple[Tensor, Tensor],
        weight: tuple[Tensor, Tensor],
        z: tuple[Tensor, Tensor],
        condition: tuple[Condition, Condition],
        random: CounterRandom,
    ) -> Tensor:
        """Mean squared error of the velocity on coupled cells, see :meth:`Transport.loss`."""
        pairs, cells, features = x[0].shape
        times = min(self.n_times, cells)
        n = cells - cells % times
        i, j = (index[:, :n] for index in self._couple(x, weight, random))
        # The times of a population pair are spread over [0, 1]; pairs of cells are dealt to them.
        u = random.uniform("time", times)
        t = ((torch.arange(times, device=u.device) + u) / times).to(x[0])

        def deal(values: Tensor) -> Tensor:
            return values.view(pairs, n // times, times, *values.shape[2:]).transpose(1, 2).flatten(0, 1)

        x0, x1 = (
            deal(torch.gather(cell, 1, index[..., None].expand(-1, -1, features)))
            for cell, index in zip(x, (i, j), strict=True)
        )
        batch = None if condition[1].batch is None else deal(torch.gather(condition[1].batch, 1, j))
        block = torch.arange(pairs, device=x0.device).repeat_interleave(times)
        t = t.flatten()
        xt = torch.lerp(x0, x1, t[:, None, None])
        base = self._base(*condition)
        base = base and base[block]
        error = x1 - x0 - self._velocity(xt, t, z[0][block], z[1][block], base, batch)
        return error.square().mean((1, 2)).view(pairs, times).mean(1)

    def _couple(self, x: tuple[Tensor, Tensor], weight: tuple[Tensor, Tensor], random: CounterRandom):
        """Indices of coupled cells, (pairs, cells) each, in an order without meaning."""
        pairs, cells = x[0].shape[:2]
        u = random.uniform("order", cells + 1).cpu().double().numpy()
        (x0, x1), (w0, w1) = ([each.detach().cpu().double().numpy() for each in both] for both in (x, weight))
        w0, w1 = (each / each.sum(1, keepdims=True) for each in (w0, w1))
        # Equally spaced draws take each of n equal cells once.
        spaced, order = (np.arange(cells) + u[:, -1:]) / cells, np.argsort(u[:, :-1], axis=1)
        couple, rows = COUPLINGS[self.coupling], np.empty((2, pairs, cells), dtype=np.int64)
        for p in range(pairs):
            rows[0, p], rows[1, p] = couple(x0[p], w0[p], x1[p], w1[p], spaced[p])
        return torch.from_numpy(np.take_along_axis(rows, order[None], axis=2)).to(x[0].device)

    def _base(self, source: Condition, target: Condition) -> _GaussianPath | None:
        """The closed form between pairs of populations, made once for all cells and times."""
        if self.base == "none":
            return None
        ends = source, source if self.condition_on == "source" else target
        return _GaussianPath.between(*(each.mixtures for each in ends), independent=self.coupling == "independent")

    def _velocity(
        self, x: Tensor, t: Tensor, z_s: Tensor, z_t: Tensor, base: _GaussianPath | None, batch: Tensor | None
    ) -> Tensor:
        """Velocity of cells ``x`` (blocks, cells, features) at times ``t`` (blocks,)."""
        if self.condition_on == "source":
            z_t = torch.zeros_like(z_t)
        known = torch.cat([z_s, z_t, time_features(t)], dim=-1)
        if base is None:
            return self.net(torch.cat([x, x], dim=-1), known, batch)
        drift, whitened, scale = base(x, t[:, None, None])
        return drift + scale * self.net(torch.cat([x, whitened], dim=-1), known, batch)

    def path(
        self,
        x: Tensor,
        z_s: Tensor,
        z_t: Tensor,
        source: Condition,
        target: Condition,
        times: Sequence[float],
        random: CounterRandom | None = None,
    ) -> Iterator[Tensor]:
        """Cells at each of the increasing ``times``, see :meth:`Transport.path`."""
        base = self._base(source, target)

        def velocity(x: Tensor, t: float) -> Tensor:
            return self._velocity(x, torch.full((len(x),), t, device=x.device), z_s, z_t, base, target.batch)

        now = 0.0
        for t in times:
            n_steps = max(1, round(self.n_steps * (float(t) - now)))
            x = integrate(velocity, x, now, float(t), n_steps) if t > now else x
            now = float(t)
            yield x


#: Transports that are trained on pairs, by the name of their ``method``.
TRANSPORTS: dict[str, type[Transport]] = {"flow": PairTransport, **DIRECT}
