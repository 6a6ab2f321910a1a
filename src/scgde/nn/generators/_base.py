"""What every generator is: a conditional distribution of cells given an embedding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from scgde.nn._random import CounterRandom
from scgde.nn.mixtures import Mixtures


@dataclass(frozen=True)
class Condition:
    """What a generator knows of a group besides its embedding.

    Parameters
    ----------
    mixtures
        The group's statistics: measured on its cells, or read back from the embedding.
    measured
        (groups,) 1 where they were measured, 0 where they were read back.
    batch
        (groups, cells) batch code of each cell, where the model knows batches.
    trust
        (groups,) weight outside of training of what was learned, from 0 (the statistics alone) to 1; None is 1.
    """

    mixtures: Mixtures
    measured: Tensor
    batch: Tensor | None = None
    trust: Tensor | None = None

    def __getitem__(self, index: Tensor) -> Condition:
        """The condition of the groups at ``index``."""
        batch, trust = (None if value is None else value[index] for value in (self.batch, self.trust))
        return Condition(self.mixtures[index], self.measured[index], batch, trust)

    @cached_property
    def trusted(self) -> bool:
        """Whether what was learned counts in any group."""
        return self.trust is None or bool(self.trust.any())


class Generator(nn.Module):
    """Base of all generators. Everything is in standardised features; ``z`` is the embedding in units of its spread.

    Parameters
    ----------
    n_features
        Number of features of a cell.
    n_latent
        Size of the embedding.
    n_batch
        Number of batches; 0 where cells have none.
    """

    #: Whether cells are counts: non-negative integers in the units of the representation.
    counts = False

    #: Steps to a cell, or None where there are no steps to choose: one evaluation of the network.
    n_steps: int | None = None

    #: Whether :meth:`encode` and :meth:`decode` exist: then any group can be transported to any other.
    invertible = False

    def __init__(self, n_features: int, n_latent: int, n_batch: int = 0) -> None:
        super().__init__()
        self.n_features, self.n_latent, self.n_batch = n_features, n_latent, n_batch

    def fit(self, shift: Tensor, scale: Tensor) -> None:
        """Set what depends on the units: a standardised feature is (x - shift) / scale. Before training."""

    def loss(self, x: Tensor, weight: Tensor, z: Tensor, condition: Condition, random: CounterRandom) -> Tensor:
        """Training loss of each group, (groups,).

        Parameters
        ----------
        x
            (groups, cells, features) cells to score.
        weight
            (groups, cells), sums to 1 in each group.
        z
            (groups, n_latent).
        condition
            The groups' statistics and the cells' batches.
        random
            Source of noise and times.
        """
        raise NotImplementedError

    def sample(
        self, z: Tensor, n: int, condition: Condition, random: CounterRandom, *, n_steps: int | None = None
    ) -> Tensor:
        """Draw ``n`` cells of each group, (groups, n, features).

        Parameters
        ----------
        z
            (groups, n_latent).
        n
            Cells per group.
        condition
            The groups' statistics and the cells' batches.
        random
            Source of noise.
        n_steps
            Steps, where the generator takes any; None is :attr:`n_steps`.
        """
        raise NotImplementedError


class InvertibleGenerator(Generator):
    """A generator that maps cells to noise codes and back, one to one, given the group."""

    invertible = True

    def encode(self, x: Tensor, z: Tensor, condition: Condition) -> Tensor:
        """Noise codes of cells, in the shape of ``x``: standard normal where the model fits."""
        raise NotImplementedError

    def decode(self, noise: Tensor, z: Tensor, condition: Condition, *, n_steps: int | None = None) -> Tensor:
        """Cells of noise codes, the inverse of :meth:`encode`."""
        raise NotImplementedError

    def sample(
        self, z: Tensor, n: int, condition: Condition, random: CounterRandom, *, n_steps: int | None = None
    ) -> Tensor:
        noise = random.normal("noise", n * self.n_features).view(len(z), n, self.n_features)
        with torch.no_grad():
            return self.decode(noise, z, condition, n_steps=n_steps)
