"""Forecasts with several outcomes: a mixture density network on what ridge regression leaves."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import softmax
from sklearn.cluster import KMeans

from scgde._validation import warn
from scgde.forecasting._base import Forecaster
from scgde.forecasting._networks import train_networks, training_weights
from scgde.forecasting._pairs import Pairs, choose
from scgde.forecasting._ridge import features, fit_ridge, ridge_target

#: Below this number of pairs, ridge regression and its residual covariance stand in.
MIN_PAIRS_MIXTURE = 30

#: Candidates for the number of components beside one, which is ridge regression.
N_COMPONENTS = (2, 3, 4, 5)
N_GATES = 5
N_AXES = 4
N_STEPS = 200
DECAY = 1e-2

#: No component is narrower than this share of the residual's standard deviation along an axis.
MIN_WIDTH = 0.05


class MixtureForecaster(Forecaster):
    """Mixture of Gaussians whose weights and means depend on the source embedding.

    It describes the held-out residuals of ridge regression on their leading principal axes, at most 4. Weights (by
    softmax) and means are linear in the conditions and in leading coordinates of the source embedding, at most 5. The
    other directions are Gaussian with their residual covariance. The number of components and of training steps is
    chosen by the held-out log density, over groups; one component is ridge regression, which is left only for a gain
    that exceeds its standard error. Below 30 pairs ridge regression is fitted, with a warning.

    Source: Bishop, "Mixture density networks" (1994).
    """

    kind: ClassVar[str] = "mixture"

    def _fit(self, pairs: Pairs) -> tuple[dict[str, Any], np.ndarray]:
        parameters, residual = fit_ridge(pairs)
        self.kind_used = "ridge"
        if len(residual) < MIN_PAIRS_MIXTURE:
            self._warn_few(len(residual))
            return parameters, residual
        axes = _leading_axes(residual, pairs.weight)
        y = residual @ axes
        width = np.sqrt(np.average(y**2, axis=0, weights=pairs.weight))
        if not (width > 0).all():
            return parameters, residual
        f, scale = _gates(features(parameters, pairs.source, pairs.condition), pairs)
        errors, nets = _train(f, y / width, pairs, self.seed)
        best, by_group = choose(errors, pairs.weight, pairs.fold)
        if best:
            self.kind_used = "mixture"
            parameters |= {f"mixture_{name}": value for name, value in nets[best][-1].items()}
            parameters |= {"mixture_axes": axes, "mixture_width": width, "mixture_gate_scale": scale}
        held_out = residual.copy()
        for i, (candidate, fold) in enumerate(zip(by_group, pairs.fold, strict=True)):
            if candidate:
                share, mean, _ = _components(nets[candidate][fold], f[i : i + 1])
                held_out[i] -= axes @ (width * np.einsum("nk,nkq->nq", share, mean)[0])
        return parameters, held_out

    def _predict(self, source: np.ndarray, condition: np.ndarray) -> np.ndarray:
        target = ridge_target(self._parameters, source, condition)
        if self.kind_used == "ridge":
            return target
        share, mean, _ = self._mixture(source, condition)
        return target + self._from_axes(np.einsum("nk,nkq->nq", share, mean))

    def _sample(self, source: np.ndarray, condition: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
        if self.kind_used == "ridge":
            return super()._sample(source, condition, n_draws, rng)
        share, mean, sd = self._mixture(source, condition)
        n = len(source)
        uniform = rng.random((n_draws, n, 1))
        component = (uniform > share.cumsum(axis=1)[:, :-1]).sum(axis=-1)
        drawn = mean[np.arange(n), component]
        drawn += sd[component] * rng.standard_normal(drawn.shape)
        noise = self._gaussian_noise((n_draws, n), rng)
        axes = self._parameters["mixture_axes"]
        return (
            ridge_target(self._parameters, source, condition) + self._from_axes(drawn) + noise - noise @ axes @ axes.T
        )

    def _mixture(self, source: np.ndarray, condition: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scale = self._parameters["mixture_gate_scale"]
        f = features(self._parameters, source, condition)[:, : len(scale)] / scale
        names = ("logit", "gate", "mean", "slope", "log_sd")
        return _components({name: self._parameters[f"mixture_{name}"] for name in names}, f)

    def _from_axes(self, y: np.ndarray) -> np.ndarray:
        return (y * self._parameters["mixture_width"]) @ self._parameters["mixture_axes"].T

    def _warn_few(self, n: int) -> None:
        warn(
            f"Received {n} pairs of groups; a mixture needs {MIN_PAIRS_MIXTURE}. Fitted ridge regression instead, with "
            'the covariance of its held-out residuals as uncertainty. Pass kind="ridge" to silence this warning.'
        )


def _leading_axes(residual: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(latent, axes) principal axes of the residual about 0 with nine tenths of its variance, at most 4."""
    values, axes = np.linalg.eigh(residual.T @ (weight[:, None] * residual) / weight.sum())
    values, axes = values[::-1].clip(0), axes[:, ::-1]
    share = values.cumsum() / max(values.sum(), np.finfo(float).tiny)
    return axes[:, : min(N_AXES, int(np.searchsorted(share, 0.9)) + 1)]


def _gates(f: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Leading features of unit variance, and what they were divided by."""
    f = f[:, : pairs.condition.shape[1] + N_GATES]
    scale = np.sqrt(np.average(f**2, axis=0, weights=pairs.weight))
    scale = np.where(scale > 0, scale, np.inf)
    return f / scale, scale


def _components(net: dict[str, np.ndarray], f: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (groups, components), means (groups, components, axes) and standard deviations (components, axes)."""
    mean = net["mean"] + (f @ net["slope"]).reshape(len(f), *net["mean"].shape)
    return softmax(net["logit"] + f @ net["gate"], axis=1), mean, MIN_WIDTH + np.exp(net["log_sd"])


def _start(f: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int, seed: int) -> dict[str, np.ndarray]:
    """Clusters of the residuals as initial components, the same for all groups."""
    labels = KMeans(k, n_init=3, random_state=seed).fit(y, sample_weight=weight).labels_
    mass = (weight[:, None] * (labels[:, None] == np.arange(k))).T
    total = mass.sum(axis=1, keepdims=True).clip(1e-12)
    mean = mass @ y / total
    sd = np.sqrt((mass @ y**2 / total - mean**2).clip(0) + 0.1**2)
    zeros = {"gate": np.zeros((f.shape[1], k)), "slope": np.zeros((f.shape[1], mean.size))}
    return zeros | {"logit": np.log(total[:, 0] / total.sum()), "mean": mean, "log_sd": np.log(sd)}


def _train(f: np.ndarray, y: np.ndarray, pairs: Pairs, seed: int) -> tuple[np.ndarray, list[list[dict]]]:
    """Held-out negative log densities (candidates, pairs), first of one Gaussian; and each candidate's networks."""
    x, t = torch.from_numpy(f), torch.from_numpy(y)
    weight = training_weights(pairs.weight, pairs.fold)
    errors = [_gaussian_errors(y, weight, pairs.fold)]
    nets: list[list[dict]] = [[]]
    for k in N_COMPONENTS:
        starts = [_start(f[w > 0], y[w > 0], w[w > 0], k, seed) for w in weight]
        start = {name: np.stack([s[name] for s in starts]) for name in starts[0]}

        def losses(net, rows, k=k):
            logit = torch.log_softmax(net["logit"][:, None] + x[rows] @ net["gate"], dim=-1)
            mean = net["mean"][:, None] + (x[rows] @ net["slope"]).unflatten(-1, (k, -1))
            sd = MIN_WIDTH + net["log_sd"].exp()[:, None]
            log_prob = -0.5 * ((t[rows][:, None] - mean) / sd).square() - sd.log() - 0.5 * math.log(2 * math.pi)
            return -torch.logsumexp(logit + log_prob.sum(-1), dim=-1)

        decay = {"gate": DECAY, "slope": DECAY}
        history, snapshots = train_networks(
            start, losses, weight, decay=decay, n_steps=N_STEPS, learning_rate=0.02, seed=seed
        )
        errors += [check[pairs.fold, np.arange(len(y))] for check in history[1:]]
        nets += [[{name: v[i] for name, v in s.items()} for i in range(len(weight))] for s in snapshots[1:]]
    return np.stack(errors), nets


def _gaussian_errors(y: np.ndarray, weight: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Held-out negative log density under the covariance of the other folds' residuals."""
    errors = np.empty(len(y))
    for k in np.unique(fold):
        test = fold == k
        covariance = y.T @ (weight[k][:, None] * y) / weight[k].sum()
        mahalanobis = (y[test] * np.linalg.solve(covariance, y[test].T).T).sum(axis=1)
        errors[test] = 0.5 * (mahalanobis + np.linalg.slogdet(2 * np.pi * covariance)[1])
    return errors
