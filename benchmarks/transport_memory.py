"""Memory and time of transporting up to a million cells: the memory is bounded, the time grows with the cells.

Each size runs in a process of its own, whose peak memory is that of this size alone. A tiny TDE is trained, then cells
of eight groups that it has never seen are moved to a ninth.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas as pd
from _report import Record, Report, parser
from anndata import AnnData

from scgde import TDE
from scgde.datasets import simulate_populations

#: Cells to move, and the cells in memory at a time that the largest number is compared at.
SIZES, BATCH_SIZES = (125_000, 250_000, 500_000, 1_000_000), (4096, 65_536)

#: Groups whose cells move, and cells of the group that they move to.
N_SOURCES, N_TARGET_CELLS = 8, 1000


def peak_memory() -> float:
    """Peak resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def tiny_model(seed: int, steps: int) -> TDE:
    """A trained TDE of 50 features with small networks."""
    adata = simulate_populations("cells50", 20, 200, seed=100)
    TDE.setup_anndata(adata, groupby="group", use_rep="X")
    small = {"encoder_kwargs": {"width": 32}, "generator_kwargs": {"width": 32}}
    model = TDE(adata, n_latent=8, seed=seed, **small)
    model.train(max_steps=steps, accelerator="cpu", enable_progress_bar=False)
    return model


def many_cells(n_cells: int, var: pd.DataFrame) -> AnnData:
    """``n_cells`` in 50 dimensions in eight groups of different means, and one group more to move them to."""
    rng = np.random.default_rng(0)
    codes = np.append(np.arange(n_cells) % N_SOURCES, np.full(N_TARGET_CELLS, N_SOURCES))
    x = rng.standard_normal((len(codes), 50), dtype=np.float32)
    x += rng.standard_normal((N_SOURCES + 1, 50), dtype=np.float32)[codes]
    group = pd.Categorical.from_codes(codes, [f"group_{i}" for i in range(N_SOURCES + 1)])
    return AnnData(x, obs=pd.DataFrame({"group": group}, index=np.arange(len(codes)).astype(str)), var=var)


def measure(n_cells: int, batch_size: int, seed: int, steps: int) -> Record:
    """Move cells, and tell the peak memory of the process before and after, and the time."""
    model = tiny_model(seed, steps)
    adata = many_cells(n_cells, model.adata.var)
    before, start, own_start = peak_memory(), time.perf_counter(), time.process_time()
    sources = [f"group_{i}" for i in range(N_SOURCES)]
    moved = model.transport(sources, f"group_{N_SOURCES}", adata, batch_size=batch_size)
    seconds, own_seconds = time.perf_counter() - start, time.process_time() - own_start
    assert moved.shape == (n_cells, 50)
    return {
        "cells": n_cells,
        "batch size": batch_size,
        "cells and moved cells as float32 (MiB)": 2 * moved.X.nbytes / 2**20,
        "peak memory before transport (MiB)": before,
        "peak memory (MiB)": peak_memory(),
        "growth by transport (MiB)": peak_memory() - before,
        "transport (s)": seconds,
        "processor time per cell (us)": 1e6 * own_seconds / n_cells,
    }


def in_own_process(n_cells: int, batch_size: int, seed: int, steps: int) -> Record:
    """:func:`measure`, in a process that does nothing else."""
    command = [sys.executable, __file__, "--one", *map(str, (n_cells, batch_size, seed, steps))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def main(options: argparse.Namespace) -> None:
    """Measure every size, and the largest at another batch size."""
    sizes = SIZES[:1] if options.quick else SIZES
    seeds = options.seeds[:1] if options.quick else options.seeds
    report = Report("Transport of many cells by TDE", {"features": 50, "steps": options.steps}, options.json)
    for seed in seeds:
        runs = [(n, BATCH_SIZES[0]) for n in sizes] + [(sizes[-1], size) for size in BATCH_SIZES[1:]]
        records = [
            report.measure(
                f"{n}/{size}/{seed}", lambda n=n, size=size, seed=seed: in_own_process(n, size, seed, options.steps)
            )
            for n, size in runs
        ]
        own = [record["processor time per cell (us)"] for record in records[: len(sizes)]]
        for n, each in zip(sizes, own, strict=True):
            print(f"seed {seed}: {n:,} cells: processor time per cell {each / own[0]:.2f} times that of {sizes[0]:,}")
    report.show()


if __name__ == "__main__":
    options = parser(__doc__.splitlines()[0], steps=30)
    options.add_argument("--one", type=int, nargs=4, help=argparse.SUPPRESS)
    options.set_defaults(seeds=[0])
    arguments = options.parse_args()
    # Lightning's remarks on the machine are not results.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
    else:
        main(arguments)
