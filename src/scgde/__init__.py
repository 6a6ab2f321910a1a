"""Embeddings of populations of single cells (donors, clones, perturbations) and transport between them."""

from importlib.metadata import PackageNotFoundError, version

from scgde import datasets, metrics, pl
from scgde.models import GDE

try:
    __version__ = version("scgde")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

__all__ = ["GDE", "__version__", "datasets", "metrics", "pl"]
