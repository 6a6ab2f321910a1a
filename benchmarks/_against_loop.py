"""Our training beside the papers' loop on the same machine at the same time: steps per second, and time to a quality.

Measurements take turns, so that whatever else the machine does is shared by both.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from _plain_loop import CELLS, LATENT, PAIRS, WIDTH, WORKERS, PlainLoop, SameArithmetic, loader
from _report import Record
from anndata import AnnData
from transport_memory import peak_memory
from transport_populations import Reporting, moved

from scgde import TDE
from scgde.datasets import simulate_populations

#: Training populations, and cells of each (``cells50``, as in ``transport_populations.py``).
N_GROUPS, N_CELLS = 500, 200

#: Steps of ours that are tried one after the other, each from the beginning.
LADDER = (1, 50, 200)


class Clock(pl.Callback):
    """Times at which steps begin."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())


def training_cells(seed: int, n_groups: int = N_GROUPS) -> tuple[AnnData, torch.Tensor]:
    """Simulated populations, registered, and as a padded array."""
    adata = simulate_populations("cells50", n_groups, N_CELLS, seed)
    TDE.setup_anndata(adata, groupby="group", use_rep="X")
    return adata, torch.from_numpy(adata.X).view(n_groups, N_CELLS, -1)


def our_speed(model: TDE, steps: int, warm_up: int = 3) -> float:
    """Steps per second of ``model.train()`` at the sets, cells and widths of the loop; less than an epoch's steps."""
    clock = Clock()
    model.train(
        max_steps=steps + warm_up + 1,
        batch_size=PAIRS,
        cells_per_group=CELLS,
        validation_size=0.0,
        callbacks=[clock],
        enable_progress_bar=False,
    )
    return steps / (clock.times[-1] - clock.times[warm_up])


def steps_per_second(seed: int, steps: int, rounds: int) -> Record:
    """Ours, and the loops with their loader and with batches made before, in turns; medians over the rounds."""
    adata, x = training_cells(seed)
    widths = {"encoder_kwargs": {"width": WIDTH}, "generator_kwargs": {"width": WIDTH}}
    ours = TDE(adata, n_latent=LATENT, seed=seed, **widths)
    widths["generator_kwargs"] = {"width": WIDTH, "coupling": "independent"}
    pairs = TDE(adata, n_latent=LATENT, seed=seed, method="flow", **widths)
    load = os.getloadavg()[0]
    # The first call fits statistics, which the loop of the same arithmetic takes over.
    our_speed(pairs, 1)
    loops = {"loop": SameArithmetic(x, seed, pairs), "bare loop": PlainLoop(x, seed)}
    speeds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        speeds["ours"].append(our_speed(ours, steps))
        speeds["ours, on pairs"].append(our_speed(pairs, steps))
        for name, loop in loops.items():
            cells = loop.standardized(x)
            speeds[f"{name}, with its loader"].append(loop.steps_per_second(loader(cells), steps))
            ready = [batch for batch, _ in zip(loader(cells, workers=0), range(steps + 3), strict=False)]
            speeds[f"{name}, batches made before"].append(loop.steps_per_second(ready, steps))
    median = {name: statistics.median(values) for name, values in speeds.items()}
    others = [name for name in median if "loop" in name]
    return {
        **{f"{name} (steps/s)": value for name, value in median.items()},
        **{f"ours / {name}": median["ours"] / median[name] for name in others},
        **{f"ours, on pairs / {name}": median["ours, on pairs"] / median[name] for name in others},
        "cells encoded in a step, ours": PAIRS * CELLS,
        "cells encoded in a step, loop": 2 * PAIRS * CELLS,
        "cells scored in a step, ours": PAIRS * CELLS // 4,
        "cells scored in a step, loop": PAIRS * CELLS,
        "worker processes of the loop": WORKERS,
        "load of the machine before (1-min average)": load,
        "peak memory of the process (MiB)": peak_memory(),
    }


def time_to_quality(seed: int, seconds: float, n_pairs: int, n_cells: int) -> Record:
    """Energy distances of both loops after some seconds, and the seconds in which ours is as good."""
    adata, x = training_cells(seed)
    reporting = Reporting("cells50", n_pairs, n_cells)

    def energy(cells: np.ndarray) -> float:
        return float(reporting.scores(cells)["energy"].mean())

    record: Record = {"load of the machine before (1-min average)": os.getloadavg()[0]}
    record["identity: energy distance"] = energy(reporting.source)
    record["another draw of the target: energy distance"] = energy(reporting.floor)
    ours: list[tuple[float, float]] = []
    for n in LADDER:
        model = TDE(adata, seed=seed)
        start = time.perf_counter()
        model.train(max_steps=n, enable_progress_bar=False)
        taken = time.perf_counter() - start
        ours.append((taken, energy(moved(model, reporting, exact_moments=False))))
        record |= {f"ours, {n} steps: seconds": taken, f"ours, {n} steps: energy distance": ours[-1][1]}
    # Its statistics have the loop's size; fitting them is no part of the loop's time.
    fitted = TDE(adata, n_latent=LATENT, seed=seed, method="flow")
    fitted.train(max_steps=1, enable_progress_bar=False)
    ends = torch.from_numpy(reporting.source), torch.from_numpy(reporting.target)
    for name, loop in (("loop", SameArithmetic(x, seed, fitted)), ("bare loop", PlainLoop(x, seed))):
        batches = iter(loader(loop.standardized(x)))
        for share in (0.25, 0.5, 1.0):
            loop.train_until(batches, share * seconds, seconds)
            reached = energy(loop.transport(*ends).numpy())
            record[f"{name}, {share * seconds:.0f} s: energy distance"] = reached
        good = [taken for taken, distance in ours if distance <= reached]
        record[f"ours is as good as the {name} at its end: seconds"] = min(good, default=float("inf"))
    record["peak memory of the process (MiB)"] = peak_memory()
    return record
