"""Generators: the distribution of cells given an embedding."""

from scgde.nn.generators._base import Condition, Generator, InvertibleGenerator
from scgde.nn.generators._diffusion import Diffusion
from scgde.nn.generators._divergence import BY_DIVERGENCE, DivergenceGenerator
from scgde.nn.generators._drift import Drift
from scgde.nn.generators._flow import Flow
from scgde.nn.generators._vae import VAE

#: Generators by name. Every entry is found by the contract tests.
GENERATORS: dict[str, type[Generator]] = {"flow": Flow, "diffusion": Diffusion, "vae": VAE, **BY_DIVERGENCE}

__all__ = [
    "GENERATORS",
    "VAE",
    "Condition",
    "Diffusion",
    "DivergenceGenerator",
    "Drift",
    "Flow",
    "Generator",
    "InvertibleGenerator",
]
