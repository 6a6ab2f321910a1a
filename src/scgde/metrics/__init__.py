"""Distances between populations of cells, each a function of two arrays of cells."""

from ._energy import energy_distance
from ._pairwise import METRICS, pairwise
from ._wasserstein import gaussian_w2, sliced_w2, w2_empirical, w2_gaussian

__all__ = ["METRICS", "energy_distance", "gaussian_w2", "pairwise", "sliced_w2", "w2_empirical", "w2_gaussian"]
