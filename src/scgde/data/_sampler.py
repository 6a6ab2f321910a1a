"""Which groups and which of their cells a step sees: a function of (seed, step) alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from scgde.nn._random import CounterRandom

#: Number of parts a group is cut into; each step scores one and encodes from the others.
N_FOLDS = 5

#: Labelled groups that each step sees at least, where there are as many.
LABELLED_PER_STEP = 16


@dataclass
class GroupSampler:
    """Draws groups, and fresh cells of each group, for every step.

    The cells of a group lie in a random order and are cut into :data:`N_FOLDS` parts. A step scores cells of one part
    and encodes cells of the others, so no embedding has seen the cells that it is scored on (groups of one cell aside).
    Cells are drawn by strata of the remaining positions, without replacement: cell j stands for its stratum and weighs
    as much. Where a group has fewer cells than slots, each cell is drawn once and the other slots weigh nothing.

    Parameters
    ----------
    counts
        (n_groups,) number of cells that training may use.
    groups
        Positions of the groups to train on.
    batch_size
        Groups per step, over all ranks.
    cells_per_group
        Cells to encode per group and step.
    scored_per_group
        Cells to score per group and step.
    seed
        The user's seed.
    rank, world_size
        This process and the number of processes: ranks get disjoint groups of each step.
    labelled
        Positions of the training groups that have a label, or None where labels take no part.
    group_weight
        (n_groups,) what each group counts, or None where all count equally. A group is then drawn into a step with a
        probability in proportion to it, at most 1, and its loss is multiplied by what is left of its weight.
    """

    counts: Tensor
    groups: Tensor
    batch_size: int
    cells_per_group: int
    scored_per_group: int
    seed: int
    rank: int = 0
    world_size: int = 1
    labelled: Tensor | None = None
    group_weight: Tensor | None = None
    _order: tuple[int, Tensor] = field(default=(-1, torch.empty(0, dtype=torch.int64)), repr=False)

    def __post_init__(self) -> None:
        self.batch_size = min(self.batch_size, len(self.groups))
        if self.group_weight is not None:
            self.batch_size = min(self.batch_size, int((self.group_weight[self.groups] > 0).sum()))
        if self.batch_size < self.world_size:
            msg = f"{self.batch_size} groups per step cannot be shared by {self.world_size} processes."
            raise ValueError(msg)

    @property
    def steps_per_pass(self) -> int:
        """Steps in which each group is seen at most once."""
        return len(self.groups) // self.batch_size

    def groups_of(self, step: int) -> Tensor:
        """Groups of this rank at ``step``."""
        chosen = self._chosen(step)
        return chosen[self.rank : len(chosen) - len(chosen) % self.world_size : self.world_size]

    def _chosen(self, step: int) -> Tensor:
        """Groups of all ranks at ``step``: a slice of this pass's random order, or a draw by weights."""
        if self.group_weight is not None:
            return self._drawn(step)
        turn, place = divmod(step, self.steps_per_pass)
        if self._order[0] != turn:
            keys = CounterRandom(self.seed, turn, self.groups).uniform("groups", 1)[:, 0]
            self._order = (turn, self.groups[keys.argsort(stable=True)])
        return self._order[1][place * self.batch_size : (place + 1) * self.batch_size]

    def _drawn(self, step: int) -> Tensor:
        """Different groups, each with its probability: every unit of their sum, in a random order, draws one."""
        u = CounterRandom(self.seed, step, self.groups).uniform("groups", 2).double()
        order = u[:, 0].argsort(stable=True)
        ends = self.probability[order].cumsum(0)
        place = torch.searchsorted(ends, u[0, 1] + torch.arange(self.batch_size), right=True)
        return self.groups[order[place.clamp_max(len(order) - 1)]]

    @cached_property
    def probability(self) -> Tensor:
        """(training groups,) of being drawn into a step."""
        assert self.group_weight is not None
        weight = self.group_weight[self.groups].double()
        sure = torch.zeros(len(weight), dtype=torch.bool)
        while True:
            rest = (self.batch_size - sure.sum()) * weight / weight[~sure].sum().clamp_min(1e-300)
            more = ~sure & (rest >= 1)
            if not more.any():
                return torch.where(sure, 1.0, rest)
            sure |= more

    def importance(self, group: Tensor) -> Tensor | None:
        """(groups,) factors of the losses of drawn groups, whose weighted mean is the same in expectation."""
        if self.group_weight is None:
            return None
        factor = self.group_weight[self.groups].double() / self.probability.clamp_min(1e-300)
        factor = factor * self.batch_size / len(self.groups)
        place = torch.full((len(self.group_weight),), -1)
        place[self.groups] = torch.arange(len(self.groups))
        return factor[place[group]].float()

    def labelled_of(self, step: int, group: Tensor) -> Tensor:
        """Labelled groups to encode besides ``group``: the step then has :data:`LABELLED_PER_STEP` over all ranks."""
        if self.labelled is None:
            return group[:0]
        chosen = group if self.world_size == 1 else self._chosen(step)
        n_more = max(0, min(len(self.labelled), LABELLED_PER_STEP) - int(torch.isin(chosen, self.labelled).sum()))
        keys = CounterRandom(self.seed, step, self.labelled).uniform("labels", 1)[:, 0]
        others = self.labelled[keys.argsort(stable=True)]
        return others[~torch.isin(others, chosen)][:n_more][self.rank :: self.world_size]

    def cells_of(self, step: int, group: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Fold, positions to encode and their weights, positions to score and their weights.

        Positions count from the start of each group.
        """
        random = CounterRandom(self.seed, step, group)
        u = random.uniform("cells", 3 + self.cells_per_group + self.scored_per_group).double()
        count = self.counts[group]
        n_folds = count.clamp(max=N_FOLDS)
        fold = (u[:, 0] * n_folds).long()
        start, stop = fold * count // n_folds, (fold + 1) * count // n_folds
        single = n_folds == 1
        score = strata(u[:, 3 + self.cells_per_group :], u[:, 1], stop - start)
        rest = torch.where(single, count, count - (stop - start))
        encode = strata(u[:, 3 : 3 + self.cells_per_group], u[:, 2], rest)
        positions = (stop[:, None] + encode[0]) % count[:, None]
        return torch.where(single, -1, fold), positions, encode[1], start[:, None] + score[0], score[1]


def strata(u: Tensor, turn: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """One position in each stratum of ``range(size)``, turned round by a random start, and the strata's shares.

    Parameters
    ----------
    u
        (groups, n) uniform numbers, one per stratum.
    turn
        (groups,) uniform numbers that place the first stratum.
    size
        (groups,) number of positions, at least 1.
    """
    edges = torch.arange(u.shape[1] + 1) * size[:, None] // u.shape[1]
    length = edges.diff(dim=1)
    position = edges[:, :-1] + (u * length).long()
    return (position + (turn * size).long()[:, None]) % size[:, None], (length / size[:, None]).float()
