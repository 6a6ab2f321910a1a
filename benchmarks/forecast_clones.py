"""Forecasts of clones that were seen on the first day only, beside baselines, in simulated cohorts and in LARRY."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from _report import Record, Report, parser
from anndata import AnnData
from scipy import stats
from scipy.spatial.distance import cdist
from scipy.special import entr

from scgde import TDE
from scgde.datasets import simulate_clones
from scgde.metrics import energy_distance
from scgde.models._fates import group_fates, neighbor_fates

#: Arguments of `simulate_clones`, fixed before any two methods were compared. Settings of methods were chosen on
#: cohorts with seeds from 100 on, made by the same arguments.
COHORTS: tuple[dict[str, Any], ...] = (
    {"seed": 0, "n_clones": 400, "n_cells": (10, 60), "days": (4, 6), "bias": 1.5, "irreducible": 0.3, "growth": 0.4},
    {"seed": 1, "n_clones": 600, "n_cells": (5, 40), "days": (4, 6), "bias": 1.5, "irreducible": 0.3, "growth": 0.6},
    {"seed": 2, "n_clones": 300, "n_cells": (20, 100), "days": (4, 6), "bias": 1.0, "irreducible": 0.3, "growth": 0.4},
    {"seed": 3, "n_clones": 400, "n_cells": (10, 60), "days": (4, 6), "bias": 2.5, "irreducible": 0.5, "growth": 0.4},
    {"seed": 4, "n_clones": 500, "n_cells": (10, 60), "days": (3, 6), "bias": 1.5, "irreducible": 0.3, "growth": 0.3},
    {
        "seed": 5,
        "n_clones": 600,
        "n_cells": (10, 40),
        "days": (2, 4, 6),
        "bias": 2.0,
        "irreducible": 0.2,
        "growth": 0.4,
    },
    {"seed": 6, "n_clones": 300, "n_cells": (15, 80), "days": (4, 6), "bias": 2.0, "irreducible": 0.1, "growth": 0.5},
    {"seed": 7, "n_clones": 600, "n_cells": (5, 30), "days": (3, 5), "bias": 1.5, "irreducible": 0.4, "growth": 0.2},
    {"seed": 8, "n_clones": 400, "n_cells": (10, 60), "days": (4, 7), "bias": 1.5, "irreducible": 0.2, "growth": 0.4},
    {"seed": 9, "n_clones": 800, "n_cells": (8, 50), "days": (4, 6), "bias": 1.2, "irreducible": 0.3, "growth": 0.4},
)

#: Share of clones that are seen on one day only, and features of a cell, in all cohorts.
SHARED = {"orphan_fraction": 0.9, "n_features": 20}

#: Options of the models, the same for all variants, and what differs.
MODEL = {"n_latent": 32, "n_components": 3, "encoder_kwargs": {"width": 64}}
VARIANTS: dict[str, dict[str, Any]] = {
    "semi-supervised": {"generator_kwargs": {"width": 128}},
    "paired-only": {"generator_kwargs": {"width": 128}, "orphans": False},
    "source-only": {
        "generator_kwargs": {"width": 128, "condition_on": "source"},
        "method": "flow",
        "pairing": "within_group",
    },
}

#: Forecasts: the variant that makes them, and the method of `TDE.forecast`.
METHODS = {
    "oracle": ("semi-supervised", "oracle"),
    "semi-supervised": ("semi-supervised", "forecaster"),
    "paired-only": ("paired-only", "forecaster"),
    "source-only": ("source-only", "forecaster"),
    "pooled target": ("semi-supervised", "pooled"),
    "nearest-neighbour OT": ("semi-supervised", "nearest_ot"),
    "identity": ("semi-supervised", "identity"),
}

#: Real cells whose labels make the fate of a forecast cell, and the least share of a fate that is predicted.
N_NEIGHBORS, LEAST_SHARE = 20, 0.01

#: True cells of a clone: half make the oracle's embedding, the others are scored against.
N_TRUTH_CELLS = 200


def trained(adata: AnnData, variant: str, steps: int, seed: int, times: tuple[str, str], **setup: Any) -> TDE:
    """A trained model with a forecaster."""
    TDE.setup_anndata(adata, "clone", time_key="day", **setup)
    model = TDE(adata, **MODEL, **VARIANTS[variant], seed=seed)
    model.train(max_steps=steps, enable_progress_bar=False)
    model.fit_forecaster(*times)
    return model


def log_loss(fates: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Cross-entropy of each clone's predicted fates (clones, labels), with true shares as soft labels."""
    predicted = np.maximum(fates, LEAST_SHARE)
    return -(truth * np.log(predicted / predicted.sum(1, keepdims=True))).sum(1)


def cells_by_clone(adata: AnnData, clones: pd.Index) -> list[np.ndarray]:
    """Cells of each clone."""
    rows = adata.obs.groupby("clone", observed=True).indices
    return [np.asarray(adata.X[rows[clone]]) for clone in clones]


def measure_cohort(cohort: dict[str, Any], steps: int, seed: int) -> Record:
    """Scores of all methods in one simulated cohort, averaged over its clones that are seen on the first day only."""
    adata, truth = simulate_clones(**cohort, **SHARED, n_truth_cells=N_TRUTH_CELLS)
    known = truth.uns["clones"]
    days = tuple(str(day) for day in known["day"][-2:])
    n = pd.crosstab(adata.obs["clone"], adata.obs["day"])
    # The energy distance needs two cells.
    clones = n.index[(n[days[0]] > 1) & (n.drop(columns=days[0]).sum(axis=1) == 0)].astype(str)
    position = pd.Index(known["clone"]).get_indexer(clones)
    later = truth[((truth.obs["day"] == days[1]) & truth.obs["clone"].isin(clones)).to_numpy()].copy()
    odd = np.arange(later.n_obs) % 2 == 1
    true_cells = cells_by_clone(later[~odd], clones)
    fates, log_growth = known["fate_proportions"][position, -1], known["log_growth"][position, -1]
    start = adata[adata.obs["clone"].isin(clones).to_numpy()]
    with_truth = ad.concat([start, later[odd]], index_unique="-")
    with_truth.obs["day"] = with_truth.obs["day"].astype(adata.obs["day"].dtype)
    target = adata[(adata.obs["day"] == days[1]).to_numpy()]
    codes = pd.Index(known["cell_type"]).get_indexer(target.obs["cell_type"])
    record: Record = {"clones": len(clones), "entropy of the fates": float(entr(fates).sum(1).mean())}
    models = {}
    for name, (variant, method) in METHODS.items():
        if variant not in models:
            began = time.perf_counter()
            models[variant] = trained(adata.copy(), variant, steps, seed, days)
            record[f"seconds: {variant}"] = time.perf_counter() - began
        data = with_truth if method == "oracle" else None
        forecast = models[variant].forecast(*days, data, groups=list(clones), method=method)
        cells = cells_by_clone(forecast, clones)
        energy = [energy_distance(x, y) for x, y in zip(cells, true_cells, strict=True)]
        labels = neighbor_fates(
            np.asarray(forecast.X), target.X, codes, len(known["cell_type"]), n_neighbors=N_NEIGHBORS
        )
        members = pd.Index(clones).get_indexer(forecast.obs["clone"].astype(str))
        loss = log_loss(group_fates(labels, members, len(clones)), fates)
        table = forecast.uns["forecast"]["groups"]
        growth = table.set_index(table["clone"].astype(str))["log_growth"].loc[clones].to_numpy()
        record |= {
            f"{name}: energy distance": float(np.mean(energy)),
            f"{name}: fate log-loss": float(loss.mean()),
            f"{name}: growth error": float(np.var(growth - log_growth)),
        }
    return record


# --- LARRY -----------------------------------------------------------------------------------------------------------

#: Clones are dealt to folds; forecasts that are random are drawn so many times.
N_FOLDS, N_DRAWS = 5, 20

DAYS = ("4", "6")


def energy_score(cells: np.ndarray, observed: np.ndarray) -> float:
    """Mean over observed cells of E|x - y| - E|x - x'| / 2: the lower the better, and proper with a single one."""
    n = len(cells)
    spread = cdist(cells, cells).sum() / (n * (n - 1)) if n > 1 else 0.0
    return float(cdist(cells, observed).mean() - spread / 2)


def measure_fold(adata: AnnData, fold: int, steps: int, seed: int, methods: list[str]) -> Record:
    """Scores of each clone of a fold, by methods whose models saw none of its cells."""
    adata = adata.copy()
    adata.obs["split"] = np.where(adata.obs["fold"] == fold, "test", "train")
    test = adata.obs[adata.obs["split"] == "test"]
    counts = pd.crosstab(test["clone"].astype(str), test["day"].astype(str))
    clones = counts.index[(counts[list(DAYS)] > 0).all(axis=1)]
    reference = ((adata.obs["split"] == "train") & (adata.obs["day"].astype(str) == DAYS[1])).to_numpy()
    held_out = (adata.obs["clone"].astype(str).isin(clones) & (adata.obs["day"].astype(str) == DAYS[1])).to_numpy()
    codes, labels = pd.factorize(adata.obs["cell_type"].astype(str), sort=True)
    truth = np.eye(len(labels))[codes[held_out]]
    owner = clones.get_indexer(adata.obs["clone"][held_out].astype(str))
    record: Record = {}
    models = {"semi-supervised": trained(adata, "semi-supervised", steps, seed, DAYS, split_key="split")}
    # The PCA of this model, fitted on the training clones, is the space of all others and of the scores.
    x = adata.obsm["X_of_split"] = models["semi-supervised"].representation.read(adata)
    for name in methods:
        variant, method = METHODS[name]
        if variant not in models:
            own = adata.copy()
            models[variant] = trained(own, variant, steps, seed, DAYS, split_key="split", use_rep="X_of_split")
        model = models[variant]
        seeds = range(N_DRAWS) if method in ("pooled", "nearest_ot") else [0]
        draws = {"n_draws": N_DRAWS} if method == "forecaster" else {}
        forecasts = [model.forecast(*DAYS, groups=list(clones), method=method, seed=s, **draws) for s in seeds]
        cells = np.concatenate([forecast.X for forecast in forecasts])
        members = clones.get_indexer(np.concatenate([forecast.obs["clone"].astype(str) for forecast in forecasts]))
        fates = neighbor_fates(cells, x[reference], codes[reference], len(labels), n_neighbors=N_NEIGHBORS)
        loss = log_loss(group_fates(fates, members, len(clones))[owner], truth)
        for i, clone in enumerate(clones):
            record[f"{clone}|{name}|energy score"] = energy_score(cells[members == i], x[held_out][owner == i])
            record[f"{clone}|{name}|fate log-loss"] = float(loss[owner == i].mean())
    return record


def larry(quick: bool) -> AnnData:
    """Real clones, without the published PCA: each model fits its own on its training clones."""
    folder = os.environ.get("SCGDE_DATA")
    if folder is None:
        msg = "Set SCGDE_DATA to the folder that holds larry_clones_subset.h5ad."
        raise SystemExit(msg)
    adata = ad.read_h5ad(Path(folder) / "larry_clones_subset.h5ad")
    del adata.obsm["X_pca"]
    # Clones on both days are dealt separately, so that each fold scores as many.
    days = adata.obs.groupby("clone", observed=True)["day"].agg(lambda day: set(DAYS) <= set(day.astype(str)))
    order = np.random.default_rng(0).permutation(len(days))
    order = order[np.argsort(days.to_numpy()[order], kind="stable")]
    fold = pd.Series(np.arange(len(order)) % N_FOLDS, index=days.index[order])
    adata.obs["fold"] = adata.obs["clone"].astype(str).map(fold.rename(index=str)).to_numpy()
    return adata[:, :200].copy() if quick else adata


# --- tables ----------------------------------------------------------------------------------------------------------


def t_interval(difference: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean over cohorts."""
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    return difference.mean() - half, difference.mean() + half


def bootstrap_interval(difference: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean over clones, by 10,000 resamples of them."""
    rng = np.random.default_rng(0)
    means = [difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(10_000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def show(scores: pd.DataFrame, interval: Callable[[np.ndarray], tuple[float, float]], detectable: bool) -> None:
    """Print, for each metric, means of all methods and what each loses to the semi-supervised forecast.

    Parameters
    ----------
    scores
        One row per cohort or clone, columns (method, metric).
    interval
        Of the mean of paired differences.
    detectable
        Whether to print the difference that would be found with 80% power, 2.8 standard errors.
    """
    for metric in scores.columns.get_level_values(1).unique():
        of = scores.xs(metric, axis=1, level=1)
        print(f"\n{metric}: mean of {len(of)}, and by how much semi-supervised is lower [95% interval]")
        for name in of:
            line = f"{name:22s}{of[name].mean():9.4f}"
            if name != "semi-supervised":
                difference = (of[name] - of["semi-supervised"]).to_numpy()
                low, high = interval(difference)
                line += f"  {difference.mean():+9.4f} [{low:+.4f}, {high:+.4f}]"
                if detectable:
                    line += f"  detectable: {2.8 * difference.std(ddof=1) / np.sqrt(len(difference)):.4f}"
            print(line)


def show_head(report: Report) -> None:
    """Print what the numbers depend on."""
    print(f"# {report.head['title']}")
    for line in (report.head["settings"], report.head["environment"]):
        print("; ".join(f"{name} {value}" for name, value in line.items()))


def simulated(options: Any) -> None:
    """Measure and print the simulated cohorts."""
    seed, shift = options.seeds[0], 100 if options.tuning else 0
    cohorts = [{**cohort, "seed": cohort["seed"] + shift} for cohort in COHORTS]
    settings = {"steps": options.steps, "training seed": seed, "cohort seeds from": shift}
    report = Report("Forecasts of simulated clones seen on the first day only", settings, options.json)
    for cohort in cohorts[: 2 if options.quick else None]:
        key = f"cohort {cohort['seed']}"
        report.measure(key, lambda cohort=cohort: measure_cohort(cohort, options.steps, seed))
    show_head(report)
    table = pd.DataFrame(report.results).T
    scored = [column for column in table if column.split(":")[0] in METHODS]
    print(table.drop(columns=scored).round(3).to_string())
    scores = table[scored]
    scores.columns = pd.MultiIndex.from_tuples([tuple(column.split(": ")) for column in scores])
    show(scores, t_interval, detectable=False)


def real(options: Any) -> None:
    """Measure and print LARRY: the default model with all seeds, the others with the first."""
    settings = {"steps": options.steps, "training seeds": options.seeds, "folds": N_FOLDS, "draws": N_DRAWS}
    report = Report("Forecasts of held-out LARRY clones, day 4 to 6", settings, options.json)
    adata = larry(options.quick)
    for seed in options.seeds[: 1 if options.quick else None]:
        methods = list(METHODS) if seed == options.seeds[0] else ["semi-supervised"]
        for fold in range(1 if options.quick else N_FOLDS):
            report.measure(
                f"fold {fold}, seed {seed}",
                lambda fold=fold, seed=seed, methods=methods: measure_fold(adata, fold, options.steps, seed, methods),
            )
    show_head(report)
    rows = [(*key.split("|"), value) for record in report.results.values() for key, value in record.items()]
    table = pd.DataFrame(rows, columns=["clone", "method", "metric", "score"])
    scores = table.pivot_table(index="clone", columns=["method", "metric"], values="score", sort=False)
    show(scores, bootstrap_interval, detectable=True)
    print("\nDifferences below the detectable one rank nothing.")


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0], steps=200)
    options.add_argument("--larry", action="store_true", help="real clones in place of simulated ones")
    options.add_argument("--tuning", action="store_true", help="cohorts that settings were chosen on")
    options = options.parse_args()
    # Lightning's remarks on the machine are not results, nor are warnings that a forecast extrapolates.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*Their forecasts extrapolate")
    options.steps = min(options.steps, 60) if options.quick else options.steps
    (real if options.larry else simulated)(options)


if __name__ == "__main__":
    main()
