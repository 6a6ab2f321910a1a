"""Figures of groups, training, generated and moved cells, and predictions.

Every function takes ``ax``, ``show`` and ``save`` as in scanpy, returns what it drew on unless ``show=True``, and
leaves matplotlib's global settings and open figures alone.
"""

from ._attribution import attribution
from ._clt import clt
from ._cross_validation import cross_validation
from ._embedding import embedding
from ._enough_cells import enough_cells
from ._fates import fates
from ._forecast import forecast
from ._generated_vs_real import generated_vs_real
from ._group_distances import group_distances
from ._history import history
from ._interpolation import interpolation
from ._trajectories import trajectories
from ._transport import transport

__all__ = [
    "attribution",
    "clt",
    "cross_validation",
    "embedding",
    "enough_cells",
    "fates",
    "forecast",
    "generated_vs_real",
    "group_distances",
    "history",
    "interpolation",
    "trajectories",
    "transport",
]
