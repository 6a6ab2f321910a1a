"""Simulated populations of cells with known truth, cohorts of donors and clones over time; and public data.

What is simulated needs no network; :func:`larry` and :func:`covid_pbmc` download their files once.
"""

from ._clones import FATES, simulate_clones
from ._cohort import CHANNELS, simulate_cohort
from ._populations import KINDS, draw_cells, population_moments, simulate_populations
from ._published import covid_pbmc, larry
from ._toys import SHIFTS, draw_shift_cells, simulate_shifts

__all__ = [
    "CHANNELS",
    "FATES",
    "KINDS",
    "SHIFTS",
    "covid_pbmc",
    "draw_cells",
    "draw_shift_cells",
    "larry",
    "population_moments",
    "simulate_clones",
    "simulate_cohort",
    "simulate_populations",
    "simulate_shifts",
]
