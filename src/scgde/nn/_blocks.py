"""Building blocks of the networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def time_features(t: Tensor, n_frequencies: int = 4) -> Tensor:
    """Sines and cosines of times in [0, 1], (..., 2 * n_frequencies)."""
    frequency = math.pi * 2.0 ** torch.arange(n_frequencies, device=t.device)
    angle = t[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class ConditionalMLP(nn.Module):
    """Residual network on cells, modulated by a condition that is computed once per block of cells.

    Parameters
    ----------
    n_input
        Features of a cell.
    n_condition
        Features of a block's condition.
    n_output
        Output features. The output layer starts at zero.
    n_batch
        Number of batches, each with a vector of its own that is added to the cells' hidden features; 0 for none.
    width
        Hidden features.
    n_layers
        Number of residual layers.
    dropout
        Share of hidden features set to zero in training.

    Notes
    -----
    Feature-wise scale and shift: Perez et al., "FiLM" (2018).
    """

    def __init__(
        self, n_input: int, n_condition: int, n_output: int, *, n_batch: int, width: int, n_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.input = nn.Linear(n_input, width)
        self.condition = nn.Sequential(nn.Linear(n_condition, width), nn.SiLU(), nn.Linear(width, 2 * width * n_layers))
        self.batch = nn.Embedding(n_batch, width) if n_batch else None
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(n_layers + 1))
        self.dropout = nn.Dropout(dropout)
        self.activation = nn.SiLU()
        self.output = nn.Linear(width, n_output)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, condition: Tensor, batch: Tensor | None = None) -> Tensor:
        """Output of each cell, (blocks, cells, n_output).

        Parameters
        ----------
        x
            (blocks, cells, n_input).
        condition
            (blocks, n_condition).
        batch
            (blocks, cells) codes, where the network knows batches.
        """
        hidden = self.input(x)
        if self.batch is not None:
            hidden = hidden + self.batch(batch)
        modulation = self.condition(condition)[:, None].chunk(2 * len(self.layers), dim=-1)
        for i, layer in enumerate(self.layers):
            scale, shift = modulation[2 * i], modulation[2 * i + 1]
            normed = self.norms[i](hidden)
            inner = torch.addcmul(layer(normed) + shift, normed, scale)
            hidden = hidden + self.dropout(self.activation(inner))
        return self.output(self.norms[-1](hidden))
