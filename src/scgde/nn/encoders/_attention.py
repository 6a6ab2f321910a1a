"""Self-attention through induced points, linear in the number of cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scgde.nn.encoders._base import Encoder, Level, Lift, readout, standardizing
from scgde.nn.encoders._pooling import InducedAttention, Pooling, make_pooling


class _Attend(Level):
    """Each cell attends to the induced points of its group, which the level before has pooled."""

    reads_hidden = True

    def __init__(self, width: int, n_heads: int, pooling: Pooling) -> None:
        super().__init__(pooling)
        self.n_heads = n_heads
        self.norm, self.point_norm, self.last_norm = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.content, self.outer = (nn.Linear(width, width) for _ in range(4))
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        points = self.point_norm(context.squeeze(-2).unflatten(-1, (-1, hidden.shape[-1])))
        query = self.query(self.norm(hidden)).unflatten(-1, (self.n_heads, -1))
        key, content = (layer(points).unflatten(-1, (self.n_heads, -1)) for layer in (self.key, self.content))
        share = (torch.einsum("gnhd,gihd->gnhi", query, key) * query.shape[-1] ** -0.5).softmax(-1)
        hidden = hidden + self.outer(torch.einsum("gnhi,gihd->gnhd", share, content).flatten(-2))
        return hidden + self.feed(self.last_norm(hidden))


class Attention(Encoder):
    """A network on every cell, then self-attention between the cells of a group through a few induced points.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_code
        Size of the code.
    width
        Hidden features; a multiple of ``n_heads``.
    n_blocks
        Number of attention blocks.
    n_heads
        Attention heads.
    n_induced
        Number of induced points.
    pooling
        Name of the last pooling: "mean" or "softmax".
    **pooling_kwargs
        Options of the pooling: ``temperature`` of the softmax.

    Raises
    ------
    ValueError
        Where the heads do not divide the width.

    Notes
    -----
    Blocks with induced points of Lee et al., "Set Transformer" (2019). Attention to the empirical measure with bounded
    logits keeps the limit theorem (Fishman, Gowri et al. 2025, corollary 2).
    """

    def __init__(
        self,
        n_features: int,
        n_code: int,
        width: int = 64,
        n_blocks: int = 1,
        n_heads: int = 4,
        n_induced: int = 8,
        pooling: str = "mean",
        **pooling_kwargs: float,
    ) -> None:
        if width % n_heads or n_blocks < 1:
            msg = f"width={width}, n_heads={n_heads}, n_blocks={n_blocks}: expected heads that divide the width."
            raise ValueError(msg)
        induced = [InducedAttention(width, n_heads, n_induced) for _ in range(n_blocks)]
        poolings = [*induced, make_pooling(pooling, **pooling_kwargs)]
        levels = [Lift(n_features, width, poolings[0]), *(_Attend(width, n_heads, each) for each in poolings[1:])]
        super().__init__(n_features, n_code, [*standardizing(), *levels], readout(width, n_code))
