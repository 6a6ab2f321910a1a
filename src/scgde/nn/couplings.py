"""Couplings: which source cell is paired with which target cell while a transport is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import ot

#: A coupling draws pairs: from cells ``x0`` (n, features), ``x1`` (m, features) and their weights, which sum to 1, and
#: ``u`` (k,) sorted uniform numbers, it makes indices of k source and k target cells. Pairs count equally.
Coupling = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

#: Regularisation of the Sinkhorn coupling, in units of the mean cost.
SINKHORN_REGULARISATION = 0.05


def independent(
    x0: np.ndarray, w0: np.ndarray, x1: np.ndarray, w1: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Any source cell with any target cell, by their weights."""
    # Cells lie in random order, but source and target must not be matched by their positions: the fractional parts of
    # multiples of the golden ratio spread the target's numbers over [0, 1) in an order unrelated to the source's.
    turned = (np.arange(1, len(u) + 1) * 0.6180339887498949 + u[0]) % 1
    return _draw(w0, u), _draw(w1, turned)


def optimal(
    x0: np.ndarray, w0: np.ndarray, x1: np.ndarray, w1: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The exact optimal transport plan for squared distances; a permutation where sizes are equal and weights uniform.

    Notes
    -----
    Minibatch optimal transport couplings: Tong et al., "Improving and generalizing flow-based generative models with
    minibatch optimal transport" (2024).
    """
    return _from_plan(ot.emd(w0, w1, ot.dist(x0, x1)), u)


def sinkhorn(
    x0: np.ndarray, w0: np.ndarray, x1: np.ndarray, w1: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The entropic optimal transport plan for squared distances."""
    cost = ot.dist(x0, x1)
    regularisation = SINKHORN_REGULARISATION * max(float(cost.mean()), 1e-12)
    return _from_plan(ot.sinkhorn(w0, w1, cost, regularisation, method="sinkhorn_log", warn=False), u)


#: Couplings by name. Every entry is found by the contract tests.
COUPLINGS: dict[str, Coupling] = {"independent": independent, "ot": optimal, "sinkhorn": sinkhorn}


def _draw(weight: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Indices drawn by weight; an index of weight 0 is never drawn."""
    cumulative = np.cumsum(weight, dtype=np.float64)
    return np.searchsorted(cumulative, u * cumulative[-1], side="right")


def _from_plan(plan: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    row, column = np.unravel_index(_draw(plan.ravel(), u), plan.shape)
    return row, column
