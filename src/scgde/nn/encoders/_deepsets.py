"""Deep sets with smooth pooling."""

from __future__ import annotations

from scgde.nn.encoders._base import Encoder, Lift, readout, standardizing
from scgde.nn.encoders._pooling import make_pooling


class DeepSets(Encoder):
    """A network on every cell, one pooling over the cells, a network on what was pooled.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_code
        Size of the code.
    width
        Hidden features.
    pooling
        Name of the pooling: "mean" or "softmax".
    **pooling_kwargs
        Options of the pooling: ``temperature`` of the softmax.

    Notes
    -----
    Zaheer et al., "Deep Sets" (2017), with a mean in place of the sum, which proportional invariance forbids.
    """

    def __init__(
        self, n_features: int, n_code: int, width: int = 64, pooling: str = "mean", **pooling_kwargs: float
    ) -> None:
        lift = Lift(n_features, width, make_pooling(pooling, **pooling_kwargs))
        super().__init__(n_features, n_code, [*standardizing(), lift], readout(width, n_code))
