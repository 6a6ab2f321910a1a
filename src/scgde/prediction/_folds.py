"""Which groups are learned from and which are scored: repeated stratified folds that never split a unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from scgde._validation import listing
from scgde.prediction._cohort import Cohort

#: Draws of folds that are tried for one in which every class can be learned; only coarse units need more than one.
MAX_DRAWS = 20


@dataclass(frozen=True)
class Fold:
    """One split of the groups.

    Parameters
    ----------
    repeat, fold
        Numbers of the repeat and of the fold in it.
    train
        Positions of the groups to learn from, those without a label among them.
    labelled
        Positions of the training groups whose label is shown.
    test
        Positions of the groups to score.
    n_known
        Number of training groups that have a label, shown or not.
    seed
        Seed of all that is drawn in this fold.
    """

    repeat: int
    fold: int
    train: np.ndarray
    labelled: np.ndarray
    test: np.ndarray
    n_known: int
    seed: int


def make_folds(cohort: Cohort, n_splits: int, n_repeats: int, label_fraction: float, seed: int) -> list[Fold]:
    """All folds, drawn and checked before any work."""
    _check_sizes(n_splits, n_repeats, label_fraction)
    _check_cohort(cohort, n_splits)
    known, strata = cohort.known, cohort.strata(n_splits)
    folds = []
    for repeat in range(n_repeats):
        for fold, (_, test) in enumerate(_draw(cohort, n_splits, [seed, repeat])):
            test = known[test]
            # An unlabelled group of a test unit is neither scored nor learned from.
            train = np.flatnonzero(~np.isin(cohort.unit, cohort.unit[test]))
            candidates = np.intersect1d(train, known)
            rng = np.random.default_rng([seed, repeat, fold])
            labelled = _shown(candidates, strata, label_fraction, rng)
            folds.append(Fold(repeat, fold, train, labelled, test, len(candidates), int(rng.integers(2**31))))
    return folds


def stratified_splits(
    strata: np.ndarray, unit: np.ndarray, n_splits: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and test positions of stratified folds; units stay whole."""
    whole = len(np.unique(unit)) == len(unit)
    splitter = (StratifiedKFold if whole else StratifiedGroupKFold)(n_splits, shuffle=True, random_state=seed)
    return list(splitter.split(strata, strata, None if whole else unit))


def _draw(cohort: Cohort, n_splits: int, seed: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds over the labelled groups, with every class in every training part and groups in every test part."""
    rng = np.random.default_rng(seed)
    strata, unit = cohort.strata(n_splits)[cohort.known], cohort.unit[cohort.known]
    needed = len(np.unique(strata)) if cohort.kind == "categorical" else 1
    for _ in range(MAX_DRAWS):
        splits = stratified_splits(strata, unit, n_splits, int(rng.integers(2**31)))
        if all(len(test) and len(np.unique(strata[train])) >= needed for train, test in splits):
            return splits
    msg = (
        f"{MAX_DRAWS} draws of {n_splits} folds by unit (group_unit=) left out a class in training each time. "
        "Lower n_splits, or choose a finer unit."
    )
    raise ValueError(msg)


def _shown(candidates: np.ndarray, strata: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Groups whose label is shown: a share of each stratum, at least one; smaller shares are parts of larger ones."""
    order = rng.permutation(candidates)
    kept = []
    for stratum in np.unique(strata[candidates]):
        own = order[strata[order] == stratum]
        kept.append(own[: max(1, round(fraction * len(own)))])
    return np.sort(np.concatenate(kept))


def _check_sizes(n_splits: int, n_repeats: int, label_fraction: float) -> None:
    for name, value, least in (("n_splits", n_splits, 2), ("n_repeats", n_repeats, 1)):
        if value != int(value) or value < least:
            msg = f"{name}={value}: expected a whole number of at least {least}."
            raise ValueError(msg)
    if not 0 < label_fraction <= 1:
        msg = f"label_fraction={label_fraction}: expected a share of the training labels, above 0 and at most 1."
        raise ValueError(msg)


def _check_cohort(cohort: Cohort, n_splits: int) -> None:
    """Raise unless every fold can hold what it needs."""
    known = cohort.known
    if cohort.kind == "categorical":
        units = {int(k): len(np.unique(cohort.unit[cohort.y == k])) for k in np.unique(cohort.y[known])}
        small = [f"{cohort.classes[k]}: {n}" for k, n in units.items() if n < n_splits]
        if small:
            least = min(units.values())
            remedy = f"pass n_splits={least}, or " if least >= 2 else ""
            msg = (
                f"{len(small)} of {len(units)} classes of {cohort.label!r} have fewer groups (or units) than "
                f"n_splits={n_splits} ({listing(small)}), so that some folds could not score them. To go on, {remedy}"
                "merge these classes, or set their labels missing: such groups are used without a label."
            )
            raise ValueError(msg)
    elif len(np.unique(cohort.unit[known])) < 2 * n_splits:
        msg = (
            f"{len(np.unique(cohort.unit[known]))} groups (or units) have a value of {cohort.label!r}, fewer than two "
            f"for each of n_splits={n_splits} folds. Lower n_splits, or label more groups."
        )
        raise ValueError(msg)
