"""Fitting the mixture that all groups share, and choosing its size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Tensor

from scgde.nn.mixtures import symmetric_root
from scgde.nn.statistics import MixtureStatistics

#: Candidates for the number of components and for the prior mass.
COMPONENTS = (1, 5, 10, 20, 40)
PRIOR_MASSES = (0.001, 0.003, 0.01, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 1.0)

#: So many components are always tried, also where an embedding holds principal components of their weights alone.
FEW = 20

#: A loss of log density per cell and feature that does not matter: at no more than this the fewest components win, and
#: the least regularisation, whose bias stays in groups of many cells.
NEGLIGIBLE = 0.002

#: Single Gaussians are regularised by at most this many cells of the typical group, if it has at least so many cells.
SINGLE_PRIOR_CELLS, SINGLE_MIN_CELLS = 2, 10

#: At most about this many cells fit the mixture and judge it, and of a group at least this many, or all that it has:
#: what can be said of a group depends on how many of its cells are seen.
MAX_CELLS, MIN_CELLS_PER_GROUP = 20_000, 200

#: A group's last cells, by this share, judge the statistics of its other cells.
JUDGING_SHARE = 0.2


class Cells(Protocol):
    """Cells of a group: a tensor, or what is read when it is sliced."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Tensor: ...


def fit_shared_mixture(
    groups: Sequence[Cells],
    *,
    feature_scale: Tensor,
    n_components: int | None,
    seed: int,
    weight: Tensor | None = None,
    max_components: int = max(COMPONENTS),
) -> MixtureStatistics:
    """Statistics on the shared mixture that best predicts unseen cells of each group.

    For each candidate the groups' own mixtures are computed from most of their cells, and scored by the log density of
    the others. So populations that are Gaussian get one component, and cells of several types get several.

    Parameters
    ----------
    groups
        Standardised cells of each training group (cells, features), in random order; only slices of them are read.
    feature_scale
        (features,) units of the representation in standardised units.
    n_components
        Number of components, or None to choose among :data:`COMPONENTS`.
    seed
        Seed of the mixture's initialisation.
    weight
        (groups,) what each group counts; by default all count equally.
    max_components
        Most components to choose.
    """
    chosen = _subset(groups, seed)
    weight = None if weight is None else weight[[i for i, _ in chosen]]
    some = [cells for _, cells in chosen]
    x = torch.cat(some)
    if weight is not None:
        x = x[_systematic(weight.repeat_interleave(torch.tensor([len(cells) for cells in some])))]
    n_judging = torch.tensor([int(max(1, JUDGING_SHARE * len(cells))) if len(cells) > 1 else 0 for cells in some])
    most = min(max_components, len(x) // 50)
    candidates = (n_components,) if n_components else [k for k in COMPONENTS if k == 1 or k <= most]
    judges = [i for i, n in enumerate(n_judging) if n > 0]
    found: list[tuple[float, MixtureStatistics]] = []
    for k in candidates:
        statistics = _fit_components(x, min(k, len(x)), feature_scale, seed)
        fitting = _sums(statistics, [cells[: len(cells) - n] for cells, n in zip(some, n_judging, strict=True)])
        statistics.fit_pooled(fitting, weight)
        scores = []
        for prior_mass in PRIOR_MASSES:
            statistics.prior_mass.fill_(prior_mass)
            score = _mean_log_prob(statistics, fitting, some, n_judging, judges) if judges else -prior_mass
            scores.append(score)
        statistics.prior_mass.fill_(PRIOR_MASSES[_first_good(scores, x.shape[1])])
        found.append((max(scores), statistics))
        if max(scores) < max(score for score, _ in found):
            # More components than tell something predict worse and worse, and take long to fit.
            break
    statistics = found[_first_good([score for score, _ in found], x.shape[1])][1]
    _spare_gaussians(statistics, float(np.median([len(cells) for cells in some])))
    return statistics


def _first_good(scores: list[float], n_features: int) -> int:
    """Position of the first score that is not worse than the best by more than is negligible."""
    return next(i for i, score in enumerate(scores) if score >= max(scores) - NEGLIGIBLE * n_features)


def _spare_gaussians(statistics: MixtureStatistics, typical: float) -> None:
    """Regularise single Gaussians as little as groups of a ``typical`` number of cells allow.

    All cells measure the one component, and what is added to its covariance stays as a bias in groups of many cells.
    The shared component has no share in it: its covariance is mostly that between groups.
    """
    if statistics.n_components > 1 or typical < SINGLE_MIN_CELLS:
        return
    most = [c for c in PRIOR_MASSES if c <= SINGLE_PRIOR_CELLS / typical]
    statistics.prior_mass.clamp_(max=max(most, default=min(PRIOR_MASSES)))
    statistics.shared_share = 0.0


def _subset(groups: Sequence[Cells], seed: int) -> list[tuple[int, Tensor]]:
    """Random groups and their positions, cut to size, that have :data:`MAX_CELLS` cells or little more."""
    limit = max(MIN_CELLS_PER_GROUP, MAX_CELLS // len(groups))
    order = np.random.default_rng(seed).permutation(len(groups))
    total = np.cumsum([min(limit, len(groups[i])) for i in order])
    return [(int(i), groups[i][:limit]) for i in np.sort(order[: 1 + np.searchsorted(total, MAX_CELLS)])]


def _systematic(weight: Tensor) -> Tensor:
    """As many positions as there are weights, each as often as its weight says."""
    ends = weight.double().cumsum(0)
    place = torch.searchsorted(ends, ends[-1] * (torch.arange(len(weight)) + 0.5) / len(weight))
    return place.clamp_max(len(weight) - 1)


def _fit_components(x: Tensor, k: int, feature_scale: Tensor, seed: int) -> MixtureStatistics:
    statistics = MixtureStatistics(x.shape[1], k)
    kind = "full" if statistics.full else "diag"
    model = GaussianMixture(k, covariance_type=kind, reg_covar=1e-3, max_iter=50, random_state=seed)
    # k-means adds up in the order in which threads end, and its threads spin where the machine is busy.
    with threadpool_limits(1, user_api="openmp"), warnings.catch_warnings(), _denormals_are_zero():
        # The mixture is a coordinate system, not a result: it need not have converged.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x.numpy() if len(x) > 1 else np.repeat(x.numpy(), 2, axis=0))
    covariance = torch.from_numpy(model.covariances_)
    statistics.weight.copy_(torch.from_numpy(model.weights_))
    statistics.mean.copy_(torch.from_numpy(model.means_))
    statistics.root.copy_(symmetric_root(covariance) if statistics.full else covariance.sqrt())
    statistics.feature_scale.copy_(feature_scale)
    return statistics


@contextmanager
def _denormals_are_zero() -> Iterator[None]:
    """Most shares of cells in components are next to nothing, and numbers below 1e-38 are slow to compute with."""
    already = not (torch.tensor(1e-40) * 0.5).item()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def _sums(statistics: MixtureStatistics, groups: list[Tensor]) -> Tensor:
    rows = [statistics.sums(cells[None], torch.full((1, len(cells)), 1 / len(cells))) for cells in groups]
    return torch.cat(rows)


def _mean_log_prob(
    statistics: MixtureStatistics, sums: Tensor, groups: list[Tensor], n_judging: Tensor, judges: list[int]
) -> float:
    """Mean log density of the judging cells under the mixtures of their own groups; cells count equally."""
    mixtures = statistics.mixtures(sums)
    total = sum(float(mixtures[[i]].log_prob(groups[i][-n_judging[i] :][None]).sum()) for i in judges)
    return total / int(n_judging.sum())
