"""Training small networks, one for each fold and one on all pairs, side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

#: Losses are taken and parameters kept every so many steps, so that their number can be chosen.
CHECK_EVERY = 20
BATCH_SIZE = 256

#: Training ends after so many checks without a lower held-out loss.
PATIENCE = 3

Parameters = dict[str, Tensor]


def training_weights(weight: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(folds + 1, pairs) weights for training: without each fold in turn, then with all."""
    kept = np.array([fold != k for k in np.unique(fold)] + [np.ones(len(fold), dtype=bool)])
    return weight * kept


def train_networks(
    parameters: dict[str, np.ndarray],
    losses: Callable[[Parameters, Tensor], Tensor],
    weight: np.ndarray,
    *,
    decay: dict[str, float],
    n_steps: int,
    learning_rate: float,
    seed: int,
) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """Fit several networks by Adam and report on their way.

    Parameters
    ----------
    parameters
        Initial values, each (networks, ...).
    losses
        Function of the parameters and of the numbers of some pairs: the (networks, pairs) losses.
    weight
        (networks, pairs) weights in training; 0 where a network must not see a pair.
    decay
        Factor of the squared norm of each named parameter that is added to the loss.
    n_steps
        Largest number of steps.
    learning_rate
        Adam's.
    seed
        Seed of the batches, which are drawn only when there are many pairs.

    Returns
    -------
    The (checks, networks, pairs) losses of all pairs, before training and every :data:`CHECK_EVERY` steps, and the
    parameters at these steps.
    """
    n = weight.shape[1]
    rng = np.random.default_rng(seed)
    weights = torch.from_numpy(weight)
    held_out = weight == 0
    history: list[np.ndarray] = []
    snapshots: list[dict[str, np.ndarray]] = []
    with torch.enable_grad():
        values = {name: torch.tensor(value, requires_grad=True) for name, value in parameters.items()}
        optimizer = torch.optim.Adam(values.values(), lr=learning_rate)
        for step in range(n_steps + 1):
            if step % CHECK_EVERY == 0:
                with torch.no_grad():
                    history.append(losses(values, torch.arange(n)).numpy())
                snapshots.append({name: value.detach().numpy().copy() for name, value in values.items()})
                since_best = len(history) - 1 - int(np.argmin([check[held_out].mean() for check in history]))
                if since_best >= PATIENCE:
                    break
            rows = torch.from_numpy(np.arange(n) if n <= BATCH_SIZE else rng.choice(n, BATCH_SIZE, replace=False))
            batch = weights[:, rows]
            loss = ((losses(values, rows) * batch).sum(1) / batch.sum(1).clamp_min(1e-12)).sum()
            loss = loss + sum(factor * values[name].square().sum() for name, factor in decay.items())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return np.stack(history), snapshots
