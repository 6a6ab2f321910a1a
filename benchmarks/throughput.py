"""Speed of training, embedding and generation, and how far a training step is from its matrix products.

Prints a table and, with --json, writes the same numbers. Medians over repeated steps after a warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch.utils._python_dispatch import TorchDispatchMode

import scgde
from scgde import GDE
from scgde.data import GroupDataModule, GroupedCells
from scgde.data._datamodule import fold_sums, training_counts
from scgde.models._training import Budget, GDETrainingPlan

PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm}


class Recorder(TorchDispatchMode):
    """Remembers every matrix product of a step: its operator and the shapes and strides of its operands."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable, list[torch.Tensor]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in PRODUCTS:
            operands = [torch.empty_strided(a.shape, a.stride()).normal_() for a in args if isinstance(a, torch.Tensor)]
            self.calls.append((func, operands))
        return func(*args, **(kwargs or {}))


def median_ms(action: Callable[[], object], repeats: int) -> float:
    """Median duration of ``action`` in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def cohort(n_groups: int, n_cells: int, n_features: int, seed: int) -> AnnData:
    """Groups of cells of five types that differ in proportions and in a shift."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 2, (5, n_features))
    x = np.empty((n_groups, n_cells, n_features), dtype=np.float32)
    for group in x:
        kind = rng.choice(5, n_cells, p=rng.dirichlet(np.full(5, 2.0)))
        group[:] = means[kind] + rng.normal(0, 0.5, n_features) + rng.normal(0, 1, (n_cells, n_features))
    donor = np.repeat([f"donor_{i}" for i in range(n_groups)], n_cells)
    obs = pd.DataFrame({"donor": donor}, index=np.arange(len(donor)).astype(str))
    return AnnData(x.reshape(-1, n_features), obs=obs)


def measure(seed: int, steps: int, n_groups: int, n_cells: int) -> dict[str, float]:
    """All numbers for one seed."""
    adata = cohort(n_groups, n_cells, 50, seed)
    GDE.setup_anndata(adata, groupby="donor")
    model = GDE(adata, seed=seed)
    model.train(max_steps=20, enable_progress_bar=False)
    module = model.module.train()
    codes = model.setup.read(adata, training=True).index.codes
    x = module.standardize(torch.from_numpy(adata.X)).numpy()
    cells = GroupedCells.from_arrays(x, codes, n_groups, None, None, seed)
    nothing = torch.tensor([], dtype=torch.int64)
    counts = training_counts(cells.counts, nothing)
    data = GroupDataModule(
        cells,
        fold_sums(cells, counts, module.statistics),
        torch.arange(n_groups),
        nothing,
        batch_size=32,
        cells_per_group=128,
        scored_per_group=32,
        seed=seed,
        steps_per_epoch=1000,
    )
    plan = GDETrainingPlan(module, seed=seed, budget=Budget(max_steps=1000))
    optimizer = plan.configure_optimizers()["optimizer"]
    average = torch.optim.swa_utils.AveragedModel(plan, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998))
    dataset = data.train_dataloader().dataset
    parts: dict[str, list[float]] = {name: [] for name in ("gather", "forward", "backward", "optimizer", "average")}

    def step(i: int) -> None:
        marks = [time.perf_counter()]
        batch = dataset[i]
        marks.append(time.perf_counter())
        measured = torch.arange(len(batch.group)) % 2 == 0
        loss = plan.loss(batch, step=i, measured=measured).mean()
        marks.append(time.perf_counter())
        optimizer.zero_grad()
        loss.backward()
        marks.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(module.parameters(), 2.0)
        optimizer.step()
        marks.append(time.perf_counter())
        average.update_parameters(plan)
        marks.append(time.perf_counter())
        for name, start, stop in zip(parts, marks[:-1], marks[1:], strict=True):
            parts[name].append(1e3 * (stop - start))

    for i in range(5):
        step(i)
    for times in parts.values():
        times.clear()
    for i in range(5, 5 + steps):
        step(i)
    total = statistics.median(map(sum, zip(*parts.values(), strict=True)))
    recorder = Recorder()
    with recorder:
        step(5 + steps)
    floor = median_ms(lambda: [func(*operands) for func, operands in recorder.calls], steps)
    module.eval()
    embed = median_ms(lambda: model.get_group_embedding(key_added=None), 3)
    generated = median_ms(lambda: model.sample(list(adata.obs["donor"].unique()[:10]), 500), 3)
    return {
        "training steps/s": 1e3 / total,
        "encoded cells/s": adata.n_obs / embed * 1e3,
        "generated cells/s": 5000 / generated * 1e3,
        "step, ms": total,
        **{f"share of a step: {name}": sum(times) / sum(map(sum, parts.values())) for name, times in parts.items()},
        "matrix products alone, ms": floor,
        "step / matrix products": total / floor,
    }


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60, help="steps to time per seed")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one seed on a small cohort")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="lightning")
    seeds, size = (args.seeds[:1], (40, 200)) if args.quick else (args.seeds, (200, 1000))
    runs = [measure(seed, args.steps, *size) for seed in seeds]
    numbers = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    numbers["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    setting = {
        "groups x cells x features": f"{size[0]} x {size[1]} x 50",
        "batch": "32 groups, 128 cells encoded and 32 scored each",
        "seeds": seeds,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "scgde": scgde.__version__,
    }
    for name, value in setting.items():
        print(f"{name:<36} {value}")
    for name, number in numbers.items():
        print(f"{name:<36} {number:12,.3f}" if number < 100 else f"{name:<36} {number:12,.0f}")
    if args.json:
        args.json.write_text(json.dumps({"setting": setting, "numbers": numbers, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
