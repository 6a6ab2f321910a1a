"""Residual encoder that pools at every block."""

from __future__ import annotations

from torch import Tensor, nn

from scgde.nn.encoders._base import Encoder, Level, Lift, readout, standardizing
from scgde.nn.encoders._pooling import Pooling, make_pooling


class _Block(Level):
    """Residual update of each cell from itself and what is pooled of its group; the latter enters once per group."""

    reads_hidden = True

    def __init__(self, width: int, pooling: Pooling) -> None:
        super().__init__(pooling)
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.group = nn.Linear(width, width, bias=False)
        self.outer = nn.Linear(width, width)
        self.activation = nn.SiLU()

    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        inner = self.inner(self.norm(hidden)) + self.group(context)
        return hidden + self.outer(self.activation(inner))


class ResNet(Encoder):
    """A network on every cell, then residual blocks that see the cell and what is pooled of its group.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_code
        Size of the code.
    width
        Hidden features.
    n_blocks
        Number of residual blocks, each with a pooling of its own.
    pooling
        Name of the pooling: "mean" or "softmax".
    **pooling_kwargs
        Options of the pooling: ``temperature`` of the softmax.

    Notes
    -----
    After the residual encoder of Fishman, Gowri et al. (2025), appendix A: pooling at every block sees interactions
    between cells that a single pooling cannot.
    """

    def __init__(
        self,
        n_features: int,
        n_code: int,
        width: int = 64,
        n_blocks: int = 2,
        pooling: str = "mean",
        **pooling_kwargs: float,
    ) -> None:
        lift, *poolings = (make_pooling(pooling, **pooling_kwargs) for _ in range(1 + n_blocks))
        levels = [Lift(n_features, width, lift), *(_Block(width, each) for each in poolings)]
        super().__init__(n_features, n_code, [*standardizing(), *levels], readout(width, n_code))
