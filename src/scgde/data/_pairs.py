"""Which populations a step moves to which: ordered pairs, made inside the batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scgde.data._sampler import GroupSampler
from scgde.nn._random import CounterRandom

#: Names of pairings: any two groups; from an earlier to a later time; as "forward", inside one donor or clone.
PAIRINGS = ("any", "forward", "within_group")


@dataclass(frozen=True)
class Pairing:
    """Ordered pairs that a transport is trained on.

    Parameters
    ----------
    time
        (n_groups,) times where a pair must go forward in time, or None.
    listed
        (n_pairs, 2) positions of source and target, where the pairs are listed, or None.
    """

    time: Tensor | None = None
    listed: Tensor | None = None

    @classmethod
    def by_name(cls, name: str, unit: np.ndarray, time: np.ndarray | None) -> Pairing:
        """One of :data:`PAIRINGS`, for groups of these units and times."""
        if name == "any":
            return cls()
        if time is None:
            msg = f"pairing={name!r} needs times: set the model up with time_key=, or pass pairing='any'."
            raise ValueError(msg)
        if name == "forward":
            return cls(time=torch.from_numpy(time))
        order = np.lexsort((time, unit))
        pairs = [
            (i, j)
            for rows in np.split(order, np.flatnonzero(np.diff(unit[order])) + 1)
            for place, i in enumerate(rows)
            for j in rows[place + 1 :]
        ]
        return cls(listed=torch.tensor(pairs, dtype=torch.int64).view(-1, 2))

    def among(self, groups: Tensor) -> Pairing:
        """The same with the listed pairs whose ends are both in ``groups``."""
        if self.listed is None:
            return self
        return Pairing(self.time, self.listed[torch.isin(self.listed, groups).all(1)])

    def within(self, group: Tensor, u: Tensor) -> Tensor:
        """Pairs (n, 2) of positions in ``group``, chosen by ``u`` (groups, 2), uniform numbers."""
        n = len(group)
        if self.listed is not None:
            place = torch.full((int(max(self.listed.max(), group.max())) + 1,), -1)
            place[group] = torch.arange(n)
            pairs = place[self.listed]
            return pairs[(pairs >= 0).all(1)]
        source = torch.arange(n)
        if self.time is None:
            turn = 1 + (u[0, 0] * (n - 1)).long() if n > 1 else 0
            return torch.stack([source, (source + turn) % n], dim=1)
        later = self.time[group][None] > self.time[group][:, None]
        source = source[later.any(1)]
        later = later[source]
        choice = (u[source, 1] * later.sum(1)).long()
        return torch.stack([source, (later.cumsum(1) == choice[:, None] + 1).int().argmax(1)], dim=1)


@dataclass
class PairSampler(GroupSampler):
    """Draws groups and pairs of them; see :class:`GroupSampler`."""

    pairing: Pairing = Pairing()

    def pairs_of(self, step: int) -> tuple[Tensor, Tensor]:
        """Groups of this rank at ``step``, and pairs (n, 2) of positions among them."""
        if self.pairing.listed is not None:
            return self._listed(step)
        group = self.groups_of(step)
        time = self.pairing.time
        if time is not None and len(time[group].unique()) == 1:
            # All have one time: a group of the first and one of the last are added, so that every step has a pair.
            choice = CounterRandom(self.seed, step, self.groups).uniform("split", 1)[:, 0]
            known = time[self.groups]
            ends = [self.groups[(choice + 2.0 * (known != t)).argmin()] for t in (known.min(), known.max())]
            group = torch.cat([group, torch.stack([e for e in ends if e not in group])])
        return group, self.pairing.within(group, CounterRandom(self.seed, step, group).uniform("split", 2))

    def _listed(self, step: int) -> tuple[Tensor, Tensor]:
        listed = self.pairing.listed
        assert listed is not None
        n = min(max(self.world_size, self.batch_size // 2), len(listed))
        turn, place = divmod(step, len(listed) // n)
        keys = CounterRandom(self.seed, turn, torch.arange(len(listed))).uniform("split", 1)[:, 0]
        chosen = listed[keys.argsort(stable=True)[place * n : (place + 1) * n]]
        chosen = chosen[self.rank : len(chosen) - len(chosen) % self.world_size : self.world_size]
        group, pairs = torch.unique(chosen, return_inverse=True)
        return group, pairs
