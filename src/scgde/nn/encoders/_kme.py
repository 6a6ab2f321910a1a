"""Kernel mean embedding by random Fourier features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scgde.nn._shared_mixture import Cells
from scgde.nn.encoders._base import Encoder, Level

#: At most about this many cells set the bandwidth.
MAX_CELLS = 2000


class _Fourier(Level):
    frequency: Tensor
    bandwidth: Tensor

    def __init__(self, n_features: int, n_frequencies: int) -> None:
        super().__init__()
        self.register_buffer("frequency", torch.randn(n_features, n_frequencies))
        # The median distance of standard normal cells, until it is fitted.
        self.register_buffer("bandwidth", torch.tensor(math.sqrt(2 * n_features)))

    def cells(self, x: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        angle = x @ (self.frequency / self.bandwidth)
        return torch.cat([angle.cos(), angle.sin()], dim=-1)


class KernelMean(Encoder):
    """Kernel mean embedding of a group's cells under a Gaussian kernel, and a linear map to the code.

    The kernel is approximated by random Fourier features, which are fixed; its bandwidth is the median distance between
    training cells. Only the linear map is trained.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_code
        Size of the code.
    n_frequencies
        Number of random frequencies.

    Notes
    -----
    Rahimi & Recht (2007); median heuristic as in Gretton et al. (2012).
    """

    def __init__(self, n_features: int, n_code: int, n_frequencies: int = 128) -> None:
        readout = nn.Linear(2 * n_frequencies, n_code)
        super().__init__(n_features, n_code, [_Fourier(n_features, n_frequencies)], readout)

    def fit(self, groups: Sequence[Cells], seed: int) -> None:
        """Set the bandwidth; see :meth:`Encoder.fit`."""
        per_group = max(1, MAX_CELLS // len(groups))
        cells = torch.cat([group[:per_group] for group in groups])
        cells = cells[torch.linspace(0, len(cells) - 1, min(MAX_CELLS, len(cells))).long()]
        distance = torch.pdist(cells)
        level = self.stages[0]
        assert isinstance(level, _Fourier)
        if len(distance) and distance.median() > 0:
            level.bandwidth.copy_(distance.median())
