"""The closed-form velocity that carries standard normal noise to a group's mixture."""

from __future__ import annotations

from dataclasses import dataclass

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

    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Velocity, whitened position and scale of the remainder, each in the shape of ``x``.

        Parameters
        ----------
        x
            (blocks, cells, features).
        t
            (blocks,) one time per block, so that all heavy work is matrix products.

        Returns
        -------
        velocity, whitened, scale
            v(x, t); the expected position within a component, in its standard deviations; the standard deviation of
            x_1 - x_0 given x_t inside a component, averaged over components.
        """
        # Low precision is for the network: a drift that is wrong in the third digit is what the network would learn.
        with torch.autocast(x.device.type, enabled=False):
            size = max(1, CACHED // self.mixtures.mean[0].numel())
            if x.device.type == "cpu" and len(x) > size:
                parts = [slice(start, start + size) for start in range(0, len(x), size)]
                results = [Drift(self.mixtures[part])(x[part], t[part]) for part in parts]
                velocity, whitened, scale = (torch.cat(each) for each in zip(*results, strict=True))
                return velocity, whitened, scale
            mean = t[:, None, None] * self.mixtures.mean
            if self.mixtures.full:
                return self._full(x, t[:, None, None, None], mean)
            return self._diagonal(x, t[:, None, None], mean)

    def _diagonal(self, x: Tensor, t: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Blocks have a few cells each: most of the time goes into what is (blocks, components, features).
        variance = self.mixtures.root.square()
        total = torch.addcmul((1 - t).square(), t.square(), variance)
        precision = total.reciprocal()
        share = self._responsibilities(
            x.square() @ precision.transpose(1, 2), x, mean, mean * precision, total.log().sum(-1)
        )
        gain = torch.addcmul(t - 1, t, variance) * precision
        velocity = torch.baddbmm(x * (share @ gain), share, torch.addcmul(self.mixtures.mean, gain, mean, value=-1))
        inverse = precision.sqrt()
        whitened = torch.baddbmm(x * (share @ inverse), share, inverse * mean, alpha=-1)
        return velocity, whitened, share @ (self.mixtures.root * inverse)

    def _responsibilities(self, quadratic: Tensor, x: Tensor, mean: Tensor, linear: Tensor, log_det: Tensor) -> Tensor:
        constant = 2 * self.mixtures.weight.log() - log_det - (mean * linear).sum(-1)
        return (0.5 * (constant[:, None] - quadratic) + x @ linear.transpose(1, 2)).softmax(-1)

    def _full(self, x: Tensor, t: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values, axes = torch.linalg.eigh(self.mixtures.root)
        variance = values.square()[..., None, :]
        total = (1 - t).square() + t.square() * variance

        def matrix(spectrum: Tensor) -> Tensor:
            return (axes * spectrum) @ axes.transpose(-1, -2)

        def average(share: Tensor, matrices: Tensor) -> Tensor:
            mixed = share @ matrices.flatten(2)
            return torch.einsum("gnij,gnj->gni", mixed.unflatten(-1, matrices.shape[2:]), x)

        precision = matrix(total.reciprocal())
        linear = torch.einsum("gkij,gkj->gki", precision, mean)
        square = (x[..., :, None] * x[..., None, :]).flatten(2)
        share = self._responsibilities(
            square @ precision.flatten(2).transpose(1, 2), x, mean, linear, total.log().sum((-1, -2))
        )
        gain = matrix((t * variance - (1 - t)) / total)
        inverse = matrix(total.rsqrt())
        velocity = average(share, gain) + share @ (self.mixtures.mean - torch.einsum("gkij,gkj->gki", gain, mean))
        whitened = average(share, inverse) - share @ torch.einsum("gkij,gkj->gki", inverse, mean)
        scale = share @ (values / total.squeeze(-2).sqrt()).mean(-1, keepdim=True)
        return velocity, whitened, scale.expand_as(x)
