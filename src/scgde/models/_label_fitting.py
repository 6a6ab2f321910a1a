"""From labelled groups to predictors: which labels shape the embedding, and what is fitted to it afterwards."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anndata import AnnData

from scgde.data import GroupedObs
from scgde.data._labels import Label
from scgde.models._influence import dispersion
from scgde.prediction._fit_predictor import MIN_JUDGES, LabelledGroups, fit_predictor

if TYPE_CHECKING:
    from scgde.models._labels import LabelModel

#: Labelled training groups that it takes for labels to shape the embedding unasked: those of fewer are memorised.
MIN_LABELLED = 100

#: Share of the labelled training groups whose labels the embedding does not see, to judge the heads by.
JUDGES = 0.2

#: Groups whose embeddings' covariances are computed to fit a predictor.
MAX_MEASURED = 1000


def own_labels(model: LabelModel, obs: GroupedObs) -> list[Label]:
    """The labels of setup."""
    return [model.setup.label(name, obs.labels) for name in model.setup.label_names]


def shaping_labels(model: LabelModel, obs: GroupedObs, train: np.ndarray) -> tuple[list[Label], torch.Tensor | None]:
    """Labels that shape the embedding, and their numbers (groups, columns), NaN where it must not see them."""
    if model.module.built:
        labels = [Label(**state) for state in model.trained_labels_]
    elif model.labels_weight == 0:
        labels = []
    else:
        labels = [label for label in own_labels(model, obs) if _shapes(model, label, label.numbers(obs.labels)[train])]
    if not labels:
        return [], None
    y = np.concatenate([label.numbers(obs.labels) for label in labels], axis=1)
    hidden = np.ones(len(y), dtype=bool)
    hidden[np.setdiff1d(train, _judges(obs, train, model.options["seed"]))] = False
    return labels, torch.from_numpy(np.where(hidden[:, None], np.nan, y)).float()


def _shapes(model: LabelModel, label: Label, y: np.ndarray) -> bool:
    enough = model.labels_weight is not None or (~np.isnan(y).all(axis=1)).sum() >= MIN_LABELLED
    return bool(enough) and label.obstacle(y) is None


def _judges(obs: GroupedObs, train: np.ndarray, seed: int) -> np.ndarray:
    """Training groups whose labels the embedding does not see: a share of the units with any label, or none if few."""
    known = train[obs.labels.notna().any(axis=1).to_numpy()[train]]
    units = np.random.default_rng([seed, len(known)]).permutation(np.unique(obs.unit[known]))
    n_judges = round(JUDGES * len(units))
    return train[np.isin(obs.unit[train], units[: n_judges if n_judges >= MIN_JUDGES else 0])]


def covariances(
    model: LabelModel,
    adata: AnnData,
    obs: GroupedObs,
    size: int | None,
    positions: np.ndarray,
    directions: np.ndarray,
) -> np.ndarray:
    """Covariances of linear functions of the embeddings of groups; of one cell's, the mean of the others.

    Parameters
    ----------
    model, adata, obs
        A trained model, cells, and their groups.
    size
        Cells in memory at a time.
    positions
        Which groups.
    directions
        (groups, outputs, latent) linear functions.

    Returns
    -------
    (groups, outputs, outputs).
    """
    if not len(positions):
        return np.zeros((0, directions.shape[1], directions.shape[1]))
    place = np.full(len(obs.index) + 1, -1)
    place[positions] = np.arange(len(positions))
    x, codes = model.representation.read(adata), place[obs.index.codes]
    covariance = dispersion(
        model.module,
        x,
        codes,
        len(positions),
        weight=obs.weight,
        cells=obs.index.rows,
        batch_size=size,
        directions=directions,
    ).covariance
    unknown = np.isnan(covariance).any(axis=(1, 2))
    usual = covariance[~unknown].mean(axis=0) if (~unknown).any() else 0.0
    covariance[unknown] = usual
    return covariance


def fit_labels(
    model: LabelModel, adata: AnnData, obs: GroupedObs, labels: list[Label], split: dict[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Fit predictors of labels on the embedding as it is, by label.

    Parameters
    ----------
    model
        A trained model.
    adata, obs
        Cells, and what is known of their groups.
    labels
        What to predict.
    split
        Positions of groups: maps are fitted to "train"; "validation" helps to fit their laws.
    """
    y = {label.name: label.numbers(obs.labels) for label in labels}
    obstacles = {label.name: label.obstacle(y[label.name][split["train"]]) for label in labels}
    used = np.sort(np.concatenate([split["train"], split["validation"]]))
    used = used[np.any([~np.isnan(values[used]).all(axis=1) for values in y.values()], axis=0)] if labels else used[:0]
    base = None
    if not all(obstacles.values()):
        z = model._encode(adata, obs, used, None).z.cpu().double().numpy()
        measured = np.random.default_rng([model.options["seed"], 1]).permutation(len(used))[:MAX_MEASURED]
        place = np.full(len(used), -1)
        place[measured] = used[measured]
        train = np.isin(used, split["train"])
        judge = ~train | np.isin(used, _judges(obs, split["train"], model.options["seed"]))
        covariance = functools.partial(covariances, model, adata, obs, None)
        base = LabelledGroups(
            z, covariance, place, np.zeros(len(used)), obs.unit[used], train, judge, model.module.blocks
        )
    return {label.name: _fit_label(model, label, y[label.name][used], base, obstacles[label.name]) for label in labels}


def _fit_label(
    model: LabelModel, label: Label, y: np.ndarray, base: LabelledGroups | None, obstacle: str | None
) -> dict[str, Any]:
    """Predictors of one label, one for each of its columns."""
    fitted: dict[str, Any] = {"label": label.state(), "parts": [], "single": []}
    summary: dict[str, Any] = {"kind": label.kind, "n_labelled": 0, "map": "none", "status": obstacle or "fitted"}
    if obstacle is None:
        assert base is not None
        n_frozen = model.module.n_coordinates if len(model.module.heads) else model.options["n_latent"]
        kind, classes = ("categorical", [0, 1]) if label.kind == "multilabel" else (label.kind, label.classes)
        maps = []
        for column in y.T:
            groups = base.of(column)
            predictor, chosen = fit_predictor(groups, kind, classes, n_frozen, model.options["seed"])
            fitted["parts"].append(predictor.state())
            maps.append(chosen)
            if label.kind == "categorical":
                counts = np.bincount(groups.y[groups.train].astype(int), minlength=len(classes))
                fitted["single"] = [classes[i] for i in np.flatnonzero(counts == 1)]
        n_labelled = int((~np.isnan(y[base.train])).any(axis=1).sum())
        summary |= {"n_labelled": n_labelled, "map": ", ".join(sorted(set(maps)))}
    return fitted | {"summary": summary}
