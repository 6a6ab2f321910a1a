"""Where each millisecond of a training step goes, beside the matrix products of the step replayed alone.

The loop is that of ``model.train()`` with default settings. Lightning's profiler gives the large parts of a step,
timers around our own functions the smaller ones, which are inside the larger ones. Medians over steps.
"""

from __future__ import annotations

import functools
import logging
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from _report import Record, Report, parser
from throughput import WARM_UP, ReplayBetweenSteps, StepProfiler, synchronize

from scgde import GDE
from scgde.data import GroupedCells, GroupSampler
from scgde.datasets import simulate_populations
from scgde.nn._random import CounterRandom
from scgde.nn.encoders import Encoder
from scgde.nn.generators import Flow
from scgde.nn.statistics import MixtureStatistics

#: Functions that are timed, and the part of a step that each is in.
FUNCTIONS = {
    "gather: which groups": (GroupSampler, "groups_of"),
    "gather: which cells": (GroupSampler, "cells_of"),
    "gather: copy the cells": (GroupedCells, "gather"),
    "forward: statistics": (MixtureStatistics, "mixtures"),
    "forward: coordinates": (MixtureStatistics, "coordinates"),
    "forward: read back": (MixtureStatistics, "read_back"),
    "forward: encoder": (Encoder, "forward"),
    "forward: generator": (Flow, "loss"),
    "in these: random bits": (CounterRandom, "_bits"),
}


class Timers:
    """Seconds of each function, summed up over the calls of a step."""

    def __init__(self) -> None:
        self.now: dict[str, float] = defaultdict(float)
        self.steps: list[dict[str, float]] = []

    @contextmanager
    def on(self, names: dict[str, tuple[Any, str]]) -> Iterator[None]:
        """Time functions, in the place of which timed ones are put."""
        with ExitStack() as stack:
            for name, (owner, attribute) in names.items():
                stack.enter_context(patch.object(owner, attribute, self._timed(name, getattr(owner, attribute))))
            first, attribute = names["gather: which groups"]
            stack.enter_context(patch.object(first, attribute, self._first(getattr(first, attribute))))
            yield
        self.steps.append(dict(self.now))

    def _timed(self, name: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            synchronize()
            start = time.perf_counter()
            result = function(*args, **kwargs)
            synchronize()
            self.now[name] += time.perf_counter() - start
            return result

        return timed

    def _first(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def first(*args: Any, **kwargs: Any) -> Any:
            # A step begins with its groups.
            self.steps.append(dict(self.now))
            self.now.clear()
            return function(*args, **kwargs)

        return first


def measure(seed: int, steps: int, n_cells: int, precision: str) -> Record:
    """Train, and tell the milliseconds of each part."""
    adata = simulate_populations("cells50", 200, n_cells, seed=100)
    GDE.setup_anndata(adata, groupby="group", use_rep="X")
    warm_up = min(WARM_UP, steps // 4)
    model, timers, profiler, replay = GDE(adata, seed=seed), Timers(), StepProfiler(), ReplayBetweenSteps(warm_up)
    with timers.on(FUNCTIONS):
        model.train(
            max_steps=steps, profiler=profiler, callbacks=[replay], precision=precision, enable_progress_bar=False
        )
    parts = {name: 1e3 * seconds for name, seconds in replay.medians(profiler).items()}
    floor = 1e3 * replay.floor
    # The first and the last entry hold what comes before the first step and after the last one.
    ours = timers.steps[1 + warm_up : -2]
    small = {name: 1e3 * float(np.median([step.get(name, 0.0) for step in ours])) for name in FUNCTIONS}
    return {
        **{f"{name} (ms)": value for name, value in (parts | small).items()},
        "matrix products alone (ms)": floor,
        "step / matrix products": parts["step"] / floor,
        "gather / step (%)": 100 * parts["gather"] / parts["step"],
    }


def main() -> None:
    """Measure every seed and print the table."""
    arguments = parser(__doc__.splitlines()[0], steps=300)
    arguments.add_argument("--precision", default="32-true", help="of the networks, as Lightning names it")
    options = arguments.parse_args()
    steps, seeds, n_cells = options.steps, options.seeds, 1000
    if options.quick:
        steps, seeds, n_cells = min(steps, 20), seeds[:1], 100
    # Lightning's remarks on the machine are not results.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    settings = {
        "groups": 200,
        "cells per group": n_cells,
        "features": 50,
        "steps": steps,
        "precision": options.precision,
    }
    report = Report("A training step of GDE with default settings, part by part", settings, options.json)
    for seed in seeds:
        report.measure(f"seed {seed}", lambda seed=seed: measure(seed, steps, n_cells, options.precision))
    report.show()


if __name__ == "__main__":
    main()
