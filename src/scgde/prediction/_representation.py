"""The representation of a fold: learned from its training groups' cells only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from sklearn.base import clone

from scgde._constants import MAX_X_FEATURES
from scgde.data import Representation
from scgde.prediction._cohort import Cohort
from scgde.prediction._features import FOLD_GROUP
from scgde.prediction._folds import Fold

#: From the AnnData of the training groups, labels hidden, to the function that computes any cells' features.
Preprocess = Callable[[AnnData], Callable[[AnnData], Any]]


def choose_representation(adata: AnnData, use_rep: str | None, layer: str | None, preprocess: Any) -> Representation:
    """What a fold starts from: as for a model, but that an ``X_pca`` of all cells is never taken unasked."""
    default = use_rep is None and layer is None
    if preprocess is not None and not (callable(preprocess) or hasattr(preprocess, "fit")):
        msg = (
            f"preprocess={preprocess!r}: expected None, a scikit-learn transformer, or a function of the training "
            "AnnData that returns a function of any AnnData."
        )
        raise TypeError(msg)
    if callable(preprocess):
        if not default:
            msg = f"use_rep={use_rep!r} and layer={layer!r} are not used: a function as preprocess= reads the AnnData."
            raise ValueError(msg)
        return Representation("X")
    if default and (adata.X is None or adata.n_vars == 0):
        msg = (
            "adata.X is empty, and what .obsm holds may have been learned from all groups, test groups included. "
            "Pass an AnnData with X; or name a key of .obsm as use_rep= to read it all the same."
        )
        raise ValueError(msg)
    chosen = Representation.choose(adata, "X" if default else use_rep, layer)
    project = preprocess is None and adata.n_vars > MAX_X_FEATURES and (default or layer is not None)
    chosen = replace(chosen, project=project)
    chosen.check(adata)
    return chosen


def describe(representation: Representation, preprocess: Any) -> str:
    """What is computed in each fold, in words."""
    if callable(preprocess):
        return f"{getattr(preprocess, '__name__', type(preprocess).__name__)}, fitted in each fold"
    if preprocess is not None:
        return f"{type(preprocess).__name__} of {representation.name}, fitted in each fold"
    if representation.project:
        return f"principal components of {representation.name}, fitted in each fold"
    return f"{representation.name} as given"


def fold_cells(
    adata: AnnData, cohort: Cohort, fold: Fold, representation: Representation, preprocess: Any, *, transductive: bool
) -> tuple[AnnData, AnnData]:
    """Cells to learn from and cells to score: the fold's representation in X, labels hidden in ``.obs``."""
    learned = np.union1d(fold.train, fold.test) if transductive else fold.train
    obs = _hidden(adata.obs, cohort, fold)
    rows = [cohort.cells(groups) for groups in (learned, fold.test)]
    parts = [adata[own] for own in rows]
    if callable(preprocess):
        parts = [part.copy() for part in parts]
        for part, own in zip(parts, rows, strict=True):
            part.obs = obs.iloc[own]
    transform = _fitted(parts[0], representation, preprocess, fold.seed)
    train, test = (AnnData(_dense(transform(part)), obs=obs.iloc[own]) for part, own in zip(parts, rows, strict=True))
    return train, test


def _hidden(obs: pd.DataFrame, cohort: Cohort, fold: Fold) -> pd.DataFrame:
    """Columns of all cells, with the labels missing that the fold does not show, and the number of the group."""
    shown = np.isin(cohort.index.codes, fold.labelled)
    obs = obs.copy()
    obs[cohort.label] = obs[cohort.label].where(shown)
    obs[FOLD_GROUP] = cohort.index.codes
    return obs


def _fitted(train: AnnData, representation: Representation, preprocess: Any, seed: int) -> Callable[[AnnData], Any]:
    """The function from cells to features, learned from the training cells."""
    if preprocess is None:
        return representation.fit(train, np.arange(train.n_obs), seed).read
    if callable(preprocess):
        return preprocess(train)
    transformer = clone(preprocess)
    if "random_state" in transformer.get_params() and transformer.get_params()["random_state"] is None:
        transformer.set_params(random_state=seed)
    transformer.fit(representation.raw(train))
    return lambda part: transformer.transform(representation.raw(part))


def _dense(x: Any) -> np.ndarray:
    x = x.toarray() if sparse.issparse(x) else np.asarray(x)
    return np.ascontiguousarray(x, dtype=np.float32)
