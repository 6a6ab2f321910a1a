"""Random numbers that are a function of (seed, stream, step, group, draw) and of nothing else.

Training must give the same result whatever the number of workers, ranks or earlier calls, so no global
generator is used: every number comes from a counter-based generator, vectorised over groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)

#: Spreads pairs of keys (a group and a block, two groups) over 32 bits, so that they do not meet.
GROUP_STRIDE = 0x9E3779B1

#: What a number is used for. Each use has its own stream, so that no two of them share numbers.
STREAMS = {
    name: number
    for number, name in enumerate(
        [
            "order",
            "groups",
            "cells",
            "fold",
            "time",
            "noise",
            "split",
            "rotation",
            "batch",
            "labels",
            "component",
            "observation",
            "library",
            "zeros",
        ]
    )
}


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four 32-bit words for each counter, held in int64 tensors.

    Parameters
    ----------
    counter
        Four int64 tensors of one shape with values below 2**32.
    key
        Two integers below 2**32.

    Notes
    -----
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A product of two 32-bit words wraps in
    int64, which leaves its bit pattern intact: shift and mask give both halves.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        # Only what is multiplied next must be below 2**32; in place, for this is bound by memory.
        c0 = (p1 >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_MASK)
        c2 = (p0 >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_MASK)
        c1, c3 = p1, p0
        k0, k1 = (k0 + _KEY_INCREMENTS[0]) & _MASK, (k1 + _KEY_INCREMENTS[1]) & _MASK
    return c0, c1 & _MASK, c2, c3 & _MASK


@dataclass(frozen=True)
class CounterRandom:
    """Random numbers for the groups of one step.

    Parameters
    ----------
    seed
        The user's seed.
    step
        Number of the training step (or of the call).
    group
        (groups,) identity of each group: its numbers do not depend on which other groups are in the batch.
    """

    seed: int
    step: int
    group: Tensor

    def _bits(self, stream: str, n: int) -> Tensor:
        draw = torch.arange(-(-n // 4), device=self.group.device)
        group = self.group.long()[:, None].expand(-1, len(draw)) & _MASK
        counter = (
            draw.expand_as(group),
            group,
            torch.full_like(group, self.step & _MASK),
            torch.full_like(group, STREAMS[stream]),
        )
        words = philox(counter, (self.seed & _MASK, self.seed >> 32 & _MASK))
        return torch.stack(words, dim=-1).flatten(1)[:, :n]

    def uniform(self, stream: str, n: int) -> Tensor:
        """(groups, n) numbers in the open interval (0, 1), float32."""
        return ((self._bits(stream, n) >> 9).to(torch.float32) + 0.5) * 2.0**-23

    def normal(self, stream: str, n: int) -> Tensor:
        """(groups, n) standard normal numbers, float32 (Box-Muller)."""
        u = self.uniform(stream, n + n % 2).unflatten(1, (-1, 2))
        radius, angle = (-2 * u[..., 0].log()).sqrt(), 2 * math.pi * u[..., 1]
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(1)[:, :n]
