"""Simulated populations of cells with known truth, cohorts of donors and clones over time. Nothing is downloaded."""

from ._clones import FATES, simulate_clones
from ._cohort import CHANNELS, simulate_cohort
from ._populations import KINDS, draw_cells, population_moments, simulate_populations
from ._toys import SHIFTS, draw_shift_cells, simulate_shifts

__all__ = [
    "CHANNELS",
    "FATES",
    "KINDS",
    "SHIFTS",
    "draw_cells",
    "draw_shift_cells",
    "population_moments",
    "simulate_clones",
    "simulate_cohort",
    "simulate_populations",
    "simulate_shifts",
]
