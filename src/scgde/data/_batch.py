"""What travels from the data to the model in one step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class GroupBatch(NamedTuple):
    """Cells to encode and cells to score, as weighted empirical measures.

    The groups to score come first. Groups beyond them are encoded for their labels alone.

    Parameters
    ----------
    group
        (groups,) positions of the groups.
    sums
        (groups, components, moments) sums that the groups' statistics are made of, without the cells to score.
    x, weight
        Cells to encode: (groups, cells, features) and (groups, cells), which sums to 1; a padded slot has weight 0.
    x_score, weight_score
        Cells to score, in the same form, of the first groups.
    batch_score
        (groups, cells) batch codes of the cells to score, or None.
    step
        Number of the step: with the seed, the key of all random numbers.
    pairs
        (pairs, 2) positions in ``group`` of sources and targets, where a transport is trained on pairs, or None.
    labels
        (groups, columns) labels as numbers, NaN where missing, or None.
    importance
        (groups,) factors of the losses of the scored groups, or None where all count equally.
    """

    group: Tensor
    sums: Tensor
    x: Tensor
    weight: Tensor
    x_score: Tensor
    weight_score: Tensor
    batch_score: Tensor | None
    step: int
    pairs: Tensor | None = None
    labels: Tensor | None = None
    importance: Tensor | None = None
