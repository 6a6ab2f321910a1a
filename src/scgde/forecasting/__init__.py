"""Forecasting: the embedding of a group at a later time, its uncertainty and its growth, from paired groups."""

from scgde.forecasting._base import Forecaster
from scgde.forecasting._growth import Growth
from scgde.forecasting._mixture import MixtureForecaster
from scgde.forecasting._mlp import MLPForecaster
from scgde.forecasting._pairs import precision_weights
from scgde.forecasting._ridge import RidgeForecaster

#: Forecasters by name. Every entry is found by the contract tests.
FORECASTERS: dict[str, type[Forecaster]] = {
    "ridge": RidgeForecaster,
    "mlp": MLPForecaster,
    "mixture": MixtureForecaster,
}

__all__ = [
    "FORECASTERS",
    "Forecaster",
    "Growth",
    "MLPForecaster",
    "MixtureForecaster",
    "RidgeForecaster",
    "precision_weights",
]
