"""Bridges to other packages; each module needs the extra of its name, e.g. ``pip install "scgde[cellrank]"``."""

from scgde.external._forecasts import TimeCourse, time_course
from scgde.external._transitions import transition_matrix

__all__ = ["TimeCourse", "time_course", "transition_matrix"]
