"""Raw counts generated for unseen simulated groups: mean and variance, zeros, and distance to further real cells.

Groups are mixtures of three cell types with negative binomial counts; they differ in proportions, in the expression of
each gene and in the depth of their cells. Reporting groups take no part in training: a method sees cells of a group,
and generates as many. Curves are over all genes of all groups, in bins of the true mean. Energy distances are between
principal components of log-normalised counts, and between log(1 + counts).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _report import Record, Report, parser
from anndata import AnnData
from sklearn.decomposition import PCA

from scgde import GDE, metrics

REPORTING_SEED = 9000

N_TYPES, N_GENES, N_COMPONENTS, N_BINS = 3, 60, 15, 8

#: Options of the models of raw counts. The Gaussian route has those of the default model.
COUNTS = {"vae, nb": {"likelihood": "nb"}, "vae, zinb": {"likelihood": "zinb"}}
GAUSSIAN = "Gaussian route"


class Populations:
    """Groups, and draws of their cells. What all groups share is fixed."""

    def __init__(self, n_groups: int, seed: int) -> None:
        shared, own = np.random.default_rng(7), np.random.default_rng(seed)
        self.dispersion = np.exp(shared.normal(0.5, 0.5, N_GENES))
        types = shared.normal(-0.5, 1.5, N_GENES) + shared.normal(0, 1, (N_TYPES, N_GENES))
        self.log_mean = types + own.normal(0, 0.3, (n_groups, 1, N_GENES)) + own.normal(0, 0.3, (n_groups, 1, 1))
        self.weights = own.dirichlet(np.ones(N_TYPES), n_groups)

    def draw(self, n_cells: int, seed: int) -> np.ndarray:
        """Counts (groups, cells, genes)."""
        rng = np.random.default_rng([seed, 1])
        kind = np.stack([rng.choice(N_TYPES, n_cells, p=p) for p in self.weights])
        depth = np.exp(0.3 * rng.standard_normal((*kind.shape, 1)))
        mean = depth * np.exp(np.take_along_axis(self.log_mean, kind[..., None], axis=1))
        return rng.poisson(mean * rng.gamma(self.dispersion, 1 / self.dispersion, mean.shape)).astype(np.float32)


class CommonSpace:
    """Principal components of log-normalised counts, fitted on the training cells."""

    def __init__(self, counts: np.ndarray) -> None:
        self.target = float(np.median(counts.sum(-1)))
        self.pca = PCA(N_COMPONENTS, random_state=0).fit(self._logs(counts).reshape(-1, N_GENES))

    def _logs(self, counts: np.ndarray) -> np.ndarray:
        return np.log1p(counts * (self.target / counts.sum(-1, keepdims=True).clip(1)))

    def of(self, counts: np.ndarray) -> np.ndarray:
        """(groups, cells, components)."""
        logs = self._logs(counts)
        return self.pca.transform(logs.reshape(-1, N_GENES)).reshape(*logs.shape[:-1], -1).astype(np.float32)

    def counts(self, x: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Back to whole numbers, at the depths of the group's cells that were seen."""
        logs = self.pca.inverse_transform(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], N_GENES)
        return (np.expm1(logs).clip(0) * (seen.sum(-1, keepdims=True) / self.target)).round().astype(np.float32)


def poisson(seen: np.ndarray) -> np.ndarray:
    """Independent genes with the means of each group's cells."""
    return np.random.default_rng(0).poisson(np.broadcast_to(seen.mean(1, keepdims=True), seen.shape)).astype(np.float32)


def negative_binomial(seen: np.ndarray) -> np.ndarray:
    """Independent genes with the means and variances of each group's cells."""
    rng = np.random.default_rng(0)
    mean, variance = seen.mean(1, keepdims=True), seen.var(1, keepdims=True)
    excess = np.maximum(variance - mean, 1e-6) / np.maximum(mean, 1e-6) ** 2
    return rng.poisson(mean * rng.gamma(1 / excess, excess, seen.shape)).astype(np.float32)


def pooled(seen: np.ndarray) -> np.ndarray:
    """Cells of all groups, in a random order."""
    return np.random.default_rng(0).permutation(seen.reshape(-1, N_GENES)).reshape(seen.shape)


class Models:
    """Generated counts of the reporting groups, with their principal components where those come first."""

    def __init__(self, training: np.ndarray, seen: np.ndarray, space: CommonSpace, steps: int) -> None:
        self.training, self.seen, self.space, self.steps = training, seen, space, steps

    def __call__(self, name: str, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Counts, principal components, and the seconds that training took."""
        raw = name in COUNTS
        train, new = (self._adata(x if raw else self.space.of(x)) for x in (self.training, self.seen))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*looks like raw counts")
            GDE.setup_anndata(train, "group", use_rep="X")
        options = {"generator": "vae", "generator_kwargs": COUNTS[name]} if raw else {}
        start = time.monotonic()
        model = GDE(train, seed=seed, **options)
        model.train(max_steps=self.steps, enable_progress_bar=False)
        seconds = time.monotonic() - start
        made = model.sample(None, self.seen.shape[1], adata=new, seed=1).X.reshape(*self.seen.shape[:2], -1)
        return (made, self.space.of(made), seconds) if raw else (self.space.counts(made, self.seen), made, seconds)

    @staticmethod
    def _adata(x: np.ndarray) -> AnnData:
        group = np.repeat([f"{i:04d}" for i in range(len(x))], x.shape[1])
        return AnnData(
            x.reshape(-1, x.shape[-1]), obs=pd.DataFrame({"group": group}, np.arange(len(group)).astype(str))
        )


class Scores:
    """What generated counts are measured by: distances, and curves over bins of the true mean."""

    def __init__(self, real: np.ndarray, space: CommonSpace) -> None:
        self.real, self.components, self.logs = real, space.of(real), np.log1p(real)
        mean = real.mean(1)
        edges = np.quantile(mean[mean > 0], np.linspace(0, 1, N_BINS + 1)[1:-1])
        self.bin = np.digitize(mean, edges)
        self.bins = [f"{value:.2g}" for value in self._binned(mean)]
        self.truth = {"variance": self._binned(real.var(1)), "zeros": self._binned((real == 0).mean(1))}

    def _binned(self, values: np.ndarray) -> np.ndarray:
        # Medians: the mean variance of a bin would be that of its few most variable genes.
        return np.array([np.median(values[self.bin == i]) for i in range(N_BINS)])

    def curves(self, made: np.ndarray) -> dict[str, Record]:
        """Variance and fraction of zeros by bin."""
        values = {"variance": made.var(1), "zeros": (made == 0).mean(1)}
        return {name: dict(zip(self.bins, self._binned(x).tolist(), strict=True)) for name, x in values.items()}

    def distances(self, made: np.ndarray, components: np.ndarray) -> Record:
        """Energy distances, and errors of the two curves."""
        curves = self.curves(made)
        energy = [metrics.energy_distance(x, y) for x, y in zip(components, self.components, strict=True)]
        logs = [metrics.energy_distance(x, y) for x, y in zip(np.log1p(made), self.logs, strict=True)]
        ratio = np.array(list(curves["variance"].values())) / self.truth["variance"]
        zeros = np.array(list(curves["zeros"].values())) - self.truth["zeros"]
        return {
            "energy": float(np.mean(energy)),
            "energy, upper": float(np.mean(energy) + 1.96 * np.std(energy, ddof=1) / len(energy) ** 0.5),
            "energy of logs": float(np.mean(logs)),
            "variance, worst bin %": float(100 * np.abs(ratio - 1).max()),
            "zeros, worst bin": float(np.abs(zeros).max()),
        }


def draw(variance: dict[str, Record], zeros: dict[str, Record], path: Path) -> None:
    """Save variance and fraction of zeros against the mean, a curve per method."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    for axis, curves, label in zip(axes, (variance, zeros), ("variance", "fraction of zeros"), strict=True):
        for name, values in curves.items():
            style = {"color": "k", "lw": 2.5} if name == "truth" else {"lw": 1, "marker": ".", "alpha": 0.8}
            axis.plot([float(x) for x in values], list(values.values()), label=name, **style)
        axis.set(xscale="log", xlabel="mean count", ylabel=label)
    axes[0].set(yscale="log")
    axes[1].legend(frameon=False, fontsize=6)
    figure.savefig(path, dpi=200)


def main() -> None:
    """Measure, print and draw."""
    options = parser(__doc__, steps=300)
    options.add_argument("--figure", type=Path, help="file to draw the curves of the first seed to")
    options.add_argument("--methods", nargs="+", choices=[*COUNTS, GAUSSIAN], default=[*COUNTS, GAUSSIAN])
    options.add_argument("--reporting-seed", type=int, default=REPORTING_SEED)
    arguments = options.parse_args()
    seeds, steps, sizes = arguments.seeds, arguments.steps, (200, 150, 50, 200)
    if arguments.quick:
        seeds, steps, sizes = seeds[:1], 10, (8, 50, 6, 60)
    n_training, n_cells, n_groups, n_seen = sizes
    of = Populations(n_groups, arguments.reporting_seed)
    seen, real, floor = (of.draw(n_seen, seed) for seed in (0, 1, 2))
    settings = {"steps": steps, "groups": n_training, "cells": n_cells, "reported": n_groups, "quick": arguments.quick}
    reports = {
        name: Report(f"Generated counts: {name}", settings, _beside(arguments.json, name))
        for name in ("distances", "variance", "zeros")
    }
    training = Populations(n_training, seeds[0]).draw(n_cells, 0)
    space = CommonSpace(training)
    scores = Scores(real, space)

    def measure(key: str, make: Callable[[], tuple[np.ndarray, np.ndarray, float | None]]) -> None:
        make = cache(make)

        def distances() -> Record:
            made, components, seconds = make()
            return scores.distances(made, components) | ({} if seconds is None else {"train s": seconds})

        reports["distances"].measure(key, distances)
        for name in ("variance", "zeros"):
            reports[name].measure(key, lambda name=name: scores.curves(make()[0])[name])

    simple: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "floor": lambda _: floor,
        "another group": lambda x: np.roll(x, 1, axis=0),
        "pooled": pooled,
        "Poisson": poisson,
        "independent nb": negative_binomial,
    }
    for name in ("variance", "zeros"):
        reports[name].measure("truth", lambda name=name: scores.curves(real)[name])
    for key, function in simple.items():
        measure(key, lambda function=function: (made := function(seen), space.of(made), None))
    for seed in seeds:
        models = Models(Populations(n_training, seed).draw(n_cells, 0), seen, space, steps)
        for method in arguments.methods:
            measure(f"{method}, seed {seed}", lambda method=method, seed=seed, models=models: models(method, seed))
    for report in reports.values():
        report.show(by="row")
    if arguments.figure:
        shown = [name for name in reports["zeros"].results if "seed" not in name or name.endswith(f"seed {seeds[0]}")]
        draw(*({key: reports[name].results[key] for key in shown} for name in ("variance", "zeros")), arguments.figure)


def _beside(path: Path | None, name: str) -> Path | None:
    return path and path.with_name(f"{path.stem}-{name}{path.suffix}")


if __name__ == "__main__":
    main()
