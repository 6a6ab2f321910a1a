"""Cross-validation of predictions from groups of cells: nested, stratified, by group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

from scgde._validation import check_columns, unknown_key
from scgde.data import Setup
from scgde.prediction._baselines import ALWAYS, BASELINES
from scgde.prediction._cohort import Cohort, read_cohort
from scgde.prediction._features import Factory
from scgde.prediction._folds import Fold, make_folds
from scgde.prediction._gde import GDEFeatures
from scgde.prediction._representation import choose_representation, describe
from scgde.prediction._run import Plan, run_fold
from scgde.prediction._scores import SCORES
from scgde.prediction._summary import compare, summarize

#: What is compared where nothing is named.
DEFAULT_MODELS = ("pseudobulk", "mean_sd", "composition", "mixture", "kernel_mean", "gde")


@dataclass(frozen=True, repr=False)
class CrossValidation:
    """Result of :func:`cross_validate`.

    Parameters
    ----------
    scores
        One row per repeat, fold, model and metric: ``value``, and the numbers of groups with a visible label
        (``n_labelled``), in training (``n_train``) and scored (``n_test``).
    summary
        Mean over folds of each model and metric, with a 95% interval (``lower``, ``upper``).
    comparison
        Paired difference of each model to each baseline, ``advantage`` being positive where the model is better, with
        a 95% interval and a two-sided p-value. These are not corrected for the number of comparisons.
    predictions
        One row per repeat, model and scored group: its name, true label, and probabilities or predicted value.
    settings
        How it was done: the kind of label, what is learned inside the folds, whether test groups were in training.
    """

    scores: pd.DataFrame
    summary: pd.DataFrame
    comparison: pd.DataFrame
    predictions: pd.DataFrame
    settings: dict[str, Any]

    def __repr__(self) -> str:
        table = self.summary.pivot(index="model", columns="metric", values="mean")
        table = table.loc[self.summary["model"].unique(), self.summary["metric"].unique()]
        lines = [f"{name}: {value}" for name, value in self.settings.items()]
        return "\n".join([*lines, table.round(3).to_string()])


def cross_validate(
    adata: AnnData,
    groupby: str | list[str],
    label: str,
    models: Sequence[str | Factory] | Mapping[str, str | Factory] = DEFAULT_MODELS,
    *,
    preprocess: Any = None,
    use_rep: str | None = None,
    layer: str | None = None,
    n_splits: int = 5,
    n_repeats: int = 5,
    label_fraction: float = 1.0,
    group_unit: str | None = None,
    label_kind: str = "auto",
    cell_type_key: str | None = None,
    transductive: bool = False,
    drop_ungrouped: bool = False,
    n_jobs: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> CrossValidation:
    """Score how well a label of groups is predicted from their cells, beside baselines.

    Stratified folds of whole groups (or units) are repeated; all that learns (principal components, embedding, head and
    its penalty) sees the training groups only. Every model's features go through the same head: logistic regression
    for classes, ridge regression for ordered levels and numbers. "majority" and "permuted" always run. Groups without a
    label are in training, but for those of a test unit, and are never scored.

    Parameters
    ----------
    adata
        Cells. It is not changed.
    groupby
        Column(s) of ``.obs`` that make the groups.
    label
        Column of ``.obs`` to predict: constant within groups, missing where unknown.
    models
        Names in :data:`BASELINES`, "gde" (an embedding trained in each fold), and factories of the user's own (see
        :class:`FoldModel`); or a mapping from names to these.
    preprocess
        What to learn in each fold before the models: a scikit-learn transformer, or a function of the training AnnData
        (labels hidden) that returns a function from AnnData to (n_cells, n_features). By default, principal components
        where X or the layer has more than 50 variables.
    use_rep, layer
        What to read of a cell in place of X. What ``.obsm`` holds was computed outside the folds: an ``X_pca`` is read
        only where it is named.
    n_splits, n_repeats
        Folds of a repeat, and repeats.
    label_fraction
        Share of the labelled training groups, in each class at least one, whose label is shown to the models; the
        others are in training without it.
    group_unit
        Column of ``.obs`` with a coarser unit (site, family, donor) that is never on both sides of a split.
    label_kind
        "categorical", "ordered" or "numeric". By default, ordered categories of more than two levels are ordered,
        numbers of more than two distinct values are numeric, and all else is categorical.
    cell_type_key
        Column of ``.obs`` that "composition" counts; without it, components of a mixture that all groups share.
    transductive
        Whether the cells of test groups, without their labels, are in training as well.
    drop_ungrouped
        Whether to leave out cells that have no value in ``groupby``; else they are an error.
    n_jobs
        Folds to run at a time, in processes of their own; -1 for all cores.
    seed
        Seed of everything random: one seed, one result.
    progress
        Whether to show a progress bar over folds.

    Returns
    -------
    Scores, their summary with intervals, comparisons with each baseline, and predictions.

    Raises
    ------
    KeyError
        For unknown columns, representations or models, with near matches.
    TypeError
        For what is not an AnnData, or no model.
    ValueError
        For labels or units that are not constant within groups, a single class, fewer groups in a class than folds,
        and numbers out of range. All of these before any work.

    Notes
    -----
    Intervals and p-values are those of the corrected resampled t-test (Nadeau & Bengio, 2003): folds share training
    groups and are not independent.

    Examples
    --------
    >>> result = cross_validate(adata, "donor", "disease", ["pseudobulk", "gde"], cell_type_key="cell_type")
    >>> result.summary
    """
    setup = Setup(groupby, use_rep=use_rep, layer=layer, drop_ungrouped=drop_ungrouped)
    cohort = read_cohort(adata, setup, label, label_kind, group_unit)
    if cell_type_key is not None:
        check_columns(adata, [cell_type_key], "cell_type_key")
    factories = named_models(models)
    representation = choose_representation(adata, use_rep, layer, preprocess)
    folds = make_folds(cohort, n_splits, n_repeats, label_fraction, seed)
    plan = Plan(cohort, factories, representation, preprocess, transductive, cell_type_key)
    # Folds are yielded in their order, so that nothing depends on how many run at a time.
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    runs = parallel(delayed(run_fold)(adata, plan, fold) for fold in folds)
    parts = list(tqdm(runs, total=len(folds), desc="folds", disable=not progress))
    settings = {
        "label": label,
        "label_kind": cohort.kind,
        "groups": f"{len(cohort.known)} labelled, {len(cohort.y) - len(cohort.known)} without a label",
        "folds": f"{n_splits} folds of {group_unit or 'groups'} x {n_repeats} repeats, seed {seed}",
        "label_fraction": label_fraction,
        "representation": describe(representation, preprocess),
        "transductive": transductive,
    }
    return _collect(parts, cohort, folds, factories, settings)


def named_models(models: Any) -> dict[str, Factory]:
    """Factories by name, with the baselines that always run."""
    if isinstance(models, str) or callable(models):
        models = [models]
    pairs = models.items() if isinstance(models, Mapping) else [(_name(model), model) for model in models]
    known = {**BASELINES, "gde": GDEFeatures}
    found: dict[str, Factory] = {}
    for name, model in pairs:
        if isinstance(model, str) and model not in known:
            raise KeyError(unknown_key(model, known, "the models (models=)").args[0])
        if not isinstance(model, str) and not callable(model):
            msg = f"models= names {model!r} ({type(model).__name__}); expected names of {list(known)} or factories."
            raise TypeError(msg)
        if name in found:
            msg = f"models= names {name!r} twice. Pass a mapping, with a name of its own for each model."
            raise ValueError(msg)
        if name in BASELINES and model != name:
            msg = f"models= gives {name!r}, the name of a baseline, to another model. Choose another name."
            raise ValueError(msg)
        found[name] = known[model] if isinstance(model, str) else model
    return found | {name: BASELINES[name] for name in ALWAYS if name not in found}


def _name(model: Any) -> str:
    return model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)


def _collect(
    parts: list[tuple[pd.DataFrame, pd.DataFrame]],
    cohort: Cohort,
    folds: list[Fold],
    models: Mapping[str, Callable],
    settings: dict[str, Any],
) -> CrossValidation:
    scores, predictions = (pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True))
    ratio = float(np.mean([len(fold.test) / fold.n_known for fold in folds]))
    directions = {name: score.higher_is_better for name, score in SCORES[cohort.kind].items()}
    baselines = [name for name in models if name in BASELINES]
    comparison = compare(scores, baselines, directions, ratio)
    return CrossValidation(scores, summarize(scores, ratio), comparison, predictions, settings)
