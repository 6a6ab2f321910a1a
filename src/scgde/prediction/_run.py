"""One fold: cells, features, head, predictions and scores of every model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgde.data import Representation
from scgde.prediction._cohort import Cohort
from scgde.prediction._features import FOLD_GROUP, Factory, FoldContext, aligned
from scgde.prediction._folds import Fold
from scgde.prediction._heads import fit_head
from scgde.prediction._representation import fold_cells
from scgde.prediction._scores import SCORES


@dataclass(frozen=True)
class Plan:
    """What is the same in all folds.

    Parameters
    ----------
    cohort
        Groups and their label.
    models
        Factories of models by name.
    representation
        What a fold starts from.
    preprocess
        What the user learns inside the fold, or None.
    transductive
        Whether test groups are in training, without their labels.
    cell_type_key
        Column with cell types, or None.
    """

    cohort: Cohort
    models: dict[str, Factory]
    representation: Representation
    preprocess: Any
    transductive: bool
    cell_type_key: str | None


def run_fold(adata: AnnData, plan: Plan, fold: Fold) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores (one row per model and metric) and predictions (one row per model and test group) of one fold."""
    cohort = plan.cohort
    cells = fold_cells(adata, cohort, fold, plan.representation, plan.preprocess, transductive=plan.transductive)
    context = FoldContext(FOLD_GROUP, cohort.label, cohort.kind, plan.cell_type_key, fold.seed)
    scores, predictions = [], []
    for name, factory in plan.models.items():
        try:
            predicted = _predict(name, factory(context), cells, cohort, fold)
        except Exception as error:
            error.add_note(f"This happened in the model {name!r}, repeat {fold.repeat}, fold {fold.fold}.")
            raise
        place: dict[str, Any] = {"repeat": fold.repeat, "fold": fold.fold, "model": name}
        sizes = {"n_labelled": len(fold.labelled), "n_train": len(fold.train), "n_test": len(fold.test)}
        for metric, score in SCORES[cohort.kind].items():
            value = float(score.function(cohort.y[fold.test], predicted))
            scores.append({**place, "metric": metric, "value": value, **sizes, "transductive": plan.transductive})
        predictions.append(_prediction_frame(predicted, cohort, fold).assign(**place))
    return pd.DataFrame(scores), pd.concat(predictions, ignore_index=True)


def _predict(name: str, model: Any, cells: tuple[AnnData, AnnData], cohort: Cohort, fold: Fold) -> np.ndarray:
    """Probabilities (n_test, n_classes), or ranks or values (n_test,), of the test groups."""
    train, test = cells
    names = cohort.index.names
    test_names = [names[i] for i in fold.test]
    if hasattr(model, "predict"):
        model.fit(train)
        return _own_prediction(name, model.predict(test), test_names, cohort, fold)
    learned = np.unique(train.obs[FOLD_GROUP].to_numpy())
    x = aligned(model.fit_transform(train), [names[i] for i in learned], learned, name)
    x = x[np.searchsorted(learned, fold.labelled)]
    y = cohort.y[fold.labelled]
    if getattr(model, "permute_labels", False):
        y = np.random.default_rng(fold.seed).permutation(y)
    sizes = getattr(model, "block_sizes", None)
    head = fit_head(x, y, cohort.unit[fold.labelled], cohort.kind, fold.seed, sizes)
    return head(aligned(model.transform(test), test_names, fold.test, name))


def _own_prediction(name: str, predicted: Any, names: list[Any], cohort: Cohort, fold: Fold) -> np.ndarray:
    """Predictions of a model with its own head, checked and in order of groups and classes."""
    if isinstance(predicted, pd.DataFrame) and set(predicted.columns) == set(cohort.classes):
        predicted = predicted[cohort.classes]
    elif isinstance(predicted, pd.Series):
        predicted = predicted.to_frame()
    elif np.ndim(predicted) == 1:
        predicted = np.asarray(predicted)[:, None]
    array = aligned(predicted, names, fold.test, name)
    width = len(cohort.classes) if cohort.kind == "categorical" else 1
    if array.shape[1] != width:
        msg = f"The model {name!r} predicted {array.shape[1]} columns; expected {width}: " + (
            "the probability of each class." if width > 1 else "a rank or a value."
        )
        raise ValueError(msg)
    return array if cohort.kind == "categorical" else array[:, 0]


def _prediction_frame(predicted: np.ndarray, cohort: Cohort, fold: Fold) -> pd.DataFrame:
    """Names, true labels and predictions of the test groups."""
    frame = cohort.index.table.iloc[fold.test].reset_index(drop=True).add_prefix("group_")
    y = cohort.y[fold.test]
    if cohort.kind == "categorical":
        columns = {f"p_{label}": predicted[:, k] for k, label in enumerate(cohort.classes)}
    else:
        columns = {"predicted": np.asarray(predicted)}
    return frame.assign(truth=[cohort.classes[int(v)] for v in y] if cohort.classes else y, **columns)
