"""Fitting predictors: linear maps that are judged by labels that they have not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from scgde.prediction._folds import stratified_splits
from scgde.prediction._heads import INNER_FOLDS, LinearMap
from scgde.prediction._predictor import PREDICTORS, Blocks, Predictor, propagate, read_features

#: Groups that the embedding was trained without the labels of, to choose the head that was trained with it.
MIN_JUDGES = 10


class Unseen(NamedTuple):
    """Outputs (groups, outputs) of maps that have not seen the label of these groups, their covariances, and labels."""

    outputs: np.ndarray
    covariance: np.ndarray
    y: np.ndarray
    rows: np.ndarray

    @classmethod
    def joined(cls, parts: list[Unseen]) -> Unseen:
        """All of them."""
        return cls(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def among(self, chosen: np.ndarray) -> Unseen:
        """Those of them that are chosen, a mask over all groups."""
        return Unseen(*(values[chosen[self.rows]] for values in self))


@dataclass(frozen=True)
class LabelledGroups:
    """Groups with a label.

    Parameters
    ----------
    z
        (groups, latent) embeddings.
    covariance
        From places of groups and linear functions of their embeddings (groups, outputs, latent) to the covariances of
        these (groups, outputs, outputs).
    place
        (groups,) place of a group, or -1 where covariances are not to be computed.
    y
        (groups,) labels as numbers.
    unit
        (groups,) what is never split.
    train
        (groups,) whether a map may learn from the group.
    judge
        (groups,) whether the embedding was trained without the group's label.
    blocks
        Features of embeddings, which maps are linear in. The first block is the embedding.
    """

    z: np.ndarray
    covariance: Callable[[np.ndarray, np.ndarray], np.ndarray]
    place: np.ndarray
    y: np.ndarray
    unit: np.ndarray
    train: np.ndarray
    judge: np.ndarray
    blocks: Blocks

    @cached_property
    def features(self) -> tuple[np.ndarray, list[int]]:
        """(groups, features), and the sizes of their blocks."""
        return read_features(self.z, self.blocks)

    def of(self, y: np.ndarray) -> LabelledGroups:
        """Those of the groups that have a label ``y`` (groups,), with it."""
        known = ~np.isnan(y)
        kept = {name: getattr(self, name)[known] for name in ("z", "place", "unit", "train", "judge")}
        return replace(self, y=y[known], **kept)

    def unseen(self, rows: np.ndarray, linear: LinearMap) -> Unseen:
        """What a map says of groups, as far as the covariances of their embeddings are known."""
        rows = rows[self.place[rows] >= 0]
        outputs = propagate(linear, self.z[rows], partial(self.covariance, self.place[rows]), self.blocks)
        return Unseen(*outputs, self.y[rows], rows)


def fit_predictor(
    groups: LabelledGroups, kind: str, classes: list[Any], n_frozen: int, seed: int
) -> tuple[Predictor, str]:
    """Fit a predictor of one label; also tells which map it has.

    "linear" is a map of features of the entries that no label has shaped. It is cross-fitted, so that all labels
    fit it and set its law. "joint" is one of all entries. It is fitted to groups whose labels have shaped them, and
    what that is worth for other groups is known from the judges only: it is chosen where the label's likelihood there
    is higher, by more than a standard error.

    Parameters
    ----------
    groups
        Groups with a label.
    kind
        Kind of the label.
    classes
        Its classes.
    n_frozen
        The first entries of an embedding are those that labels did not shape.
    seed
        Seed of the folds.
    """
    predictor = PREDICTORS[kind]

    def fitted(groups: LabelledGroups, rows: np.ndarray) -> Predictor:
        x, sizes = groups.features
        linear = predictor.fit_map(x[rows], groups.y[rows], classes, groups.unit[rows], seed, sizes)
        return predictor(classes, linear)

    n_latent = groups.z.shape[1]
    frozen = replace(groups, z=np.where(np.arange(n_latent) < n_frozen, groups.z, 0.0))
    linear = fitted(frozen, np.flatnonzero(groups.train))
    linear.linear.coef[n_frozen:n_latent] = 0.0
    held_out = frozen.unseen(np.flatnonzero(~groups.train), linear.linear)
    unseen = Unseen.joined([cross_fit(frozen, kind, classes, seed), held_out])
    name, known = "linear", groups.y[groups.train]
    both = groups.judge & np.isin(np.arange(len(groups.y)), unseen.rows)
    seen = np.flatnonzero(groups.train & ~groups.judge)
    if n_frozen < n_latent and both.sum() >= MIN_JUDGES and len(seen):
        joint = fitted(groups, seen)
        judged = groups.unseen(np.flatnonzero(groups.judge), joint.linear)
        gain = _losses(linear, unseen.among(both), known) - _losses(joint, judged.among(both), known)
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            name, linear, unseen = "joint", joint, judged
    linear.fit_law(unseen.outputs, unseen.covariance, unseen.y, known)
    return linear, name


def _losses(predictor: Predictor, unseen: Unseen, known: np.ndarray) -> np.ndarray:
    """(groups,) negative log likelihood under a law that is fitted to these very groups, in the order of the rows."""
    predictor.fit_law(unseen.outputs, unseen.covariance, unseen.y, known)
    return predictor.loss(unseen.outputs, unseen.covariance, unseen.y)[np.argsort(unseen.rows)]


def cross_fit(groups: LabelledGroups, kind: str, classes: list[Any], seed: int) -> Unseen:
    """Outputs of training groups by maps that have not seen their label.

    The only group of a class is always learned from: a map that knows nothing of a class says nothing of it.
    """
    rows = np.flatnonzero(groups.train)
    features, sizes = groups.features
    x, y, unit = features[rows], groups.y[rows], groups.unit[rows]
    strata = np.unique(y, return_inverse=True)[1] if kind == "categorical" else np.zeros(len(y), dtype=int)
    n_units = np.array([len(np.unique(unit[strata == k])) for k in range(strata.max() + 1)])
    movable = np.flatnonzero(n_units[strata] > 1)
    n_splits = min(INNER_FOLDS, len(np.unique(unit[movable])))
    if kind == "categorical" and n_splits > 1:
        n_splits = max(2, min(n_splits, int(n_units[n_units > 1].min())))
    found = [groups.unseen(rows[:0], LinearMap(np.zeros((x.shape[1], 1)), np.zeros(1)))]
    splits = stratified_splits(strata[movable], unit[movable], n_splits, seed) if n_splits > 1 else []
    for _, test in splits:
        train = np.setdiff1d(np.arange(len(y)), movable[test])
        if len(test) and (kind != "categorical" or len(np.unique(y[train])) == len(n_units)):
            linear = PREDICTORS[kind].fit_map(x[train], y[train], classes, unit[train], seed, sizes)
            found.append(groups.unseen(rows[movable[test]], linear))
    return Unseen.joined(found[1:] or found)
