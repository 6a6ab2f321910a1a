"""Random numbers that are a function of (seed, stream, step, group, draw) and of nothing else.

Training must give the same result whatever the number of workers, ranks or earlier calls, so no global
generator is used: every number comes from a counter-based generator, vectorised over groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
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


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """Philox4x32-10: four 32-bit words for each counter, (..., 4), held in int64.

    Parameters
    ----------
    counter
        Four int64 tensors of one shape with values below 2**32.
    key
        Two integers below 2**32.

    Notes
    -----
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
    """
    if counter[0].device.type != "cpu":
        return _philox_elementwise(counter, key)
    # Compiled, it takes a quarter of the time: what belongs to a counter stays in registers.
    words = torch.empty(*counter[0].shape, 4, dtype=torch.int64)
    flat = (each.reshape(-1).numpy().view(np.uint64) for each in counter)
    _philox_loop(*flat, *map(np.uint64, key), words.view(-1, 4).numpy().view(np.uint64))  # type: ignore[call-arg]
    return words


def _philox_elementwise(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """As :func:`philox`, on any device."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # A product of two 32-bit words wraps in int64, which leaves its bit pattern intact: shift and mask give both
        # halves. Only what is multiplied next must be below 2**32; in place, for this is bound by memory.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (p1 >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_MASK)
        c2 = (p0 >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_MASK)
        c1, c3 = p1, p0
        k0, k1 = (k0 + _KEY_INCREMENTS[0]) & _MASK, (k1 + _KEY_INCREMENTS[1]) & _MASK
    return torch.stack([c0, c1 & _MASK, c2, c3 & _MASK], dim=-1)


# Numba makes a float of a uint64 and a plain integer.
_M0, _M1 = map(np.uint64, _MULTIPLIERS)
_I0, _I1 = map(np.uint64, _KEY_INCREMENTS)
_LOW, _HALF = np.uint64(_MASK), np.uint64(32)


@numba.njit(cache=True, nogil=True)
def _philox_loop(w0, w1, w2, w3, key0, key1, words):
    for i in range(len(w0)):
        c0, c1, c2, c3, k0, k1 = w0[i], w1[i], w2[i], w3[i], key0, key1
        for _ in range(10):
            p0, p1 = c0 * _M0, c2 * _M1
            c0, c1 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW
            c2, c3 = (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
            k0, k1 = (k0 + _I0) & _LOW, (k1 + _I1) & _LOW
        words[i, 0], words[i, 1], words[i, 2], words[i, 3] = c0, c1, c2, c3


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
        return words.flatten(1)[:, :n]

    def uniform(self, stream: str, n: int) -> Tensor:
        """(groups, n) numbers in the open interval (0, 1), float32."""
        return ((self._bits(stream, n) >> 9).to(torch.float32) + 0.5) * 2.0**-23

    def normal(self, stream: str, n: int) -> Tensor:
        """(groups, n) standard normal numbers, float32 (Box-Muller)."""
        u = self.uniform(stream, n + n % 2).unflatten(1, (-1, 2))
        radius, angle = (-2 * u[..., 0].log()).sqrt(), 2 * math.pi * u[..., 1]
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(1)[:, :n]
