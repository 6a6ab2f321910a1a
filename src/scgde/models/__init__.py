"""The models users see."""

from scgde.models._gde import GDE

__all__ = ["GDE"]
