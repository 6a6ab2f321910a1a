"""Bridges to other packages; each module needs the extra of its name, e.g. ``pip install "scgde[cellrank]"``."""

from scgde.external._transitions import transition_matrix

__all__ = ["transition_matrix"]
