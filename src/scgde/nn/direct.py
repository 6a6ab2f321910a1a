"""Transports that are trained on pairs: what they have in common, and maps in one evaluation of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from scgde.nn._blocks import ConditionalMLP
from scgde.nn._random import CounterRandom
from scgde.nn.divergences import DIVERGENCES, Divergence
from scgde.nn.gaussians import gaussian_map, moments
from scgde.nn.generators import Condition
from scgde.nn.generators._divergence import drawn, with_batches


class Transport(nn.Module):
    """Moves cells of any population to any other, given both embeddings. Everything is in standardised features."""

    def loss(
        self,
        x: tuple[Tensor, Tensor],
        weight: tuple[Tensor, Tensor],
        z: tuple[Tensor, Tensor],
        condition: tuple[Condition, Condition],
        random: CounterRandom,
    ) -> Tensor:
        """Training loss of each pair of populations, (pairs,).

        Parameters
        ----------
        x, weight
            Cells (pairs, cells, features) and their masses (pairs, cells), of the sources and of the targets.
        z
            (pairs, n_latent), of both.
        condition
            Statistics and batches, of both.
        random
            Source of everything random in a step.
        """
        raise NotImplementedError

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
        """Cells (blocks, cells, features) at each of the increasing ``times``.

        Parameters
        ----------
        x
            (blocks, cells, features) cells of the sources.
        z_s, z_t
            (blocks, n_latent) embeddings of sources and targets.
        source, target
            Their statistics, and the batches of the moved cells.
        times
            From 0, the source, to 1, the target.
        random
            Source of the noise of each cell, (blocks * cells,) keys, where the transport takes any.
        """
        raise NotImplementedError


class DirectTransport(Transport):
    """A map that moves a cell in one evaluation, trained by a divergence between moved cells and those of the target.

    With moments m and C of both populations, their optimal Gaussian map A, and noise e::

        T(x, e; z_s, z_t) = m_t + A (x - m_s) + scale_t net(x, (x - m_s) / sd_s, e, z_s, z_t)

    The network starts at zero: an untrained map is the Gaussian one. Nothing in the divergence says which cell goes
    where, so what is learned need not keep cells near to where they come from.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_latent
        Size of an embedding.
    n_batch
        Number of batches; 0 where cells have none.
    n_noise
        Size of the noise; 0 for a deterministic map.
    width
        Hidden features; by default 128 up to 6 features and 256 above.
    n_layers
        Number of residual layers.
    dropout
        Share of hidden features set to zero in training.
    n_moved
        Cells that are moved per pair and training step, an even number.

    Notes
    -----
    "Distribution-conditioned transport" (2026), whose direct maps have neither noise nor a Gaussian base.
    """

    divergence: ClassVar[Divergence]

    def __init__(
        self,
        n_features: int,
        n_latent: int,
        n_batch: int = 0,
        *,
        n_noise: int = 4,
        width: int | None = None,
        n_layers: int = 3,
        dropout: float = 0.0,
        n_moved: int = 64,
    ) -> None:
        if n_moved < 4 or n_moved % 2:
            msg = f"n_moved={n_moved}: expected an even number of at least 4."
            raise ValueError(msg)
        super().__init__()
        self.n_batch, self.n_noise, self.n_moved = n_batch, n_noise, n_moved
        self.net = ConditionalMLP(
            2 * n_features + n_noise,
            2 * n_latent + 2,
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
        """Divergence between moved cells and those of the target, see :meth:`Transport.loss`."""
        n, (source, target) = self.n_moved, condition
        u = random.uniform("cells", 2 * n)
        start = drawn(weight[0], u[:, :n])[..., None].expand(-1, -1, x[0].shape[-1])
        batch = None if target.batch is None else target.batch.gather(1, drawn(weight[1], u[:, n:]))
        noise = random.normal("noise", n * self.n_noise).view(len(u), n, self.n_noise)
        end = Condition(target.mixtures, target.measured, batch)
        moved = self.moved(x[0].gather(1, start), noise, *z, source, end)
        with torch.autocast(moved.device.type, enabled=False):
            moved, real = (
                with_batches(*cells, self.n_batch) for cells in ((moved.float(), batch), (x[1], target.batch))
            )
            return type(self).divergence(moved, real, weight[1] / weight[1].sum(1, keepdim=True), random)

    def moved(self, x: Tensor, noise: Tensor, z_s: Tensor, z_t: Tensor, source: Condition, target: Condition) -> Tensor:
        """Where cells ``x`` (blocks, cells, features) go, with ``noise`` (blocks, cells, n_noise)."""
        with torch.autocast(x.device.type, enabled=False):
            (m0, c0), (m1, c1) = moments(source.mixtures), moments(target.mixtures)
            linear, centred = gaussian_map(c0, c1), x - m0[:, None]
            sd0, sd1 = ((c.diagonal(dim1=-2, dim2=-1) if source.mixtures.full else c).sqrt()[:, None] for c in (c0, c1))
            base = m1[:, None] + (centred @ linear.mT if source.mixtures.full else centred * linear[:, None])
        known = torch.cat([z_s, z_t, source.measured[:, None], target.measured[:, None]], dim=-1)
        return base + sd1 * self.net(torch.cat([x, centred / sd0, noise], dim=-1), known, target.batch)

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
        """Cells on the straight lines between where they are and where they go."""
        assert random is not None
        noise = random.normal("noise", self.n_noise).view(*x.shape[:2], self.n_noise)
        moved = self.moved(x, noise, z_s, z_t, source, target)
        for t in times:
            yield torch.lerp(x, moved, float(t))


def _trained_by(name: str) -> type[DirectTransport]:
    attributes = {"divergence": staticmethod(DIVERGENCES[name]), "__doc__": DirectTransport.__doc__}
    return type(f"{name.capitalize()}Transport", (DirectTransport,), attributes)


#: Maps by the name of their divergence.
DIRECT: dict[str, type[DirectTransport]] = {name: _trained_by(name) for name in DIVERGENCES}
