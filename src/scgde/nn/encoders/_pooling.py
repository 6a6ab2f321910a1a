"""How a neural level sums up the cells of a group: by weighted means, or by ratios of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Bound on the logits of a softmax: cells' weights stay bounded, so that their variance is finite, and exact streaming
#: needs no running maximum.
MAX_LOGIT = 8.0

#: Poolings that are refused, and why.
REFUSED = {
    "sum": "a sum changes when every cell is duplicated, so the embedding would depend on the number of cells",
    "max": "a maximum is set by one extreme cell: it is not smooth and has no normal limit, so no standard error holds",
    "top-k": "the top k cells change with the number of cells, are not smooth and have no normal limit",
    "median": "a median cannot be computed exactly in one pass of bounded memory; use 'softmax' for other than means",
}


class Pooling(nn.Module):
    """The weighted mean of cells' hidden features; others average :meth:`features` and read :meth:`value` from them."""

    def features(self, hidden: Tensor) -> Tensor:
        """What is averaged over the cells, (..., n), from hidden features (..., width)."""
        return hidden

    def value(self, mean: Tensor) -> Tensor:
        """What is known of a group, from the averages (groups, n): a smooth function without parameters."""
        return mean


class SoftmaxPooling(Pooling):
    """Softmax over the cells at a fixed temperature, feature by feature: a smooth step towards the maximum.

    A ratio of weighted means, ``E[h exp(h / T)] / E[exp(h / T)]``, and so invariant and asymptotically normal as they
    are (Fishman, Gowri et al. 2025, appendix D). Logits are bounded smoothly.

    Parameters
    ----------
    temperature
        Of the softmax; the larger, the closer to the mean.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            msg = f"temperature={temperature}: expected a positive number; towards 0 the pooling would be a maximum."
            raise ValueError(msg)
        self.temperature = temperature

    def features(self, hidden: Tensor) -> Tensor:
        """See :meth:`Pooling.features`."""
        mass = (MAX_LOGIT * (hidden / (MAX_LOGIT * self.temperature)).tanh()).exp()
        return torch.cat([mass * hidden, mass], dim=-1)

    def value(self, mean: Tensor) -> Tensor:
        """See :meth:`Pooling.value`."""
        total, mass = mean.chunk(2, dim=-1)
        return total / mass


class InducedAttention(Pooling):
    """Attention of a few learned queries to all cells of a group: linear in the number of cells.

    A softmax over the cells, weighted by their masses, is a ratio of weighted means. Queries and keys have unit length,
    so that logits are bounded.

    Parameters
    ----------
    width
        Hidden features of a cell.
    n_heads
        Attention heads.
    n_induced
        Number of learned queries.

    Notes
    -----
    The induced points of Lee et al., "Set Transformer" (2019).
    """

    def __init__(self, width: int, n_heads: int, n_induced: int) -> None:
        super().__init__()
        self.shape = (n_induced, n_heads, width // n_heads)
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.randn(self.shape))
        self.key = nn.Linear(width, width)
        self.content = nn.Linear(width, width)

    def features(self, hidden: Tensor) -> Tensor:
        """See :meth:`Pooling.features`."""
        hidden = self.norm(hidden)
        key = nn.functional.normalize(self.key(hidden).unflatten(-1, self.shape[1:]), dim=-1)
        logit = torch.einsum("...hd,ihd->...ih", key, nn.functional.normalize(self.query, dim=-1))
        mass = (0.5 * MAX_LOGIT * logit).exp()
        content = self.content(hidden).unflatten(-1, self.shape[1:])
        total = mass[..., None] * content[..., None, :, :]
        return torch.cat([total.flatten(-3), mass.flatten(-2)], dim=-1)

    def value(self, mean: Tensor) -> Tensor:
        """See :meth:`Pooling.value`."""
        n_induced, n_heads, size = self.shape
        total, mass = mean.split([n_induced * n_heads * size, n_induced * n_heads], dim=-1)
        return (total.unflatten(-1, (-1, size)) / mass[..., None]).flatten(-2)


#: Poolings of the neural encoders by name. Every entry is found by the contract tests.
POOLINGS: dict[str, type[Pooling]] = {"mean": Pooling, "softmax": SoftmaxPooling}


def make_pooling(name: str, **options: float) -> Pooling:
    """The pooling called ``name``.

    Raises
    ------
    ValueError
        For unknown names, and for poolings that would break the invariances or the limit theorem, with the reason.
    """
    if name in POOLINGS:
        return POOLINGS[name](**options)
    reason = REFUSED.get(name.lower().replace("topk", "top-k"))
    msg = f"pooling={name!r} is {f'refused: {reason}' if reason else 'unknown'}. Choose from {sorted(POOLINGS)}."
    raise ValueError(msg)
