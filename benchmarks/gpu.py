"""Training, embedding and generating on a GPU beside the CPU: speed, share of the peak, memory, and the same embedding.

The peak of a device is measured on it: one large matrix product, in float32, and in tf32 where the device has it. A
training step's rate counts its matrix products alone. Without a GPU the CPU's row is printed.
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
import torch
from _report import Record, Report, parser
from throughput import N_CELLS, N_GROUPS, measure, median_seconds

from scgde import GDE
from scgde.datasets import simulate_populations

#: Rows of the matrices whose product is the peak.
SIZES = {"cpu": 2048, "gpu": 8192}


def peak(accelerator: str, *, tf32: bool = False, size: int | None = None) -> float:
    """Floating-point operations per second of a product of square matrices, in units of 10^9."""
    size = size or SIZES[accelerator]
    matrix = torch.randn(size, size, device="cuda" if accelerator == "gpu" else "cpu")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        return 2 * size**3 / median_seconds(lambda: matrix @ matrix, 5) / 1e9
    finally:
        torch.set_float32_matmul_precision(before)


def row(model: GDE, accelerator: str, steps: int, size: int | None) -> Record:
    """Speed, share of the peak and memory of one device."""
    measured = measure(model, steps, 3, accelerator)
    rate = measured["their floating-point operations (G)"] / (1e-3 * measured["step (ms)"])
    peaks = {"float32": peak(accelerator, size=size)}
    if accelerator == "gpu":
        peaks["tf32"] = peak(accelerator, tf32=True, size=size)
    kept = ("training steps/s", "encoded cells/s", "generated cells/s", "peak memory (MiB)")
    return {
        **{name: measured[name] for name in kept},
        "matrix products of a step (GFLOP/s)": rate,
        **{f"peak, {name} (GFLOP/s)": value for name, value in peaks.items()},
        **{f"share of it, {name} (%)": 100 * rate / value for name, value in peaks.items()},
        "step / floor": measured["step / floor"],
        "load before": measured["load of the machine before (1-min average)"],
    }


def embedding(model: GDE) -> np.ndarray:
    """Of all groups."""
    return model.get_group_embedding(key_added=None, write_obsm=False).to_numpy()


def main() -> None:
    """Measure both devices and print the table."""
    options = parser(__doc__.splitlines()[0], steps=300).parse_args()
    n_cells, steps, seeds, size = N_CELLS, options.steps, options.seeds, None
    if options.quick:
        n_cells, steps, seeds, size = 100, min(steps, 20), seeds[:1], 256
    # Lightning's remarks on the machine are not results.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    settings = {"groups": N_GROUPS, "cells per group": n_cells, "features": 50, "steps": steps}
    report = Report("GDE with default settings, by device", settings, options.json)
    adata = simulate_populations("cells50", N_GROUPS, n_cells, seed=100)
    GDE.setup_anndata(adata, groupby="group", use_rep="X")
    for seed in seeds:
        report.measure(f"cpu, seed {seed}", lambda seed=seed: row(GDE(adata, seed=seed), "cpu", steps, size))
        if not torch.cuda.is_available():
            continue

        def on_gpu(seed: int = seed) -> Record:
            model, other = GDE(adata, seed=seed), GDE(adata, seed=seed)
            record = row(model, "gpu", steps, size)
            other.train(max_steps=steps, accelerator="cpu", enable_progress_bar=False)
            z = embedding(other)
            record["largest difference to the CPU's embedding (sd between groups)"] = float(
                np.abs(embedding(model) - z).max() / z.std(0).max()
            )
            return record

        report.measure(f"gpu, seed {seed}", on_gpu)
    report.show(by="row")
    if not torch.cuda.is_available():
        print("There is no CUDA device here: these are the CPU's numbers, and nothing was compared.")


if __name__ == "__main__":
    main()
