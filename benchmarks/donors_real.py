"""Disease of 20 real donors (16 with Covid, 4 healthy) from their cells, and what so few donors can say."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _report import Report, parser
from anndata import AnnData
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.parallel import Parallel, delayed

from scgde.prediction import BASELINES, FoldContext, GDEFeatures, cross_validate
from scgde.prediction._features import FOLD_GROUP

#: AUC of ridge logistic regression by leave-one-donor-out, pooled over donors, as published beside the data.
REFERENCE = {"pseudobulk": 0.75, "mean_sd": 0.80, "composition": 0.75}

#: Folds hold one healthy donor each; partitions of the donors into folds; permutations of the labels.
N_SPLITS, N_REPEATS, N_PERMUTATIONS = 4, 5, 200

#: Inverse penalty of the logistic regression that labels are permuted with: there it is not chosen, which takes long.
PERMUTED_C = 0.01

MODELS: dict[str, Any] = {"frozen embedding": GDEFeatures}

#: Numbers of the training donors of a fold and their features, and the same of its test donors.
Fold = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def recorded(factory: Callable[[FoldContext], Any], folds: list[Fold]) -> Callable[[FoldContext], Any]:
    """A factory of the same model that keeps its features of each fold; they are learned without labels."""

    class Recorded:
        def __init__(self, context: FoldContext) -> None:
            self.model = factory(context)
            self.permute_labels = getattr(self.model, "permute_labels", False)

        def fit_transform(self, train: AnnData) -> Any:
            self.train = np.unique(train.obs[FOLD_GROUP]), self.model.fit_transform(train)
            return self.train[1]

        def transform(self, test: AnnData) -> Any:
            features = self.model.transform(test)
            rotate = make_pipeline(StandardScaler(), PCA(svd_solver="full"))
            x, groups = rotate.fit_transform(np.asarray(self.train[1])), np.unique(test.obs[FOLD_GROUP])
            folds.append((self.train[0], x, groups, rotate.transform(np.asarray(features))))
            return features

    return Recorded


def score(folds: list[Fold], y: np.ndarray) -> float:
    """Mean AUC over the folds that have both classes on both sides."""
    scores = []
    for train, x, test, x_test in folds:
        if len(np.unique(y[train])) == len(np.unique(y[test])) == 2:
            head = LogisticRegression(C=PERMUTED_C).fit(x, y[train])
            scores.append(roc_auc_score(y[test], head.decision_function(x_test)))
    return float(np.mean(scores))


def measure(adata: AnnData, steps: int, seed: int, n_repeats: int, n_permutations: int) -> dict[str, Any]:
    """AUC of all models by repeat and fold, and under permuted labels."""
    torch.set_num_threads(1)
    train = {"max_steps": steps, "accelerator": "cpu"}
    models = {name: functools.partial(model, train=train) for name, model in MODELS.items()}
    models |= {name: model for name, model in BASELINES.items() if name not in ("majority", "permuted")}
    folds: dict[str, list[Fold]] = {name: [] for name in models}
    options = {"n_splits": N_SPLITS, "n_repeats": n_repeats, "cell_type_key": "cell_type", "seed": seed}
    wrapped = {f"{name} ": recorded(model, folds[name]) for name, model in models.items()}
    result = cross_validate(adata, "donor", "disease", wrapped, **options, progress=False)
    auc = result.summary.query("metric == 'auc'").set_index("model")
    y = adata.obs.groupby("donor", observed=True, sort=True)["disease"].first()
    y = (y == "Covid").to_numpy().astype(int)
    rng = np.random.default_rng(seed)
    permuted = [rng.permutation(y) for _ in range(n_permutations)]
    record: dict[str, Any] = {}
    for name, own in folds.items():
        null = [score(own, labels) for labels in permuted]
        row = auc.loc[f"{name} "]
        record[name] = {"auc": row["mean"], "lower": row["lower"], "upper": row["upper"]}
        record[name] |= {"fixed": score(own, y), "null": null}
    comparison = result.scores.query("metric == 'auc'").pivot(index=["repeat", "fold"], columns="model", values="value")
    record["folds"] = {name: comparison[f"{name} "].tolist() for name in models}
    return record


def show(records: dict[str, dict[str, Any]], n_repeats: int) -> None:
    """Print AUC with interval and reference of each model, and AUC of a fixed penalty with its null, by seed."""
    for key, record in records.items():
        print(f"\n{key}: AUC, mean of {N_SPLITS} folds x {n_repeats} repeats")
        rows = []
        for name, own in record.items():
            if name == "folds":
                continue
            null = np.asarray(own["null"])
            rows.append(
                {
                    "model": name,
                    "AUC": own["auc"],
                    "95% interval": f"[{own['lower']:.2f}, {own['upper']:.2f}]",
                    "reference": REFERENCE.get(name, np.nan),
                    "fixed penalty": own["fixed"],
                    "null mean": null.mean(),
                    "null 95%": np.quantile(null, 0.95),
                    "p": (1 + (null >= own["fixed"]).sum()) / (1 + len(null)),
                }
            )
        print(pd.DataFrame(rows).round(3).to_string(index=False))


def conclude(record: dict[str, Any], n_repeats: int) -> None:
    """Print what the number of donors allows to say."""
    baselines = [name for name in record["folds"] if name in BASELINES]
    nulls = np.array([np.quantile(record[name]["null"], 0.95) for name in baselines])
    table = pd.DataFrame(record["folds"])
    # Corrected resampled t-test (Nadeau & Bengio, 2003), as in cross_validate; 2.2 + 0.86: two-sided 5%, power 80%.
    error = np.sqrt(1 / len(table) + 1 / (N_SPLITS - 1))
    print("\nWhat 16 against 4 donors can say")
    print("- A fold compares 4 donors with 1: its AUC is a multiple of 1/4. A repeat rests on 16 pairs.")
    print(f"- {comb(20, 4):,} ways to choose 4 of 20 donors: no p-value can be below {1 / comb(20, 4):.4f}.")
    print(f"- Without any signal one analysis in 20 reaches {nulls.min():.2f} to {nulls.max():.2f}, by baseline.")
    for model in MODELS:
        for name in baselines:
            difference = table[model] - table[name]
            least = 3.06 * float(difference.std(ddof=1)) * error
            print(f"- {model} - {name}: {difference.mean():+.3f}; only one of {least:.2f} or more would be found.")
    print("- It can say whether a model does better than chance; it cannot rank models that differ by less than this.")
    print("- Disease and library go together in part (12 libraries): what tells donors apart may be technical.")


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__, steps=300)
    arguments.add_argument("--jobs", type=int, default=1, help="training seeds at a time, in processes of their own")
    options = arguments.parse_args()
    folder = os.environ.get("SCGDE_DATA")
    if folder is None:
        msg = "Set SCGDE_DATA to the folder that holds covid_pbmc_20donors.h5ad."
        raise SystemExit(msg)
    adata = ad.read_h5ad(Path(folder) / "covid_pbmc_20donors.h5ad")
    n_repeats, n_permutations = (1, 5) if options.quick else (N_REPEATS, N_PERMUTATIONS)
    steps, seeds = (5, options.seeds[:1]) if options.quick else (options.steps, options.seeds)
    settings = {"steps": steps, "repeats": n_repeats, "permutations": n_permutations, "cells": "50 PCs as published"}
    torch.set_num_threads(1)
    report = Report("Covid of 20 real donors", settings, options.json)
    missing = [seed for seed in seeds if f"seed {seed}" not in report.results]
    runs = Parallel(n_jobs=options.jobs, return_as="generator")(
        delayed(measure)(adata, steps, seed, n_repeats, n_permutations) for seed in missing
    )
    for seed, record in zip(missing, runs, strict=True):
        report.measure(f"seed {seed}", lambda record=record: record)
    print(f"# {report.head['title']}")
    for what in (report.head["settings"], report.head["environment"]):
        print("; ".join(f"{name} {value}" for name, value in what.items()))
    records = {f"seed {seed}": report.results[f"seed {seed}"] for seed in seeds}
    show(records, n_repeats)
    conclude(records[f"seed {seeds[0]}"], n_repeats)


if __name__ == "__main__":
    main()
