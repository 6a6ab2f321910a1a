"""Embeddings of populations of single cells (donors, clones, perturbations) and transport between them."""

from importlib.metadata import version

__version__ = version("scgde")
