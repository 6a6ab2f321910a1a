"""How fast training, embedding and generating are, where a training step's time goes, and how low it could be.

The training loop is the one that users run, its parts timed by a Lightning profiler. The floor of a step is the time of
its matrix products alone, forward and backward, replayed with random numbers of the same shapes and strides. Two more
tables set training beside a plain loop of the same networks: steps per second, and the time to a quality.
"""

from __future__ import annotations

import logging
import os
import resource
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from _against_loop import steps_per_second, time_to_quality
from _plain_loop import CELLS, PAIRS, WIDTH
from _report import Record, Report, parser
from lightning.pytorch.profilers import Profiler
from torch.utils._python_dispatch import TorchDispatchMode

from scgde import GDE
from scgde.datasets import simulate_populations
from scgde.models._inference import encode_groups, generate

#: Groups and cells per group of the simulated matrix; 50 features.
N_GROUPS, N_CELLS = 200, 1000

#: Steps before those that are timed.
WARM_UP = 20

#: Cells generated per group, for the first groups.
GENERATED_GROUPS, GENERATED_CELLS = 20, 512

#: Lightning's names of the parts of a step, by their last words.
PARTS = {
    "gather": "train_dataloader_next",
    "forward": "Strategy.training_step",
    "backward": "Strategy.backward",
    "clipping": "configure_gradient_clipping",
    "optimizer": "GDETrainingPlan.optimizer_step",
    "EMA": "WeightAveraging.on_train_batch_end",
}

MATRIX_PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
}


def synchronize() -> None:
    """Wait for the device, so that a clock read afterwards is right."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class StepProfiler(Profiler):
    """Start of each step, and duration of each part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[float] = []
        self.durations: dict[str, list[float]] = defaultdict(list)
        self._open: dict[str, float] = {}

    def start(self, action_name: str) -> None:
        """Note the time."""
        part = next((name for name, end in PARTS.items() if action_name.endswith(end)), None)
        if part is None:
            return
        synchronize()
        self._open[action_name] = time.perf_counter()
        if part == "gather":
            self.starts.append(self._open[action_name])

    def stop(self, action_name: str) -> None:
        """Note the duration."""
        if action_name in self._open:
            synchronize()
            part = next(name for name, end in PARTS.items() if action_name.endswith(end))
            self.durations[part].append(time.perf_counter() - self._open.pop(action_name))

    def parts(self) -> dict[str, np.ndarray]:
        """Seconds of each step: in all, and by part. The last step is left out."""
        step = np.diff(self.starts)
        parts = {name: np.array(self.durations[name][: len(step)]) for name in PARTS}
        # Lightning's optimizer step contains the closure, which is the rest of the computation.
        parts["optimizer"] = parts["optimizer"] - parts["forward"] - parts["backward"] - parts["clipping"]
        return {"step": step, **parts, "other": step - sum(parts.values())}


class MatrixProducts(TorchDispatchMode):
    """Records the matrix products that run while it is active, and replays them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, list[torch.Tensor], dict[str, Any]]] = []
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Note shapes and strides, and compute."""
        if func in MATRIX_PRODUCTS:
            self.calls.append((func, [_like(a) for a in args], kwargs or {}))
            self.flops += 2 * args[-2].numel() * args[-1].shape[-1]
        return func(*args, **(kwargs or {}))

    @torch.no_grad()
    def replay(self) -> None:
        """Run them, and nothing else."""
        for func, args, kwargs in self.calls:
            func(*args, **kwargs)


def _like(tensor: torch.Tensor) -> torch.Tensor:
    """Random numbers of the same shape, strides, type and device."""
    size = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    numbers = torch.randn(size, dtype=tensor.dtype, device=tensor.device)
    return numbers.as_strided(tensor.shape, tensor.stride())


class ReplayBetweenSteps(pl.Callback):
    """Records the matrix products of one step, and replays them between later ones.

    A shared machine is faster at some times than at others: what is compared has to take turns.

    Parameters
    ----------
    first
        The step that is recorded; the steps before it do not count.
    every
        Steps from one replay to the next.
    """

    def __init__(self, first: int, every: int = 10) -> None:
        self.first, self.every = first, every
        self.products, self.seconds = MatrixProducts(), list[float]()
        self.disturbed: set[int] = set()

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start recording."""
        if trainer.global_step == self.first:
            self.products.__enter__()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop recording, or replay."""
        step = trainer.global_step - 1
        if step == self.first:
            self.products.__exit__(None, None, None)
        elif step > self.first and step % self.every == 0:
            self.seconds.append(median_seconds(self.products.replay, 1))
        else:
            return
        self.disturbed.add(step)

    def medians(self, profiler: StepProfiler) -> Record:
        """Median seconds of a step and of each part of it, of steps in which nothing was recorded or replayed."""
        parts = profiler.parts()
        steps = np.arange(len(parts["step"]))
        kept = (steps > self.first) & ~np.isin(steps, list(self.disturbed))
        return {name: float(np.median(seconds[kept])) for name, seconds in parts.items()}

    @property
    def floor(self) -> float:
        """Median seconds of the matrix products alone."""
        return statistics.median(self.seconds)


def median_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Median time of a call, after one that does not count."""
    seconds = []
    for _ in range(repeats + 1):
        synchronize()
        start = time.perf_counter()
        function()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def peak_memory(accelerator: str = "auto") -> float:
    """Peak memory in MiB: allocated on the GPU, else resident in this process."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def train(model: GDE, steps: int, accelerator: str) -> Record:
    """Train, and tell where the time of a step goes."""
    profiler, replay = StepProfiler(), ReplayBetweenSteps(min(WARM_UP, steps // 4))
    start = time.perf_counter()
    model.train(
        max_steps=steps, accelerator=accelerator, profiler=profiler, callbacks=[replay], enable_progress_bar=False
    )
    whole = time.perf_counter() - start - 2 * sum(replay.seconds)
    median, floor = replay.medians(profiler), replay.floor
    shares = {f"share: {name} (%)": 100 * median[name] / median["step"] for name in median if name != "step"}
    return {
        "training steps/s": 1 / median["step"],
        "step (ms)": 1e3 * median["step"],
        **shares,
        "matrix products in a step": len(replay.products.calls),
        "their floating-point operations (G)": replay.products.flops / 1e9,
        "their time alone, the floor (ms)": 1e3 * floor,
        "step / floor": median["step"] / floor,
        "train() in all (s)": whole,
    }


def measure(model: GDE, steps: int, repeats: int, accelerator: str = "auto") -> Record:
    """Train, embed all groups and generate cells."""
    load = os.getloadavg()[0]
    adata, before = model.adata, peak_memory(accelerator)
    record = train(model, steps, accelerator)
    codes, n_groups = adata.obs["group"].cat.codes.to_numpy().astype(np.int64), adata.obs["group"].nunique()
    encoding = encode_groups(model.module, adata.X, codes, n_groups)
    seconds = median_seconds(lambda: encode_groups(model.module, adata.X, codes, n_groups), repeats)
    some = torch.arange(min(GENERATED_GROUPS, n_groups))
    z, mixtures = encoding.z[some], encoding.mixtures[some]
    generating = median_seconds(
        lambda: generate(model.module, z, GENERATED_CELLS, mixtures=mixtures, batch=None, seed=0), repeats
    )
    return {
        **record,
        "encoded cells/s": adata.n_obs / seconds,
        "generated cells/s": len(some) * GENERATED_CELLS / generating,
        "components of the shared mixture": model.module.statistics.n_components,
        "memory before training (MiB)": before,
        "peak memory (MiB)": peak_memory(accelerator),
        "load of the machine before (1-min average)": load,
    }


def main() -> None:
    """Measure every seed and print the tables."""
    options = parser(__doc__.splitlines()[0], steps=300)
    options.add_argument("--seconds", type=float, default=120.0, help="training time of the plain loops (default: 120)")
    arguments = options.parse_args()
    n_cells, steps, seeds, seconds = N_CELLS, arguments.steps, arguments.seeds, arguments.seconds
    loop_steps, rounds, pairs, cells = 20, 3, 100, 500
    if arguments.quick:
        n_cells, steps, seeds, seconds = 100, min(steps, 60), seeds[:1], 2.0
        loop_steps, rounds, pairs, cells = 2, 1, 4, 50
    # Lightning's remarks on the machine are not results.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")

    def table(part: str, title: str, settings: dict[str, Any], function: Callable[[int], Record]) -> None:
        path = arguments.json and arguments.json.with_name(f"{arguments.json.stem}-{part}{arguments.json.suffix}")
        report = Report(title, settings, path)
        for seed in seeds:
            report.measure(f"seed {seed}", lambda seed=seed: function(seed))
        report.show()

    settings = {"steps": loop_steps, "rounds": rounds, "sets": PAIRS, "cells per set": CELLS, "width": WIDTH}
    title = "Training steps per second beside a plain loop"
    table("loop", title, settings, lambda seed: steps_per_second(seed, loop_steps, rounds))
    settings = {"seconds of the loops": seconds, "reporting pairs": pairs, "their cells": cells}
    title = "Energy distance to held-out cells of unseen targets, beside a plain loop"
    table("quality", title, settings, lambda seed: time_to_quality(seed, seconds, pairs, cells))
    settings = {"groups": N_GROUPS, "cells per group": n_cells, "features": 50, "steps": steps}
    adata = simulate_populations("cells50", N_GROUPS, n_cells, seed=100)
    GDE.setup_anndata(adata, groupby="group", use_rep="X")
    title = "Throughput of GDE with default settings"
    table("step", title, settings, lambda seed: measure(GDE(adata, seed=seed), steps, 3))


if __name__ == "__main__":
    main()
