"""How sure an embedding is: comparisons of groups, cells that are needed, and novelty of groups."""

from scgde.uncertainty._compare import MIN_CELLS, compare, hotelling
from scgde.uncertainty._conformal import FAR, ConformalNovelty
from scgde.uncertainty._precision import n_cells_needed, relative_error

__all__ = ["FAR", "MIN_CELLS", "ConformalNovelty", "compare", "hotelling", "n_cells_needed", "relative_error"]
