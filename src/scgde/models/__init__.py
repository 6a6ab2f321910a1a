"""The models users see."""

from scgde.models._gde import GDE
from scgde.models._tde import TDE

__all__ = ["GDE", "TDE"]
