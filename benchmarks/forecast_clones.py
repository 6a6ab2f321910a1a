"""Forecasts of clones that were seen on the first day only, beside baselines, in simulated cohorts and in LARRY."""

from __future__ import annotations

from typing import Any

#: Arguments of `simulate_clones`, fixed before any two methods were compared. Settings of methods were chosen on
#: cohorts with seeds from 100 on, made by the same arguments.
COHORTS: tuple[dict[str, Any], ...] = (
    {"seed": 0, "n_clones": 400, "n_cells": (10, 60), "days": (4, 6), "bias": 1.5, "irreducible": 0.3, "growth": 0.4},
    {"seed": 1, "n_clones": 600, "n_cells": (5, 40), "days": (4, 6), "bias": 1.5, "irreducible": 0.3, "growth": 0.6},
    {"seed": 2, "n_clones": 300, "n_cells": (20, 100), "days": (4, 6), "bias": 1.0, "irreducible": 0.3, "growth": 0.4},
    {"seed": 3, "n_clones": 400, "n_cells": (10, 60), "days": (4, 6), "bias": 2.5, "irreducible": 0.5, "growth": 0.4},
    {"seed": 4, "n_clones": 500, "n_cells": (10, 60), "days": (3, 6), "bias": 1.5, "irreducible": 0.3, "growth": 0.3},
    {
        "seed": 5,
        "n_clones": 600,
        "n_cells": (10, 40),
        "days": (2, 4, 6),
        "bias": 2.0,
        "irreducible": 0.2,
        "growth": 0.4,
    },
    {"seed": 6, "n_clones": 300, "n_cells": (15, 80), "days": (4, 6), "bias": 2.0, "irreducible": 0.1, "growth": 0.5},
    {"seed": 7, "n_clones": 600, "n_cells": (5, 30), "days": (3, 5), "bias": 1.5, "irreducible": 0.4, "growth": 0.2},
    {"seed": 8, "n_clones": 400, "n_cells": (10, 60), "days": (4, 7), "bias": 1.5, "irreducible": 0.2, "growth": 0.4},
    {"seed": 9, "n_clones": 800, "n_cells": (8, 50), "days": (4, 6), "bias": 1.2, "irreducible": 0.3, "growth": 0.4},
)

#: Share of clones that are seen on one day only, and features of a cell, in all cohorts.
SHARED = {"orphan_fraction": 0.9, "n_features": 20}
