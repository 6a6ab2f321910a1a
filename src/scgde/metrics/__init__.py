"""Distances between populations of cells, and what embeddings of groups tell about their attributes."""

from ._cohort import batch_removal, replicate_robustness, signal_retention
from ._energy import energy_distance
from ._information import mutual_information
from ._mixture import w2_mixture
from ._mmd import mmd_rbf, mmd_rbf_median
from ._pairwise import METRICS, pairwise
from ._wasserstein import gaussian_w2, sliced_w2, w2_empirical, w2_gaussian

__all__ = [
    "METRICS",
    "batch_removal",
    "energy_distance",
    "gaussian_w2",
    "mmd_rbf",
    "mmd_rbf_median",
    "mutual_information",
    "pairwise",
    "replicate_robustness",
    "signal_retention",
    "sliced_w2",
    "w2_empirical",
    "w2_gaussian",
    "w2_mixture",
]
