"""Memory and time of embedding one group of two million cells, and the time of its matrix products alone.

Each run has a process of its own, whose peak memory is that of the embedding. The floor replays the matrix products of
embedding 65,536 of the cells, with random numbers of the same shapes, and is scaled up.
"""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _report import Record, Report, parser
from throughput import MatrixProducts
from transport_memory import peak_memory

from scgde import GDE
from scgde.datasets import simulate_populations
from scgde.models._inference import encode_groups
from scgde.nn.encoders import ENCODERS

#: Cells of the group, cells whose matrix products are replayed, features.
N_CELLS, N_REPLAYED, N_FEATURES = 2_000_000, 65_536, 50


def fastest(function: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds of the fastest of a few calls: other work on the machine only adds to them."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(encoder: str, seed: int, steps: int, n_cells: int) -> Record:
    """Embed one group of ``n_cells`` with a model of default size."""
    adata = simulate_populations("cells50", 40, 200, seed=100)
    GDE.setup_anndata(adata, groupby="group", use_rep="X")
    model = GDE(adata, encoder=encoder, seed=seed)
    model.train(max_steps=steps, accelerator="cpu", enable_progress_bar=False)
    x = np.random.default_rng(0).standard_normal((n_cells, N_FEATURES), dtype=np.float32)
    codes = np.zeros(n_cells, dtype=np.int64)
    before = peak_memory()
    seconds = fastest(lambda: encode_groups(model.module, x, codes, 1))
    after = peak_memory()
    some, products = slice(N_REPLAYED), MatrixProducts()
    # Inference mode hides matrix products inside other operations.
    with products, torch.no_grad():
        inspect.unwrap(encode_groups)(model.module, x[some], codes[some], 1)
    scale = n_cells / len(x[some])
    floor = scale * fastest(products.replay)
    return {
        "cells": n_cells,
        "components of the shared mixture": model.module.statistics.n_components,
        "data (MiB)": x.nbytes / 2**20,
        "peak memory before (MiB)": before,
        "growth by embedding (MiB)": after - before,
        "embedding (s)": seconds,
        "its matrix products alone, the floor (s)": floor,
        "embedding / floor": seconds / floor,
        "embedded cells/s": n_cells / seconds,
    }


def in_own_process(*arguments: object) -> Record:
    """:func:`measure`, in a process that does nothing else."""
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def main(options: argparse.Namespace) -> None:
    """Measure every encoder that was asked for."""
    n_cells = 2 * N_REPLAYED if options.quick else N_CELLS
    seeds = options.seeds[:1] if options.quick else options.seeds
    report = Report("Embedding of one large group", {"features": N_FEATURES, "steps": options.steps}, options.json)
    for seed in seeds:
        for encoder in options.encoders:
            key = f"{encoder} {n_cells} {seed}"
            report.measure(key, lambda e=encoder, seed=seed: in_own_process(e, seed, options.steps, n_cells))
    report.show()


if __name__ == "__main__":
    options = parser(__doc__.splitlines()[0], steps=5)
    options.add_argument("--encoders", nargs="+", default=["resnet"], choices=list(ENCODERS))
    options.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options.set_defaults(seeds=[0])
    arguments = options.parse_args()
    # Lightning's remarks on the machine are not results.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.manual_seed(0)
    if arguments.one:
        encoder, *numbers = arguments.one
        print(json.dumps(measure(encoder, *map(int, numbers))))
    else:
        main(arguments)
