"""Embeddings of populations of single cells (donors, clones, perturbations) and transport between them."""

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scgde import data, datasets, metrics, pl, prediction
    from scgde.models import GDE, TDE

# Threads that spin while they wait for one another take each other's cores: on a busy machine training is then many
# times slower. OpenMP reads this when torch is first imported; a value that the user has set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    __version__ = version("scgde")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

__all__ = ["GDE", "TDE", "__version__", "data", "datasets", "metrics", "pl", "prediction"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch and scvi-tools take seconds, which ``scgde --help`` does not need."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    models = name in ("GDE", "TDE")
    value = getattr(import_module("scgde.models"), name) if models else import_module(f"scgde.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
