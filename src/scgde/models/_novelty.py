"""Which groups lie far from those that a model was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from scgde._validation import warn
from scgde.uncertainty import FAR

#: Held-out groups that it takes for new ones to be compared with them alone: fewer give no p-value below :data:`FAR`.
MIN_HELD_OUT = 99


def fit_novelty(z: np.ndarray, held_out: np.ndarray) -> dict[str, np.ndarray]:
    """What :func:`p_values` compares new groups with: moments of embeddings, and scores. No embedding is kept.

    The score of an embedding is its squared distance to the mean of the training groups, in units of their covariance
    plus its mean eigenvalue: a direction that they hardly span counts no more than an average one. New groups are
    compared with groups that took no part in training where these are enough; else with held-out and training groups,
    each of the latter scored by the moments of the others.

    Parameters
    ----------
    z, held_out
        (groups, latent) embeddings of training groups and of groups held out of training.

    Notes
    -----
    Source: Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World" (2005), chapter 2, on split conformal
    prediction; Barber et al., "Predictive inference with the jackknife+" (2021), on leaving one out.
    """
    z, n = z.astype(np.float64), len(z)
    mean = z.mean(axis=0)
    deviation = z - mean
    covariance = deviation.T @ deviation / n
    ridge = max(np.trace(covariance) / len(covariance), 1e-24) * np.eye(len(covariance))
    state = {"mean": mean, "precision": np.linalg.inv(covariance + ridge)}
    state["scores"] = np.sort(_scores(state, held_out))
    if len(held_out) < MIN_HELD_OUT:
        rest = n / max(n - 1, 1)
        precision = np.linalg.inv(rest * covariance + ridge)
        leverage = np.einsum("gl,lm,gm->g", deviation, precision, deviation)
        # The covariance of the others differs by a matrix of rank one (Sherman & Morrison).
        others = rest**2 * leverage / np.maximum(1 - rest / max(n - 1, 1) * leverage, 1e-12)
        state["scores"] = np.sort(np.concatenate([others, state["scores"]]))
    return state


def p_values(fitted: dict[str, Any], z: np.ndarray) -> np.ndarray | None:
    """(groups,) share of known groups, the new one counted, that lie as far out as each new one.

    None where a model was saved before there were any.
    """
    if "novelty" not in fitted:
        return None
    scores = fitted["novelty"]["scores"]
    farther = len(scores) - np.searchsorted(scores, _scores(fitted["novelty"], z) * (1 - 1e-9))
    return (1 + farther) / (1 + len(scores))


def _scores(state: dict[str, np.ndarray], z: np.ndarray) -> np.ndarray:
    deviation = z.astype(np.float64) - state["mean"]
    return np.einsum("gl,lm,gm->g", deviation, state["precision"], deviation)


def warn_far(p_values: np.ndarray, names: list[Any], consequence: str) -> None:
    """Warn of groups that lie far, with a sentence on what this means."""
    far = np.flatnonzero(p_values < FAR)
    if len(far):
        some = ", ".join(str(names[i]) for i in far[:5]) + (", …" if len(far) > 5 else "")
        warn(
            f"{len(far)} of {len(names)} groups lie far from those that the model was trained on (p < {FAR}): {some}. "
            f"{consequence}"
        )
