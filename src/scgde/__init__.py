"""Embeddings of populations of single cells (donors, clones, perturbations) and transport between them."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("scgde")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"
