"""Populations of cells with known parameters: Gaussians, Gaussian mixtures and 50-dimensional cell types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from anndata import AnnData

Parameters = dict[str, np.ndarray]

# Each purpose has its own stream of random numbers, so that parameters do not depend on how many cells are drawn and
# `draw_cells` never repeats the cells of `simulate_populations`, whatever the seeds.
_PARAMETERS, _CELLS, _FURTHER_CELLS = range(3)


@dataclass(frozen=True)
class _Kind:
    """How the parameters of one kind are drawn, and how its cells and component covariances follow from them.

    All kinds are mixtures with `weights` (groups, components) and `means` (groups, components, features);
    `noise(parameters, group, component, rng)` draws centred cells for index arrays `group` and `component`.
    """

    parameters: Callable[[int, np.random.Generator], Parameters]
    noise: Callable[[Parameters, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
    covariances: Callable[[Parameters], np.ndarray]


def simulate_populations(kind: str, n_groups: int, n_cells: int, seed: int) -> AnnData:
    """Simulate groups of cells whose distributions are known.

    Parameters
    ----------
    kind
        A name in :data:`KINDS`: ``gaussian2``, ``gaussian5`` (mean uniform in [0, 5]^d, covariance inverse Wishart with
        10 or 40 degrees of freedom), ``mixture2`` (three such components in 2-D, weights Dirichlet(1, 1, 1)), their
        versions with group mean 0 (``gaussian2_centred``, ``mixture2_centred``), and ``cells50`` (five cell types in
        50-D with group-specific proportions, type means and spreads).
    n_groups
        Number of groups.
    n_cells
        Cells of each group. The parameters of the groups do not depend on it.
    seed
        Non-negative integer; parameters and cells are a function of it.

    Returns
    -------
    AnnData with float32 X (n_groups x n_cells, features); `.obs["group"]`, whose i-th category is the i-th row of the
    parameters, and for mixtures `.obs["cell_type"]`, the component of the cell; `.uns["populations"]`, the settings and
    the parameters ``weights`` (groups, components), ``means`` (groups, components, features) and ``covs`` (groups,
    components, features, features), or in ``cells50`` ``scale`` (groups, components), ``sd`` (components, features) and
    ``low_rank`` (components, features, 3), with component covariance ``scale^2 (diag(sd^2) + low_rank low_rank^T)``.
    Gaussians are mixtures of one component.

    Raises
    ------
    ValueError
        For an unknown kind and for numbers that are not positive.
    """
    if kind not in KINDS:
        msg = f"kind={kind!r} is unknown: choose from {sorted(KINDS)}."
        raise ValueError(msg)
    if n_groups < 1 or n_cells < 1:
        msg = f"n_groups={n_groups} and n_cells={n_cells}: both must be at least 1."
        raise ValueError(msg)
    parameters = KINDS[kind].parameters(n_groups, np.random.default_rng([seed, _PARAMETERS]))
    populations = {"kind": kind, "seed": seed, "n_cells": n_cells, **parameters}
    x, component = _draw(populations, n_cells, np.random.default_rng([seed, _CELLS]))

    width = len(str(n_groups - 1))
    names = pd.Index([f"group_{i:0{width}d}" for i in range(n_groups)])
    obs = pd.DataFrame(
        {"group": pd.Categorical.from_codes(np.repeat(np.arange(n_groups), n_cells), names)},
        index=pd.RangeIndex(n_groups * n_cells).astype(str),
    )
    n_components = parameters["weights"].shape[1]
    if n_components > 1:
        types = pd.Index([f"type_{k}" for k in range(n_components)])
        obs["cell_type"] = pd.Categorical.from_codes(component.ravel(), types)
    return AnnData(x.reshape(-1, x.shape[-1]), obs=obs, uns={"populations": populations})


def draw_cells(parameters: dict, n_cells: int, seed: int, *, return_component: bool = False):
    """Draw further cells of the same groups, independent of those in the simulated AnnData.

    Parameters
    ----------
    parameters
        `.uns["populations"]` of :func:`simulate_populations`.
    n_cells
        Cells of each group.
    seed
        Non-negative integer; two draws with different seeds are independent.
    return_component
        Whether to return the components of the cells too.

    Returns
    -------
    float32 cells, shape (groups, n_cells, features); with `return_component` also the components, (groups, n_cells).
    """
    x, component = _draw(parameters, n_cells, np.random.default_rng([seed, _FURTHER_CELLS]))
    return (x, component) if return_component else x


def population_moments(parameters: dict) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of each simulated population, exact.

    Parameters
    ----------
    parameters
        `.uns["populations"]` of :func:`simulate_populations`.

    Returns
    -------
    Means, shape (groups, features), and covariances, shape (groups, features, features).
    """
    weights, means = parameters["weights"], parameters["means"]
    mean = np.einsum("gk,gkd->gd", weights, means)
    within = np.einsum("gk,gkde->gde", weights, KINDS[str(parameters["kind"])].covariances(parameters))
    centred = means - mean[:, None]
    return mean, within + np.einsum("gk,gkd,gke->gde", weights, centred, centred)


def _draw(parameters: dict, n_cells: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    weights, means = parameters["weights"], parameters["means"].astype(np.float32)
    n_groups, n_components, n_features = means.shape
    # The last level is left out: it can fall below 1 by rounding.
    levels = np.cumsum(weights, axis=1)[:, None, :-1]
    component = (rng.random((n_groups, n_cells, 1)) >= levels).sum(axis=-1).ravel()
    group = np.repeat(np.arange(n_groups), n_cells)
    x = means[group, component] + KINDS[str(parameters["kind"])].noise(parameters, group, component, rng)
    return x.reshape(n_groups, n_cells, n_features), component.reshape(n_groups, n_cells)


def _inverse_wishart(shape: tuple[int, ...], d: int, df: int, rng: np.random.Generator) -> np.ndarray:
    """Draw inverses of Wishart(df, I) matrices through Bartlett's decomposition, shape (*shape, d, d)."""
    root = np.tril(rng.standard_normal((*shape, d, d)), -1)
    root[..., range(d), range(d)] = np.sqrt(rng.chisquare(df - np.arange(d), (*shape, d)))
    inverse = np.linalg.inv(root)
    return np.swapaxes(inverse, -1, -2) @ inverse


def _gaussian_mixtures(n_components: int, d: int, df: int, *, centred: bool = False) -> _Kind:
    def parameters(n_groups: int, rng: np.random.Generator) -> Parameters:
        weights = rng.dirichlet(np.ones(n_components), n_groups)
        means = rng.uniform(0, 5, (n_groups, n_components, d))
        covs = _inverse_wishart((n_groups, n_components), d, df, rng)
        if centred:
            means -= np.einsum("gk,gkd->gd", weights, means)[:, None]
        return {"weights": weights, "means": means, "covs": covs}

    return _Kind(parameters, _gaussian_noise, lambda parameters: parameters["covs"])


def _gaussian_noise(
    parameters: Parameters, group: np.ndarray, component: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    roots = np.linalg.cholesky(parameters["covs"]).astype(np.float32)
    noise = rng.standard_normal((len(group), roots.shape[-1], 1), dtype=np.float32)
    return (roots[group, component] @ noise)[..., 0]


@cache
def _cells50_constants() -> Parameters:
    """Constants of `cells50`, from seed 7 in this order: type means, sd, low rank, shift factors, concentration."""
    rng, n_types, d = np.random.default_rng(7), 5, 50
    s = 3 / np.sqrt(np.arange(1, d + 1))
    return {
        "type_means": rng.standard_normal((n_types, d)) * s,
        "sd": 0.35 * s * rng.uniform(0.7, 1.4, (n_types, d)) + 0.15,
        "low_rank": rng.standard_normal((n_types, d, 3)) * 0.15 * s[:, None],
        "shift_factors": rng.standard_normal((6, n_types, d)) * 0.12 * s,
        "concentration": rng.uniform(0.6, 2.5, n_types),
    }


def _cells50_parameters(n_groups: int, rng: np.random.Generator) -> Parameters:
    constants = _cells50_constants()
    weights = rng.dirichlet(constants["concentration"], n_groups)
    factors = rng.standard_normal((n_groups, 6))
    scale = np.exp(0.15 * rng.standard_normal(weights.shape))
    means = constants["type_means"] + np.einsum("gf,fkd->gkd", factors, constants["shift_factors"])
    # Copies: what a user changes in `.uns` must not reach the constants.
    shared = {name: constants[name].copy() for name in ("sd", "low_rank")}
    return {"weights": weights, "means": means, "scale": scale, **shared}


def _cells50_noise(
    parameters: Parameters, group: np.ndarray, component: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    sd, low_rank, scale = (parameters[name].astype(np.float32) for name in ("sd", "low_rank", "scale"))
    noise = sd[component] * rng.standard_normal((len(group), sd.shape[1]), dtype=np.float32)
    factors = rng.standard_normal((len(group), low_rank.shape[-1]), dtype=np.float32)
    for k in range(len(sd)):
        rows = component == k
        noise[rows] += factors[rows] @ low_rank[k].T
    return scale[group, component, None] * noise


def _cells50_covariances(parameters: Parameters) -> np.ndarray:
    sd, low_rank, scale = (parameters[name] for name in ("sd", "low_rank", "scale"))
    shape = np.einsum("kd,de->kde", sd**2, np.eye(sd.shape[1])) + low_rank @ np.swapaxes(low_rank, -1, -2)
    return scale[..., None, None] ** 2 * shape


KINDS: dict[str, _Kind] = {
    "gaussian2": _gaussian_mixtures(1, 2, 10),
    "gaussian5": _gaussian_mixtures(1, 5, 40),
    "gaussian2_centred": _gaussian_mixtures(1, 2, 10, centred=True),
    "mixture2": _gaussian_mixtures(3, 2, 10),
    "mixture2_centred": _gaussian_mixtures(3, 2, 10, centred=True),
    "cells50": _Kind(_cells50_parameters, _cells50_noise, _cells50_covariances),
}
