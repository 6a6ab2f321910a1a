"""Residual encoder that pools at every block."""

from __future__ import annotations

from torch import Tensor, nn

from scgde.nn.encoders._base import Encoder, Level, Lift, readout


class _Block(Level):
    """Residual update of each cell from itself and the mean of its group; the mean enters once per group."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.group = nn.Linear(width, width, bias=False)
        self.outer = nn.Linear(width, width)
        self.activation = nn.SiLU()

    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        inner = self.inner(self.norm(hidden)) + self.group(context)
        return hidden + self.outer(self.activation(inner))


class ResNet(Encoder):
    """A network on every cell, then residual blocks that see the cell and the mean over its group.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_code
        Size of the code.
    width
        Hidden features.
    n_blocks
        Number of residual blocks, each with a weighted mean of its own.

    Notes
    -----
    After the residual encoder of Fishman, Gowri et al. (2025), appendix A: pooling at every block sees interactions
    between cells that a single pooling cannot.
    """

    def __init__(self, n_features: int, n_code: int, width: int = 64, n_blocks: int = 2) -> None:
        levels = [Lift(n_features, width), *(_Block(width) for _ in range(n_blocks))]
        super().__init__(n_features, n_code, levels, readout(width, n_code))
