"""Divergences between generated and real cells, to train by: differentiable, batched over groups, without bias."""

from __future__ import annotations

from collections.abc import Callable

import ot
import torch
from torch import Tensor

from scgde.nn._random import CounterRandom

#: A divergence of each group, (groups,), from generated cells ``x`` (groups, n, features), n even, which count equally,
#: and real cells ``y`` (groups, m, features) with weights ``v`` (groups, m) that sum to 1.
Divergence = Callable[[Tensor, Tensor, Tensor, CounterRandom], Tensor]

#: Projections of the sliced divergence.
N_PROJECTIONS = 32

#: Regularisation of the Sinkhorn divergence, in units of the mean cost, and its iterations. Their number is fixed: a
#: rule to stop would look at all groups of the batch, and a group's loss must not depend on the others.
SINKHORN_REGULARISATION, SINKHORN_ITERATIONS = 0.05, 20

#: Bandwidths of the kernels of the MMD, in units of the root of the number of features.
BANDWIDTHS = (0.2, 0.5, 1.0, 2.0)


def energy(x: Tensor, y: Tensor, v: Tensor, random: CounterRandom) -> Tensor:
    """Energy distance, 2 E|x - y| - E|x - x'| - E|y - y'|."""
    return _by_kernel(x, y, v, lambda a, b: -torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist"))


def mmd(x: Tensor, y: Tensor, v: Tensor, random: CounterRandom) -> Tensor:
    """Squared maximum mean discrepancy under a sum of Gaussian kernels."""
    scales = [1 / (2 * x.shape[-1] * bandwidth**2) for bandwidth in BANDWIDTHS]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        square = _squares(a, b)
        return torch.stack([torch.exp(-scale * square) for scale in scales]).sum(0)

    return _by_kernel(x, y, v, kernel)


def sliced(x: Tensor, y: Tensor, v: Tensor, random: CounterRandom) -> Tensor:
    """Sliced Wasserstein distance, squared, in the scale of W2."""
    groups, n, d = x.shape
    direction = random.normal("rotation", N_PROJECTIONS * d).view(groups, d, -1)
    direction = direction / direction.norm(dim=1, keepdim=True)

    def distance(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
        a, b = ((cells @ direction).permute(1, 0, 2).flatten(1) for cells in (a, b))
        w = w.T.repeat_interleave(N_PROJECTIONS, dim=1)
        equal = torch.full_like(a, 1 / len(a))
        return d * ot.wasserstein_1d(a, b, equal, w, p=2).view(groups, -1).mean(1)

    return _by_halves(x, y, v, distance)


def sinkhorn(x: Tensor, y: Tensor, v: Tensor, random: CounterRandom) -> Tensor:
    """Entropic optimal transport cost for squared distances."""
    return _by_halves(x, y, v, _sinkhorn_cost)


#: Divergences by name. Every entry is found by the contract tests.
DIVERGENCES: dict[str, Divergence] = {"energy": energy, "mmd": mmd, "sliced": sliced, "sinkhorn": sinkhorn}


def _by_kernel(x: Tensor, y: Tensor, v: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """E k(x, x') - 2 E k(x, y) + E k(y, y'), no generated cell paired with itself."""
    n = x.shape[1]
    own = kernel(x, x)
    own = (own.sum((1, 2)) - own.diagonal(dim1=1, dim2=2).sum(1)) / (n * (n - 1))
    cross = torch.einsum("gnm,gm->g", kernel(x, y), v) / n
    return own - 2 * cross + torch.einsum("gn,gnm,gm->g", v, kernel(y, y), v)


def _by_halves(x: Tensor, y: Tensor, v: Tensor, distance: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """D(x, y) + D(x', y) - D(x, x') with x, x' the halves of the generated cells.

    A transport distance between two draws of one population is not 0, so that a generator trained by D(x, y) alone
    shrinks its populations. The distance between two of its own draws takes that back: Salimans et al., "Improving GANs
    using optimal transport" (2018). Their last term, of the real cells, is constant.
    """
    first, second = x[:, ::2], x[:, 1::2]
    equal = torch.full_like(second[..., 0], 1 / second.shape[1])
    return distance(first, y, v) + distance(second, y, v) - distance(first, second, equal)


def _squares(a: Tensor, b: Tensor) -> Tensor:
    return (a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None] - 2 * a @ b.mT).clamp_min(0)


def _sinkhorn_cost(x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """Cost of the entropic plan. The plan is optimal, so the gradient is that of the cost at a fixed plan."""
    cost = _squares(x, y)
    with torch.no_grad():
        # By weight: a padded slot has no effect on the scale.
        scale = torch.einsum("gnm,gm->g", cost, v)[:, None, None] / x.shape[1]
        logits = -cost / (SINKHORN_REGULARISATION * scale).clamp_min(1e-12)
        log_v = v.log()[:, None]
        f, g = torch.zeros_like(cost[:, :, :1]), torch.zeros_like(cost[:, :1])
        for _ in range(SINKHORN_ITERATIONS):
            f = -torch.logsumexp(logits + g + log_v, dim=2, keepdim=True)
            g = -torch.logsumexp(logits + f, dim=1, keepdim=True)
        plan = torch.softmax(logits + g + log_v, dim=2) / x.shape[1]
    return (plan * cost).sum((1, 2))
