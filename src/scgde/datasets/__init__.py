"""Simulated populations of cells with known truth, and simulated cohorts of donors. Nothing is downloaded."""

from ._cohort import CHANNELS, simulate_cohort
from ._populations import KINDS, draw_cells, population_moments, simulate_populations

__all__ = ["CHANNELS", "KINDS", "draw_cells", "population_moments", "simulate_cohort", "simulate_populations"]
