"""What few network evaluations cost: generated cells of unseen groups by 4 to 200 evaluations of one trained model.

Groups and scores are those of ``generate_populations.py``; all rows of a model start from the same noise, and what was
learned counts in full. The loss is the relative difference of the mean score from that with 200 evaluations, with two
standard errors over groups.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from _report import Record, Report, parser
from generate_populations import QUICK, TASKS, Models, Reporting, Task

#: Evaluations per step of the sampler, and evaluations to compare.
PER_STEP, EVALUATIONS = 2, (4, 10, 20, 50, 200)


def losses(scores: dict[str, np.ndarray], best: dict[str, np.ndarray]) -> Record:
    """Mean of each score, and its loss relative to the best sampler."""
    record = {}
    for name, values in scores.items():
        difference = values - best[name]
        unit = 100 / abs(float(best[name].mean()))
        record[name] = float(values.mean())
        record[f"{name}, loss %"] = unit * float(difference.mean())
        record[f"{name}, 2 se"] = unit * 2 * float(difference.std(ddof=1)) / len(values) ** 0.5
    return record


def run(report: Report, kind: str, task: Task, seeds: list[int], steps: int, n_groups: int, names: list[str]) -> None:
    """Measure every sampler of every model, the best one first."""
    models, kept = Models(kind, task, steps), {}

    def scores(name: str, seed: int, n_steps: int | None) -> tuple[dict[str, np.ndarray], float]:
        if "reporting" not in kept:
            kept["reporting"] = Reporting(kind, n_groups, task.n_reported)
        reporting, model = kept["reporting"], models(name, seed)[0]
        start = time.monotonic()
        given: dict[str, Any] = {"adata": reporting.adata, "exact_moments": False, "trust": 1.0, "seed": 1}
        made = model.sample(None, reporting.n_cells, n_steps=n_steps, **given)
        seconds = time.monotonic() - start
        return reporting.scores(made.X.reshape(reporting.seen.shape)), seconds

    for seed in seeds:
        for name in names:

            def record(n_steps: int | None, name: str = name, seed: int = seed) -> Record:
                if (name, seed) not in kept:
                    kept[name, seed] = scores(name, seed, EVALUATIONS[-1] // PER_STEP)
                best, of_best = kept[name, seed]
                own, seconds = (best, of_best) if n_steps == -1 else scores(name, seed, n_steps)
                return losses(own, best) | {"sample s": seconds}

            for n in EVALUATIONS:
                which = -1 if n == EVALUATIONS[-1] else n // PER_STEP
                report.measure(f"{name}, {n} evaluations, seed {seed}", lambda n=which, f=record: f(n))
            report.measure(f"{name}, default, seed {seed}", lambda f=record: f(None))


def main() -> None:
    """Measure and print."""
    options = parser(__doc__, steps=600)
    options.add_argument("--kinds", nargs="+", choices=TASKS, default=["mixture2", "cells50"])
    options.add_argument("--generators", nargs="+", default=["flow", "diffusion"])
    options.add_argument("--groups", type=int, default=100, help="reporting groups (default: 100)")
    arguments = options.parse_args()
    seeds, steps, n_groups = arguments.seeds, arguments.steps, arguments.groups
    if arguments.quick:
        seeds, steps, n_groups = seeds[:1], 20, 4
    for kind in arguments.kinds:
        task = Task(**QUICK) if arguments.quick else TASKS[kind]
        path = arguments.json and arguments.json.with_name(f"{arguments.json.stem}-{kind}{arguments.json.suffix}")
        settings = {"kind": kind, "steps": steps, "groups": n_groups, "quick": arguments.quick}
        report = Report(f"Few-step sampling: {kind}", settings, path)
        run(report, kind, task, seeds, steps, n_groups, arguments.generators)
        report.show(by="row")


if __name__ == "__main__":
    main()
