"""Prediction of a donor's label from few labelled donors, in cohorts whose label acts through one known channel."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from _report import Record, Report, parser
from anndata import AnnData
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score
from sklearn.utils.parallel import Parallel, delayed

from scgde import GDE
from scgde.datasets import simulate_cohort
from scgde.prediction import BASELINES, GDEFeatures, GDEPredictions, attribute_cells, cross_validate

#: Arguments of `simulate_cohort` in all cohorts, and the strength of each channel. Fixed before any comparison of a
#: reported seed: chosen on seeds from 100 on, so that the best methods are neither at chance nor at 1 with 20 labels.
COHORT: dict[str, Any] = {"n_cells": (100, 300), "n_genes": 200, "n_batches": 1}
EFFECTS = {"composition": 0.5, "shift": 0.75, "covariance": 2.0, "rare": 1.5, "none": 1.0}

#: Two halves of so many donors: one is learned from, 10% of it with a label, the other is scored, and then the other
#: way round. No cell of a scored donor is in any training.
N_DONORS, LABEL_FRACTION = 200, 0.1

#: Principal components that all methods read, fitted in each half.
N_COMPONENTS = 20

#: Options of all embeddings.
MODEL: dict[str, Any] = {"encoder_kwargs": {"width": 64}, "generator_kwargs": {"width": 128}}
TRAIN: dict[str, Any] = {"cells_per_group": 64, "accelerator": "cpu"}

#: Trained on all cells and the labels that are shown, with predictions of its own, since labels that shaped an
#: embedding tell nothing of what they are worth in other donors; on the labelled donors alone, without reconstruction;
#: and on all cells without labels. The last two have a head of `cross_validate` on top.
MODELS: dict[str, Any] = {
    "semi-supervised": functools.partial(GDEPredictions, model={**MODEL, "labels_weight": 1.0}),
    "supervised only": functools.partial(GDEFeatures, model=MODEL, labelled_only=True),
    "frozen embedding": functools.partial(GDEFeatures, model=MODEL),
}

#: A difference to a baseline of no more than this is no inferiority.
MARGIN = 0.03


def principal_components(train: AnnData) -> Any:
    """The function from cells to principal components, learned from the training cells."""
    pca = PCA(N_COMPONENTS, svd_solver="arpack", random_state=0).fit(train.X)
    return lambda adata: pca.transform(adata.X)


def measure(channel: str, seed: int, steps: int, label_fraction: float, effect: float, quick: bool) -> Record:
    """AUC of all models in one cohort, the mean of both halves."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    n_donors, cohort = (20, {**COHORT, "n_cells": (20, 40)}) if quick else (N_DONORS, COHORT)
    adata = simulate_cohort(2 * n_donors, channel=channel, effect_size=effect, seed=seed, **cohort)
    models = {
        name: functools.partial(model, train={**TRAIN, **model.keywords.get("train", {}), "max_steps": steps})
        for name, model in MODELS.items()
    }
    result = cross_validate(
        adata,
        "donor",
        "disease",
        {**models, **{name: name for name in BASELINES}},
        preprocess=principal_components,
        n_splits=2,
        n_repeats=1,
        label_fraction=0.5 if quick else label_fraction,
        cell_type_key="cell_type",
        seed=seed,
        progress=False,
    )
    auc = result.summary.query("metric == 'auc'").set_index("model")["mean"]
    found = attribution(adata, n_donors, steps, seed) if channel == "rare" else {}
    return {**auc.to_dict(), **found, "seconds": time.perf_counter() - began}


def attribution(adata: AnnData, n_donors: int, steps: int, seed: int) -> Record:
    """Average precision of the influence of cells for the rare state, over its base rate, all donors being labelled.

    Cells far from all others have much influence under any labels: permuted ones tell how much of it is that.
    """
    adata = adata[adata.obs["donor"].isin(adata.obs["donor"].unique()[:n_donors])].copy()
    adata.obs["donor"] = adata.obs["donor"].cat.remove_unused_categories()
    adata.obsm["X_pca"] = principal_components(adata)(adata).astype(np.float32)
    GDE.setup_anndata(adata, "donor", labels=["disease"])
    model = GDE(adata, labels_weight=0.0, seed=seed, **MODEL)
    model.train(max_steps=steps, enable_progress_bar=False, **TRAIN)
    labels = adata.obs.groupby("donor", observed=True)[["disease"]].first().astype(str)
    permuted = labels.assign(disease=np.random.default_rng(seed).permutation(labels["disease"]))
    rare, record = adata.obs["rare_state"].to_numpy(), {}
    for name, table in (("influence", labels), ("influence, labels permuted", permuted)):
        model.update_labels(table)
        influence = attribute_cells(model, "disease", key_added=None)
        record[f"{name}: AP / base rate"] = average_precision_score(rare, influence.abs()) / rare.mean()
    return record | {"influence: highest possible": 1 / rare.mean()}


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean over cohorts."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def line(name: str, values: np.ndarray) -> str:
    """A mean with its interval."""
    if len(values) < 2:
        return f"  {name:44s}{values.mean():+.3f}"
    low, high = t_interval(values)
    return f"  {name:44s}{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def show(results: dict[str, Record]) -> None:
    """Print the AUC of all models, and what an embedding gains over each baseline, by channel."""
    table = pd.DataFrame(results).T
    table.index = pd.MultiIndex.from_tuples([key.split(", ") for key in table.index])
    known = {*MODELS, *BASELINES}
    baselines = [name for name in BASELINES if name not in ("majority", "permuted")]
    for channel in table.index.get_level_values(0).unique():
        record = table.loc[channel].dropna(axis=1)
        auc, others = (record[[name for name in record if (name in known) == chosen]] for chosen in (True, False))
        print(f"\n{channel}: AUC, mean of {len(auc)} cohorts [95% interval]")
        for name in auc:
            print(line(name, auc[name].to_numpy()))
        best = auc[baselines].mean().idxmax()
        print(f"  differences, paired over cohorts; {best} is the best baseline")
        for model in MODELS:
            rivals = [*[other for other in MODELS if other != model], *baselines]
            for rival in rivals:
                print(line(f"{model} - {rival}", (auc[model] - auc[rival]).to_numpy()))
        print("\n".join(f"  {name:44s}{values.mean():.1f}" for name, values in others.items()))


def main() -> None:
    """Measure the cohorts that are not measured yet, several at a time, and print them."""
    options = parser(__doc__, steps=400)
    options.add_argument("--jobs", type=int, default=1, help="cohorts at a time, in processes of their own")
    options.add_argument("--channels", nargs="+", choices=list(EFFECTS), default=list(EFFECTS))
    options.add_argument("--label-fraction", type=float, default=LABEL_FRACTION, help="share of donors with a label")
    options.add_argument("--effect", type=float, default=1.0, help="factor of all effect sizes")
    options.set_defaults(seeds=list(range(10)))
    chosen = options.parse_args()
    seeds, channels = (chosen.seeds[:1], ["rare"]) if chosen.quick else (chosen.seeds, chosen.channels)
    settings = {
        "steps": 5 if chosen.quick else chosen.steps,
        "donors": N_DONORS,
        "label fraction": chosen.label_fraction,
        "components": N_COMPONENTS,
        "cohort": str(COHORT),
        "effects": str({channel: chosen.effect * size for channel, size in EFFECTS.items()}),
        "model": str({**MODEL, **TRAIN}),
    }
    torch.set_num_threads(1)
    report = Report("Labels of simulated donors", settings, chosen.json)
    wanted = [(channel, seed) for seed in seeds for channel in channels]
    missing = [key for key in wanted if f"{key[0]}, {key[1]}" not in report.results]
    arguments = (settings["steps"], chosen.label_fraction)
    runs = Parallel(n_jobs=chosen.jobs, return_as="generator_unordered")(
        delayed(keyed)(channel, seed, *arguments, chosen.effect * EFFECTS[channel], chosen.quick)
        for channel, seed in missing
    )
    for key, record in runs:
        report.measure(key, lambda record=record: record)
    show_head(report)
    show({f"{channel}, {seed}": report.results[f"{channel}, {seed}"] for channel, seed in wanted})


def keyed(channel: str, seed: int, *arguments: Any) -> tuple[str, Record]:
    """Key and result of one cohort."""
    return f"{channel}, {seed}", measure(channel, seed, *arguments)


def show_head(report: Report) -> None:
    """Print what the numbers depend on."""
    print(f"# {report.head['title']}")
    for what in (report.head["settings"], report.head["environment"]):
        print("; ".join(f"{name} {value}" for name, value in what.items()))


if __name__ == "__main__":
    main()
