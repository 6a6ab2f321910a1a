"""Influence functions of embeddings, and the covariances of embeddings that they give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scgde.models._blocks import BATCH_SIZE, GroupedRows
from scgde.models._module import GDEModule
from scgde.nn.encoders import Block
from scgde.nn.encoders._base import Trace
from scgde.nn.encoders._influence import code_influence, mean_derivatives
from scgde.nn.statistics import MixtureStatistics

#: Groups whose derivatives are held at a time.
MAX_GROUPS = 64


class Dispersion(NamedTuple):
    """How embeddings vary when the cells are drawn again.

    Parameters
    ----------
    covariance
        (groups, n_latent, n_latent) covariances, or (groups, n_latent) variances; NaN for groups of one cell.
    n_effective
        (groups,) effective number of cells, ``1 / sum(weight^2)``.
    """

    covariance: np.ndarray
    n_effective: np.ndarray


class Influence:
    """Influence function of the embedding of each of some groups.

    The influence of a cell x on the embedding ``z`` of a group P is the derivative of ``z((1 - e) P + e delta_x)`` in
    e, at 0. Its mean over the group is 0.

    Parameters
    ----------
    module
        A trained module.
    rows
        The cells of the groups.
    x
        (n_cells, features) representation, in the user's units.
    size
        Cells in memory at a time.
    n_leading
        Number of leading entries of the embedding; by default all. The encoder is not run where statistics suffice.
    """

    def __init__(
        self, module: GDEModule, rows: GroupedRows, x: np.ndarray, size: int, n_leading: int | None = None
    ) -> None:
        self.module, self.rows, self.x, self.size = module, rows, x, size
        n_latent = module.n_coordinates + module.encoder.n_code
        self.n_leading = n_latent if n_leading is None else min(n_leading, n_latent)
        self._encodes = self.n_leading > module.n_coordinates
        with torch.no_grad():
            self._sums = torch.zeros(len(rows), *module.statistics.sums_shape, dtype=torch.float64)
            for cells, mass, group in self.blocks():
                self._sums.index_add_(0, group, _weighted_sums(module.statistics, cells, mass))
        self._by_sums = _coordinate_derivatives(module.statistics, self._sums, self.n_leading)
        if self._encodes:
            with torch.no_grad():
                self._trace: Trace = module.encoder.trace(self.blocks, len(rows))
            self._by_mean = mean_derivatives(module.encoder, self._trace, self.blocks)

    def blocks(self) -> Iterator[Block]:
        """One pass over the cells."""
        return self.rows.blocks(self.module, self.x, self.size)

    @torch.no_grad()
    def of(self, x: Tensor, group: Tensor) -> Tensor:
        """Influence of standardised cells (blocks, cells, features) on their groups, (blocks, cells, n_leading)."""
        statistics = self.module.statistics
        shares, monomials = statistics.responsibilities(x), statistics.monomials(x)
        terms = (shares[..., :, None] * monomials[..., None, :]).flatten(-2)
        deviation = terms - self._sums[group].flatten(1).to(x)[:, None]
        coordinates = deviation @ self._by_sums[group].to(x).transpose(1, 2)
        if not self._encodes:
            return coordinates
        code = code_influence(self.module.encoder, self._trace, self._by_mean, x, group)
        return torch.cat([coordinates, self.module.code_scale * code], dim=-1)[..., : self.n_leading]

    def second_moments(self, *, diagonal: bool) -> Tensor:
        """Sum over cells of the squared mass times the outer product of the influence, (groups, …), float64."""
        shape = [self.n_leading] if diagonal else [self.n_leading, self.n_leading]
        total = torch.zeros(len(self.rows), *shape, dtype=torch.float64)
        for x, mass, group in self.blocks():
            if self.rows.counts:
                mass = (mass / torch.from_numpy(self.rows.n_effective)[group, None]).sqrt()
            scaled = mass[..., None] * self.of(x, group).cpu().double()
            total.index_add_(0, group, scaled.square().sum(1) if diagonal else scaled.transpose(1, 2) @ scaled)
        return total


def _weighted_sums(statistics: MixtureStatistics, x: Tensor, mass: Tensor) -> Tensor:
    """Sums that statistics are made of, (blocks, components, monomials), in float64 on the CPU."""
    shared = statistics.responsibilities(x).cpu().double() * mass[..., None]
    return shared.transpose(1, 2) @ statistics.monomials(x.cpu().double())


def _coordinate_derivatives(statistics: MixtureStatistics, sums: Tensor, n_leading: int) -> Tensor:
    """Derivatives of the leading coordinates by the sums, (groups, coordinates, components * monomials)."""
    device = statistics.weight.device
    exact = statistics.cpu() if device.type != "cpu" else statistics
    with torch.enable_grad():
        sums = sums.detach().requires_grad_()
        coordinates = exact.coordinates(exact.mixtures(sums))[:, :n_leading]
        rows = [torch.autograd.grad(each.sum(), sums, retain_graph=True)[0] for each in coordinates.unbind(1)]
    statistics.to(device)
    return torch.stack(rows, dim=1).flatten(2)


def dispersion(
    module: GDEModule,
    x: np.ndarray,
    codes: np.ndarray,
    n_groups: int,
    *,
    weight: np.ndarray | None = None,
    counts: bool = False,
    batch_size: int | None = None,
    diagonal: bool = False,
    n_leading: int | None = None,
) -> Dispersion:
    """Covariance of the embedding of each group, by its influence function.

    With masses w, cells that are drawn independently, and the influence I of each::

        covariance = n / (n - 1) sum_i w_i^2 I_i I_i^T          n = 1 / sum_i w_i^2

    Parameters
    ----------
    module, x, codes, n_groups, weight, batch_size
        As in :func:`scgde.models._inference.encode_groups`.
    counts
        Whether the weights are numbers of equal cells, which were drawn one by one.
    diagonal
        Whether to give variances alone.
    n_leading
        Number of leading entries of the embedding; by default all.

    Notes
    -----
    Source: Hampel (1974); Fishman, Gowri et al. 2025, theorem 2.
    """
    rows = GroupedRows.from_codes(codes, n_groups, weight, counts=counts)
    parts = []
    for start in range(0, n_groups, MAX_GROUPS):
        some = rows.select(start, min(start + MAX_GROUPS, n_groups))
        influence = Influence(module, some, x, batch_size or BATCH_SIZE, n_leading)
        parts.append(influence.second_moments(diagonal=diagonal))
    n_effective = rows.n_effective
    covariance = torch.cat(parts).numpy()
    # One cell says nothing of the spread between cells.
    factor = np.where(n_effective > 1 + 1e-9, n_effective / np.maximum(n_effective - 1, 1e-9), np.nan)
    return Dispersion(covariance * factor.reshape(-1, *[1] * (covariance.ndim - 1)), n_effective)
