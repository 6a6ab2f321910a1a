"""The closed-form velocity that carries standard normal noise to a group's mixture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scgde.nn.mixtures import Mixtures


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
            mean = t[:, None, None] * self.mixtures.mean
            if self.mixtures.full:
                return self._full(x, t[:, None, None, None], mean)
            return self._diagonal(x, t[:, None, None], mean)

    def _diagonal(self, x: Tensor, t: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loadings, variance = self.mixtures.loadings, self.mixtures.root.square()
        own = variance if loadings is None else variance * (1 - loadings.square().sum(-1))
        precision = ((1 - t).square() + t.square() * own).reciprocal()
        quadratic, log_det = x.square() @ precision.transpose(1, 2), -precision.log().sum(-1)
        if loadings is not None:
            shared = _LowRank.of(self.mixtures.root[..., None] * loadings, precision, t)
            along, solved = shared.along(x, mean)
            quadratic = quadratic - t.square() * (along * solved).sum(-1)
            log_det = log_det + shared.log_det
        share = self._responsibilities(quadratic, x, mean, mean * precision, log_det)
        gain = (t * own - (1 - t)) * precision
        velocity = torch.baddbmm(x * (share @ gain), share, self.mixtures.mean - gain * mean)
        if loadings is not None:
            velocity = velocity + t * (1 - t) * shared.back(share[..., None] * solved)
        inverse = ((1 - t).square() + t.square() * variance).rsqrt()
        whitened = torch.baddbmm(x * (share @ inverse), share, -inverse * mean)
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


@dataclass(frozen=True)
class _LowRank:
    """What loadings V add to a diagonal covariance: cov(t) = P^-1 + t^2 V V^T, by Woodbury's identity.

    With M = I + t^2 V^T P V::

        cov(t)^-1                         = P - t^2 P V M^-1 V^T P
        (t C - (1 - t) I) cov(t)^-1       = that of the diagonal + t (1 - t) P V M^-1 V^T P
    """

    directions: Tensor
    inner: Tensor
    log_det: Tensor

    @classmethod
    def of(cls, loadings: Tensor, precision: Tensor, t: Tensor) -> _LowRank:
        """From V (blocks, components, features, rank), P (blocks, components, features) and times (blocks, 1, 1)."""
        directions = precision[..., None] * loadings
        unit = torch.eye(loadings.shape[-1], dtype=t.dtype, device=t.device)
        root = torch.linalg.cholesky(unit + t[..., None].square() * (loadings.transpose(-1, -2) @ directions))
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return cls(directions, torch.cholesky_inverse(root), log_det)

    def along(self, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """V^T P (x - mean) of each cell and component, and M^-1 times it, (blocks, cells, components, rank)."""
        offset = (self.directions * mean[..., None]).sum(-2)
        flat = x @ self.directions.permute(0, 2, 1, 3).flatten(2)
        along = flat.unflatten(-1, offset.shape[1:]) - offset[:, None]
        return along, (along.transpose(1, 2) @ self.inner).transpose(1, 2)

    def back(self, values: Tensor) -> Tensor:
        """P V times ``values`` (blocks, cells, components, rank), summed over components."""
        return values.flatten(2) @ self.directions.transpose(2, 3).flatten(1, 2)
