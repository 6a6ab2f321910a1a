"""The closed-form velocity that carries standard normal noise to a group's mixture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scgde.nn.mixtures import Mixtures

#: Numbers (blocks, components, features) that a processor works on at a time: they stay in its cache.
CACHED = 2**17


@dataclass(frozen=True)
class Drift:
    """Velocity of the path x_t = (1 - t) x_0 + t x_1 from N(0, I) to a mixture, in closed form.

    With weights p_k, means m_k and covariances C_k, and x_0 independent of x_1::

        mean_k(t) = t m_k          cov_k(t) = (1 - t)^2 I + t^2 C_k          r_k(x, t) ~ p_k N(x; mean_k, cov_k)
        v(x, t)   = sum_k r_k(x, t) [ m_k + (t C_k - (1 - t) I) cov_k(t)^-1 (x - t m_k) ]

    It generates the mixture exactly, and is what a network has to correct.

    Parameters
    ----------
    mixtures
        Mixtures of the blocks of cells.
    """

    mixtures: Mixtures

    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Velocity, whitened position and scale of the remainder, in the shape of ``x``, and responsibilities.

        Parameters
        ----------
        x
            (blocks, cells, features).
        t
            (blocks,) one time per block, so that all heavy work is matrix products.

        Returns
        -------
        velocity, whitened, scale, share
            v(x, t); the expected position within a component, in its standard deviations; the standard deviation of
            x_1 - x_0 given x_t inside a component, averaged over components; r_k(x, t), (blocks, cells, components).
        """
        # Low precision is for the network: a drift that is wrong in the third digit is what the network would learn.
        with torch.autocast(x.device.type, enabled=False):
            if x.device.type == "cpu" and len(self._parts) > 1:
                size = len(self._parts[0].mixtures.mean)
                split = zip(self._parts, x.split(size), t.split(size), strict=True)
                velocity, whitened, scale, share = zip(*(drift(*part) for drift, *part in split), strict=True)
                return torch.cat(velocity), torch.cat(whitened), torch.cat(scale), torch.cat(share)
            t = t[:, None, None]
            return (self._full if self.mixtures.full else self._diagonal)(x, t, t * self.mixtures.mean)

    def bend(self, share: Tensor, x: Tensor, start: float, at: float, stop: float) -> Tensor:
        """What the straight step from ``x`` at ``start`` to ``stop``, with the velocity at ``at``, misses of the way.

        Inside a component the way is known: in units of its standard deviations, cov_k(t)^1/2, a cell stays where it
        is. The straight step takes too little of the spread of narrow components. The difference is averaged over
        components, in the shape of ``x``.

        Parameters
        ----------
        share
            (blocks, cells, components) responsibilities where the velocity was taken.
        x
            (blocks, cells, features) cells at ``start``.
        start, at, stop
            Times. The velocity at ``at`` is taken to be that on the known way from ``x``.
        """
        variance, axes = self._spectrum

        def spread(t: float) -> Tensor:
            return ((1 - t) ** 2 + t**2 * variance).sqrt()

        first, then = spread(start), spread(at)
        velocity = (at * variance - (1 - at)) / (first * then)
        spectrum = spread(stop) / first - 1 - (stop - start) * velocity
        mean = start * self.mixtures.mean
        if axes is None:
            return torch.baddbmm(x * (share @ spectrum), share, spectrum * mean, alpha=-1)
        matrices = _matrices(axes, spectrum)
        return _average(share, matrices, x) - share @ torch.einsum("gkij,gkj->gki", matrices, mean)

    @cached_property
    def _parts(self) -> list[Drift]:
        """Blocks that are worked on at a time."""
        size = max(1, CACHED // self.mixtures.mean[0].numel())
        n_blocks = len(self.mixtures.mean)
        return [Drift(self.mixtures[start : start + size]) for start in range(0, n_blocks, size)]

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor | None]:
        """Variances along axes of the components, (blocks, components, features), and axes that are no features."""
        if not self.mixtures.full:
            return self.mixtures.root.square(), None
        values, axes = torch.linalg.eigh(self.mixtures.root)
        return values.square(), axes

    def _diagonal(self, x: Tensor, t: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Blocks have a few cells each: most of the time goes into what is (blocks, components, features).
        variance, _ = self._spectrum
        total = torch.addcmul((1 - t).square(), t.square(), variance)
        precision = total.reciprocal()
        share = self._responsibilities(
            x.square() @ precision.transpose(1, 2), x, mean, mean * precision, total.log().sum(-1)
        )
        gain = torch.addcmul(t - 1, t, variance) * precision
        velocity = torch.baddbmm(x * (share @ gain), share, torch.addcmul(self.mixtures.mean, gain, mean, value=-1))
        inverse = precision.sqrt()
        whitened = torch.baddbmm(x * (share @ inverse), share, inverse * mean, alpha=-1)
        return velocity, whitened, share @ (self.mixtures.root * inverse), share

    def _responsibilities(self, quadratic: Tensor, x: Tensor, mean: Tensor, linear: Tensor, log_det: Tensor) -> Tensor:
        constant = 2 * self.mixtures.weight.log() - log_det - (mean * linear).sum(-1)
        return (0.5 * (constant[:, None] - quadratic) + x @ linear.transpose(1, 2)).softmax(-1)

    def _full(self, x: Tensor, t: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        variance, axes = self._spectrum
        assert axes is not None
        total = (1 - t).square() + t.square() * variance
        precision = _matrices(axes, total.reciprocal())
        linear = torch.einsum("gkij,gkj->gki", precision, mean)
        square = (x[..., :, None] * x[..., None, :]).flatten(2)
        share = self._responsibilities(
            square @ precision.flatten(2).transpose(1, 2), x, mean, linear, total.log().sum(-1)
        )
        gain = _matrices(axes, (t * variance - (1 - t)) / total)
        inverse = _matrices(axes, total.rsqrt())
        velocity = _average(share, gain, x) + share @ (self.mixtures.mean - torch.einsum("gkij,gkj->gki", gain, mean))
        whitened = _average(share, inverse, x) - share @ torch.einsum("gkij,gkj->gki", inverse, mean)
        scale = share @ (variance / total).sqrt().mean(-1, keepdim=True)
        return velocity, whitened, scale.expand_as(x), share


def _matrices(axes: Tensor, spectrum: Tensor) -> Tensor:
    """Symmetric matrices with these axes, (blocks, components, features, features)."""
    return (axes * spectrum[..., None, :]) @ axes.transpose(-1, -2)


def _average(share: Tensor, matrices: Tensor, x: Tensor) -> Tensor:
    """Cells multiplied by the components' matrices, on average."""
    if matrices.shape[1] == 1:
        return x @ matrices[:, 0]
    mixed = share @ matrices.flatten(2)
    return torch.einsum("gnij,gnj->gni", mixed.unflatten(-1, matrices.shape[2:]), x)
