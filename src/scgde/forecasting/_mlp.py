"""Nonlinear forecasts: a small network on what ridge regression leaves."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from scgde.forecasting._base import Forecaster
from scgde.forecasting._networks import train_networks, training_weights
from scgde.forecasting._pairs import LEAVE_ONE_OUT, Pairs, choose
from scgde.forecasting._ridge import features, fit_ridge, ridge_target

N_INPUTS = 16
N_HIDDEN = 64
N_STEPS = 300
#: Candidates for the weight decay.
DECAYS = (1e-4, 1e-3, 1e-2)


class MLPForecaster(Forecaster):
    """Ridge regression plus a network with one hidden layer that predicts its held-out residuals.

    The network reads at most 16 principal coordinates of the source embedding and the conditions. It starts at zero, so
    that no training is ridge regression: the number of steps and the weight decay are chosen by cross-validation over
    groups, and ridge regression is left only for a gain that exceeds its standard error. Below 20 pairs there is no
    network.
    """

    kind: ClassVar[str] = "mlp"

    def _fit(self, pairs: Pairs) -> tuple[dict[str, Any], np.ndarray]:
        parameters, residual = fit_ridge(pairs)
        self.kind_used = "ridge"
        if len(residual) < LEAVE_ONE_OUT:
            return parameters, residual
        f, scale = _inputs(parameters, pairs.source, pairs.condition)
        unit = float(np.sqrt(np.average(residual**2, weights=np.broadcast_to(pairs.weight[:, None], residual.shape))))
        if unit == 0:
            return parameters, residual
        errors, nets = _train(f, residual / unit, pairs, self.seed)
        best, by_group = choose(errors, pairs.weight, pairs.fold)
        if best:
            self.kind_used = "mlp"
            parameters |= {f"network_{name}": value for name, value in nets[best][-1].items()}
            parameters |= {"network_input_scale": scale, "network_unit": unit}
        held_out = residual.copy()
        for i, (candidate, fold) in enumerate(zip(by_group, pairs.fold, strict=True)):
            if candidate:
                held_out[i] -= unit * _forward(nets[candidate][fold], f[i : i + 1])[0]
        return parameters, held_out

    def _predict(self, source: np.ndarray, condition: np.ndarray) -> np.ndarray:
        target = ridge_target(self._parameters, source, condition)
        if self.kind_used == "ridge":
            return target
        f = features(self._parameters, source, condition)[:, : len(self._parameters["network_input_scale"])]
        net = {name: self._parameters[f"network_{name}"] for name in ("w1", "b1", "w2", "b2")}
        return target + self._parameters["network_unit"] * _forward(net, f / self._parameters["network_input_scale"])


def _inputs(parameters: dict[str, Any], source: np.ndarray, condition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of the network, and the scale they were divided by: one for all principal coordinates."""
    n_conditions = condition.shape[1]
    f = features(parameters, source, condition)[:, : n_conditions + N_INPUTS]
    common = np.sqrt((f[:, n_conditions:] ** 2).mean()) if f.shape[1] > n_conditions else 1.0
    scale = np.where(np.arange(f.shape[1]) < n_conditions, 1.0, common)
    return f / scale, scale


def _forward(net: dict[str, np.ndarray], f: np.ndarray) -> np.ndarray:
    return np.tanh(f @ net["w1"] + net["b1"]) @ net["w2"] + net["b2"]


def _train(f: np.ndarray, target: np.ndarray, pairs: Pairs, seed: int) -> tuple[np.ndarray, list[list[dict]]]:
    """Held-out errors (candidates, pairs), first without a network; and each candidate's networks, one per fold."""
    x, y = torch.from_numpy(f.astype(np.float32)), torch.from_numpy(target.astype(np.float32))
    weight = training_weights(pairs.weight, pairs.fold).astype(np.float32)
    n_nets, (d, p) = len(weight), (f.shape[1], target.shape[1])
    rng = np.random.default_rng(seed)
    # Without random offsets all hidden units are odd functions, and even ones are found late.
    first = {"w1": rng.standard_normal((d, N_HIDDEN)) / np.sqrt(max(d, 1)), "b1": rng.standard_normal((1, N_HIDDEN))}
    first |= {"w2": np.zeros((N_HIDDEN, p)), "b2": np.zeros((1, p))}
    start = {name: np.repeat(value[None].astype(np.float32), n_nets, axis=0) for name, value in first.items()}

    def losses(net, rows):
        prediction = torch.tanh(x[rows] @ net["w1"] + net["b1"]) @ net["w2"] + net["b2"]
        return (y[rows] - prediction).square().mean(-1)

    errors = [(target**2).mean(axis=1)]
    nets: list[list[dict]] = [[]]
    for decay in DECAYS:
        history, snapshots = train_networks(
            start, losses, weight, decay={"w1": decay, "w2": decay}, n_steps=N_STEPS, learning_rate=1e-2, seed=seed
        )
        errors += [check[pairs.fold, np.arange(len(y))] for check in history[1:]]
        nets += [[{k: v[i].astype(float) for k, v in s.items()} for i in range(n_nets)] for s in snapshots[1:]]
    return np.stack(errors).astype(float), nets
