"""Figures of groups, training and generated cells.

Every function takes ``ax``, ``show`` and ``save`` as in scanpy, returns what it drew on unless ``show=True``, and
leaves matplotlib's global settings and open figures alone.
"""

from ._embedding import embedding
from ._enough_cells import enough_cells
from ._generated_vs_real import generated_vs_real
from ._group_distances import group_distances
from ._history import history
from ._interpolation import interpolation

__all__ = ["embedding", "enough_cells", "generated_vs_real", "group_distances", "history", "interpolation"]
