"""Deep sets with weighted mean pooling."""

from __future__ import annotations

from scgde.nn.encoders._base import Encoder, Lift, readout


class DeepSets(Encoder):
    """A network on every cell, one weighted mean over the cells, a network on the mean.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_code
        Size of the code.
    width
        Hidden features.

    Notes
    -----
    Zaheer et al., "Deep Sets" (2017), with a mean in place of the sum, which proportional invariance forbids.
    """

    def __init__(self, n_features: int, n_code: int, width: int = 64) -> None:
        super().__init__(n_features, n_code, [Lift(n_features, width)], readout(width, n_code))
