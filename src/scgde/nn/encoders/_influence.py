"""Influence functions of codes: how a code changes with the weights of the cells, exactly and in bounded memory.

Cells enter a code through the weighted means of each level's features alone. So the derivative of a code by the weight
of a cell is a sum over levels: the cell's features, times the derivative of the code by their mean. The latter is found
backwards, level by level, since a mean also moves what later levels compute of every cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scgde.nn.encoders._base import Blocks, Encoder, Trace


def mean_derivatives(encoder: Encoder, trace: Trace, blocks: Blocks, directions: Tensor | None = None) -> list[Tensor]:
    """Derivatives of the code with respect to the means of each level, all that follows from them included.

    One pass over the cells per level after the first, with bounded memory.

    Parameters
    ----------
    encoder
        The encoder.
    trace
        Its means and contexts of the groups.
    blocks
        The cells of the groups.
    directions
        (groups, outputs, n_code): derivatives of these linear functions of the code, each group with its own; by
        default of each entry.

    Returns
    -------
    (groups, outputs, features of the level), float64 on the CPU, one per level.
    """
    n_levels = len(encoder.stages)
    if directions is None:
        directions = torch.eye(encoder.n_code, dtype=torch.float64).expand(len(trace.contexts[0]), -1, -1)
    by_context = [context.new_zeros(len(context), directions.shape[1], context.shape[1]) for context in trace.contexts]
    by_mean: list[Tensor] = []
    with torch.enable_grad():
        last = trace.contexts[-1].detach().requires_grad_()
        code = encoder.exact_readout()(last)
        by_context[-1] += directions if code is last else _pull_back(code, [last], directions)[0]
        for depth in reversed(range(n_levels)):
            level = encoder.stages[depth]
            mean, context = (each[depth].detach().requires_grad_() for each in (trace.means, trace.contexts))
            pooled = level.context(level.pooling.value(mean), context)
            own, before = _pull_back(pooled, [mean, context], by_context[depth + 1])
            by_mean.insert(0, own)
            by_context[depth] += before
            if depth:
                _add_through_cells(encoder, trace, blocks, own, by_context[: depth + 1])
    return by_mean


def _add_through_cells(
    encoder: Encoder, trace: Trace, blocks: Blocks, by_mean: Tensor, by_context: Sequence[Tensor]
) -> None:
    """Add to the derivatives by the contexts what passes through the features of every cell at the next level."""
    for x, weight, group in blocks():
        group = group.cpu()
        contexts = [context[group].to(x).requires_grad_() for context in trace.contexts[: len(by_context)]]
        features = encoder.features(x, contexts)[-1]
        mean = torch.einsum("bn,bnp->bp", weight.to(x), features)
        for total, part in zip(by_context, _pull_back(mean, contexts, by_mean[group]), strict=True):
            total.index_add_(0, group, part.cpu().double())


def _pull_back(outputs: Tensor, inputs: list[Tensor], derivative: Tensor) -> list[Tensor]:
    """From derivatives (rows, directions, outputs) by outputs (rows, outputs) to those by each of the inputs."""
    seeds = derivative.to(outputs).transpose(0, 1)
    found = torch.autograd.grad(
        outputs, inputs, seeds, is_grads_batched=True, allow_unused=True, materialize_grads=False
    )
    shape = (len(derivative), derivative.shape[1])
    return [
        each.new_zeros(*shape, each.shape[1]) if part is None else part.transpose(0, 1)
        for each, part in zip(inputs, found, strict=True)
    ]


def code_influence(encoder: Encoder, trace: Trace, by_mean: Sequence[Tensor], x: Tensor, group: Tensor) -> Tensor:
    """Influence of cells on their group's code, (blocks, cells, directions); its weighted mean over a group is 0.

    Parameters
    ----------
    encoder
        The encoder.
    trace
        Its means and contexts of the groups.
    by_mean
        As :func:`mean_derivatives` gives them.
    x
        (blocks, cells, features).
    group
        (blocks,) on the CPU.
    """
    total = x.new_zeros(*x.shape[:2], by_mean[0].shape[1])
    contexts = [context[group].to(x) for context in trace.contexts]
    for features, mean, derivative in zip(encoder.features(x, contexts), trace.means, by_mean, strict=True):
        deviation = features - mean[group].to(x)[:, None]
        total += deviation @ derivative[group].to(x).transpose(1, 2)
    return total
