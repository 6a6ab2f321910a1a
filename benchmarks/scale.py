"""Training and embedding from disk as the number of cells grows: time per step, peak memory, cells per second.

Simulated cells of 50 features lie in a zarr collection, group by group. Each size is measured in a process of its own,
after one that writes it. The second table reads the cells of one training batch, 160 of each of 32 groups, in the ways
there are.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from _report import Record, Report, parser
from anndata import AnnData
from throughput import StepProfiler
from transport_memory import peak_memory

from scgde import GDE
from scgde.data import open_collection, write_collection
from scgde.data._rows import StoredRows, files_of

#: Cells and groups: more cells in as many groups, then more groups of as many cells.
SIZES = ((10_000, 100), (100_000, 100), (1_000_000, 100), (10_000_000, 100), (1_000_000, 1000), (1_000_000, 10_000))

N_FEATURES, N_TYPES = 50, 5

#: Groups of a step and cells drawn of each, by default.
BATCH = (32, 160)


def simulated(group: np.ndarray, n_groups: int, seed: int) -> np.ndarray:
    """Cells of groups: a mixture of types whose shares and shifts differ between groups."""
    rng = np.random.default_rng(0)
    scale = 3 / np.sqrt(1 + np.arange(N_FEATURES, dtype=np.float32))
    centers = rng.standard_normal((N_TYPES, N_FEATURES), dtype=np.float32) * scale
    shift = rng.standard_normal((n_groups, N_FEATURES), dtype=np.float32) * (0.2 * scale)
    shares = rng.dirichlet(np.ones(N_TYPES), n_groups).cumsum(1)
    own = np.random.default_rng([1, seed])
    kind = (own.random((len(group), 1)) > shares[group]).sum(1).clip(max=N_TYPES - 1)
    noise = own.standard_normal((len(group), N_FEATURES), dtype=np.float32) * (0.4 * scale)
    return noise + centers[kind] + shift[group]


def write(path: Path, n_cells: int, n_groups: int) -> Record:
    """Write a collection of simulated cells, which no process ever holds at once."""
    codes = np.arange(n_cells) * n_groups // n_cells
    size = min(n_cells, 2**17)
    array = zarr.create_array(
        path.parent / "source.zarr",
        shape=(n_cells, N_FEATURES),
        dtype="f4",
        chunks=(size, N_FEATURES),
        compressors=None,
    )
    for start in range(0, n_cells, size):
        array[start : start + size] = simulated(codes[start : start + size], n_groups, start)
    group = pd.Categorical.from_codes(codes, [f"group_{i}" for i in range(n_groups)])
    adata = AnnData(obs=pd.DataFrame({"group": group}, index=codes.astype(str)), obsm={"X_pca": array})
    start = time.perf_counter()
    write_collection(adata, "group", path, use_rep="X_pca")
    return {"writing (s)": time.perf_counter() - start}


def sequential_reading(path: Path) -> float:
    """Seconds in which all numbers are read from the files, one after the other."""
    start = time.perf_counter()
    for file in sorted(path.glob("dataset_0/obsm/X_pca/c/*/0")):
        with file.open("rb") as opened:
            while opened.read(2**24):
                pass
    return time.perf_counter() - start


def measure(path: Path, seed: int, steps: int) -> Record:
    """Train and embed from a collection."""
    before = peak_memory()
    start, profiler = time.perf_counter(), StepProfiler()
    model = GDE.setup_annbatch(path)
    setup = time.perf_counter() - start
    model = GDE(model.adata, seed=seed, n_components=N_TYPES)
    model.train(max_steps=steps, accelerator="cpu", profiler=profiler, enable_progress_bar=False)
    training = time.perf_counter() - start - setup
    parts = {name: seconds[min(20, steps // 4) :] for name, seconds in profiler.parts().items()}
    trained = peak_memory()
    reading = sequential_reading(path)
    start = time.perf_counter()
    model.get_group_embedding(write_obsm=False, key_added=None)
    embedding, n_cells = time.perf_counter() - start, model.adata.n_obs
    return {
        "cells": n_cells,
        "groups": len(model.adata.obs["group"].cat.categories),
        "setup (s)": setup,
        "train() in all (s)": training,
        "step (ms)": 1e3 * float(np.median(parts["step"])),
        "gathering (ms)": 1e3 * float(np.median(parts["gather"])),
        "memory of interpreter and imports (MiB)": before,
        "growth by training (MiB)": trained - before,
        "growth by all (MiB)": peak_memory() - before,
        "embedding (s)": embedding,
        "embedded cells/s": n_cells / embedding,
        "reading the same bytes once (s)": reading,
        "embedding / one reading": embedding / reading,
    }


def fastest(function: Callable[[], Any], repeats: int = 3) -> float:
    """Milliseconds of the fastest of a few calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds)


def readers(path: Path) -> Record:
    """Milliseconds of reading one batch."""
    stored = open_collection(path).obsm["X_pca"]
    n_cells, n_groups = stored.shape[0], 100
    rng, size = np.random.default_rng(0), n_cells // n_groups
    groups = rng.choice(n_groups, BATCH[0], replace=False)
    rows = np.concatenate([g * size + rng.choice(size, min(size, BATCH[1]), replace=False) for g in groups])
    memory, sorted_rows = stored[:], np.sort(rows)
    assert files_of(stored) is not None
    own = StoredRows(stored, np.asarray, N_FEATURES, pd.RangeIndex(n_cells), "x")
    assert np.array_equal(own[rows], memory[rows])
    record = {
        "rows": len(rows),
        "in memory (ms)": fastest(lambda: memory[rows], 10),
        "from the files (ms)": fastest(lambda: own[rows], 10),
        "zarr, the same array (ms)": fastest(lambda: stored.oindex[sorted_rows], 1),
    }
    # It takes seconds a batch.
    if find_spec("annbatch") is not None and n_cells > 100_000:
        record["annbatch's loader, its own format (ms)"] = annbatch_reading(memory, rows, path.parent)
    return record


def annbatch_reading(memory: np.ndarray, rows: np.ndarray, folder: Path) -> float:
    """Milliseconds of one batch by annbatch's loader, from chunks of 64 cells in shards, its default."""
    import annbatch
    from annbatch.abc import Sampler

    class OneBatch(Sampler):
        batch_size, shuffle = len(rows), False

        def n_batches(self, n_obs: int) -> int:
            return 1

        n_iters = n_batches

        def validate(self, n_obs: int) -> None:
            pass

        def _sample(self, n_obs: int) -> Any:
            yield {"requests": rows, "splits": [np.arange(len(rows))]}

    shards = 64 * (min(len(memory), 256_000) // 64)
    array = zarr.create_array(folder / "a.zarr", shape=memory.shape, dtype="f4", chunks=(64, 50), shards=(shards, 50))
    array[:] = memory
    loader = annbatch.Loader(batch_sampler=OneBatch(), preload_to_gpu=False).add_dataset(array)
    return fastest(lambda: list(loader), 1)


def in_own_process(*arguments: object) -> Record:
    """One of the functions above, in a process that does nothing else."""
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def one_size(n_cells: int, n_groups: int, seed: int, steps: int) -> Record:
    """Write and measure one size."""
    with tempfile.TemporaryDirectory(prefix="scgde-scale-") as folder:
        path = Path(folder) / "cells.zarr"
        written = in_own_process("write", path, n_cells, n_groups)
        return in_own_process("measure", path, seed, steps) | written


def reading(n_cells: int) -> Record:
    """Write cells of 100 groups and read a batch of them."""
    with tempfile.TemporaryDirectory(prefix="scgde-scale-") as folder:
        path = Path(folder) / "cells.zarr"
        in_own_process("write", path, n_cells, 100)
        return in_own_process("readers", path)


def main(options: argparse.Namespace) -> None:
    """Measure every size, then the ways to read."""
    sizes = SIZES[:1] if options.quick else [size for size in SIZES if size[0] <= options.max_cells]
    steps, seed = min(options.steps, 12) if options.quick else options.steps, options.seeds[0]
    report = Report("Training and embedding from disk", {"features": N_FEATURES, "steps": steps}, options.json)
    for n_cells, n_groups in sizes:
        report.measure(f"{n_cells}/{n_groups}", lambda n=n_cells, g=n_groups: one_size(n, g, seed, steps))
    report.show()
    path = options.json and options.json.with_name(f"{options.json.stem}_readers.json")
    ways = Report("One training batch, read in several ways", {"features": N_FEATURES}, path)
    n_cells = sizes[0][0] if options.quick else 1_000_000
    ways.measure(f"{n_cells}/100", lambda: reading(n_cells))
    ways.show()


if __name__ == "__main__":
    options = parser(__doc__.splitlines()[0], steps=100)
    options.add_argument("--max-cells", type=int, default=1_000_000, help="largest size (default: a million)")
    options.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options.set_defaults(seeds=[0])
    arguments = options.parse_args()
    # Lightning's remarks on the machine are not results.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    if arguments.one:
        name, path, *numbers = arguments.one
        print(
            json.dumps({"write": write, "measure": measure, "readers": readers}[name](Path(path), *map(int, numbers)))
        )
    else:
        main(arguments)
