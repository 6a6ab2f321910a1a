"""Influence functions of embeddings, and the covariances of embeddings that they give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scgde.data._rows import CellRows
from scgde.models._blocks import BATCH_SIZE, GroupedRows
from scgde.models._module import GDEModule
from scgde.nn.encoders import Block
from scgde.nn.encoders._base import Trace
from scgde.nn.encoders._influence import code_influence, mean_derivatives
from scgde.nn.statistics import MixtureStatistics

#: All entries of an embedding.
ALL = slice(None)

#: What skewness and kurtosis count in regions. By theory 1 and nothing, of the population; few cells show less of its
#: skewness, and not the small variances: both chosen for the coverage of 5 entries at 100 and 1,000 cells in simulated
#: populations (seed 9100) and, kurtosis, in draws from COVID cells.
SKEWNESS, KURTOSIS = 4.0, 0.5

#: Entries of the largest region: the skewness of p entries has p^3 numbers.
MAX_REGION = 16

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
    df
        (groups, n_latent) degrees of freedom of the variances, where they were asked for.
    joint_df
        (groups,) degrees of freedom of the covariance matrices; NaN where the cells are not more than the entries.
    inflation
        (groups,) factor of the covariance matrices in regions around single groups, at least 1; NaN for more than
        :data:`MAX_REGION` entries.
    """

    covariance: np.ndarray
    n_effective: np.ndarray
    df: np.ndarray | None = None
    joint_df: np.ndarray | None = None
    inflation: np.ndarray | None = None

    def select(self, index: np.ndarray) -> Dispersion:
        """The groups at ``index``."""
        degrees = (self.df, self.joint_df, self.inflation)
        chosen = (None if each is None else each[index] for each in degrees)
        return Dispersion(self.covariance[index], self.n_effective[index], *chosen)


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
    entries
        Which entries of the embedding; by default all. The encoder is not run where statistics suffice.
    directions
        (groups, outputs, n_latent): linear functions of the embedding, each group with its own, in place of entries. A
        few of them take much less time than all entries.
    """

    def __init__(
        self,
        module: GDEModule,
        rows: GroupedRows,
        x: CellRows,
        size: int,
        entries: slice = ALL,
        directions: Tensor | None = None,
    ) -> None:
        self.module, self.rows, self.x, self.size = module, rows, x, size
        n_latent, n_coordinates = module.n_coordinates + module.encoder.n_code, module.n_coordinates
        self.entries = range(n_latent)[entries] if directions is None else range(directions.shape[1])
        self._encodes = directions is not None or self.entries.stop > n_coordinates
        self._summed = directions is not None
        of_code = None if directions is None else directions[..., n_coordinates:]
        if directions is None:
            n_leading = min(self.entries.stop, n_coordinates)
            directions = torch.eye(n_leading, n_coordinates, dtype=torch.float64).expand(len(rows), -1, -1)
        with torch.no_grad():
            self._sums = torch.zeros(len(rows), module.statistics.n_sums, dtype=torch.float64)
            for cells, mass, group in self.blocks():
                self._sums.index_add_(0, group, module.statistics.sums(cells, mass))
        self._by_sums = _coordinate_derivatives(module.statistics, self._sums, directions[..., :n_coordinates])
        if self._encodes:
            with torch.no_grad():
                self._trace: Trace = module.encoder.trace(self.blocks, len(rows))
            self._by_mean = mean_derivatives(module.encoder, self._trace, self.blocks, of_code)

    def blocks(self) -> Iterator[Block]:
        """One pass over the cells."""
        return self.rows.blocks(self.module, self.x, self.size)

    @torch.no_grad()
    def of(self, x: Tensor, group: Tensor) -> Tensor:
        """Influence of standardised cells (blocks, cells, features) on their groups, (blocks, cells, entries)."""
        deviation = self.module.statistics.terms(x) - self._sums[group].to(x)[:, None]
        coordinates = deviation @ self._by_sums[group].to(x).transpose(1, 2)
        if not self._encodes:
            return coordinates[..., self.entries.start :]
        code = self.module.code_scale * code_influence(self.module.encoder, self._trace, self._by_mean, x, group)
        if self._summed:
            return coordinates + code
        return torch.cat([coordinates, code], dim=-1)[..., self.entries.start : self.entries.stop]

    def _parts(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Contributions of cells to the error (blocks, cells, entries), how many cells they stand for, and groups."""
        for x, mass, group in self.blocks():
            own = self.of(x, group).cpu().double()
            if self.rows.counts:
                n = torch.from_numpy(self.rows.n_effective)[group]
                yield own / n[:, None, None], mass * n[:, None], group
            else:
                yield mass[..., None] * own, (mass > 0).double(), group

    def second_moments(self, *, diagonal: bool) -> Tensor:
        """Sums over the cells of the outer products of their contributions, (groups, …), float64."""
        shape = [len(self.entries)] * (1 if diagonal else 2)
        total = torch.zeros(len(self.rows), *shape, dtype=torch.float64)
        for part, count, group in self._parts():
            scaled = count.sqrt()[..., None] * part
            total.index_add_(0, group, scaled.square().sum(1) if diagonal else scaled.transpose(1, 2) @ scaled)
        return total

    def degrees_of_freedom(self, moments: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Degrees of freedom of each variance (groups, entries) and of the matrix (groups,), and its inflation.

        A variance that rests on a few cells is known as badly as from a few cells. With the share q of a cell in it,
        the sum of the squares of the shares tells how badly (Satterthwaite); for normal influences it gives n - 1.

        A group that misses rare cells errs and underrates its error at once. For one variance shares are therefore
        raised to those of a leave-one-out variance, q / (1 - q). For a matrix the error and its estimate depend on each
        other by the skewness: with whitened influences u of n cells, and to the order of 1 / n, the expectation of
        T^2 / p is that under normality plus ::

            (sum_ijk S_ijk^2 + sum_j (sum_i S_iij)^2) / (n p)          S_ijk = E u_i u_j u_k

        while kurtosis cancels. In a difference of like groups skewness cancels as well, so it counts there not at all.

        Parameters
        ----------
        moments
            As :meth:`second_moments` gives them, with the matrix.
        """
        variance = torch.einsum("gii->gi", moments).clamp_min(1e-300)
        values, vectors = torch.linalg.eigh(moments)
        used = values > 1e-10 * values[:, -1:]
        whiten = vectors * torch.where(used, values.clamp_min(1e-300).rsqrt(), 0.0)[:, None]
        rank, p = used.sum(1), len(self.entries)
        squares, matrix = torch.zeros_like(variance), torch.zeros(len(variance), dtype=torch.float64)
        third = torch.zeros(len(variance), *[p] * 3, dtype=torch.float64) if p <= MAX_REGION else None
        for part, count, group in self._parts():
            share = (part.square() / variance[group, None]).clamp_max(0.999)
            squares.index_add_(0, group, (count[..., None] * (share / (1 - share)).square()).sum(1))
            white = part @ whiten[group]
            matrix.index_add_(0, group, (count * white.square().sum(-1).square()).sum(1))
            if third is not None:
                pairs = (count[..., None, None] * white[..., :, None] * white[..., None, :]).flatten(2)
                third.index_add_(0, group, (pairs.transpose(1, 2) @ white).unflatten(1, (p, p)))
        n, rank = torch.from_numpy(self.rows.n_effective), rank.double()
        each = 2 / (squares - 1 / n[:, None]).clamp_min(1e-9)
        joint = 2 * rank / (KURTOSIS * (matrix - rank.square() / n)).clamp_min(1e-9)
        # Below p + 1/2 the F distribution has hardly a quantile: nothing is ever rejected there.
        joint = torch.where(n - 1 > rank + 0.5, torch.minimum(torch.maximum(joint, rank + 0.5), n - 1), torch.nan)
        inflation = torch.full_like(joint, torch.nan)
        if third is not None:
            skewness = third.square().sum((1, 2, 3)) + torch.einsum("giij->gj", third).square().sum(1)
            inflation = 1 + SKEWNESS * skewness / rank.clamp_min(1)
        each = torch.minimum(each, n[:, None] - 1).clamp_min(1)
        return each.numpy(), joint.numpy(), inflation.numpy()


def _coordinate_derivatives(statistics: MixtureStatistics, sums: Tensor, directions: Tensor) -> Tensor:
    """Derivatives by the sums of linear functions (groups, outputs, n_coordinates), (groups, outputs, n_sums)."""
    device = statistics.weight.device
    exact = statistics.cpu() if device.type != "cpu" else statistics
    with torch.enable_grad():
        sums = sums.detach().requires_grad_()
        coordinates = exact.coordinates(exact.mixtures(sums))
        rows = [
            torch.autograd.grad(coordinates, sums, each.to(coordinates), retain_graph=True)[0]
            for each in directions.unbind(1)
        ]
    statistics.to(device)
    return torch.stack(rows, dim=1)


def dispersion(
    module: GDEModule,
    x: CellRows,
    codes: np.ndarray,
    n_groups: int,
    *,
    weight: np.ndarray | None = None,
    cells: np.ndarray | None = None,
    counts: bool = False,
    batch_size: int | None = None,
    diagonal: bool = False,
    entries: slice = ALL,
    directions: np.ndarray | None = None,
    degrees: bool = False,
) -> Dispersion:
    """Covariance of the embedding of each group, by its influence function.

    With masses w, cells that are drawn independently, and the influence I of each::

        covariance = n / (n - 1) sum_i w_i^2 I_i I_i^T          n = 1 / sum_i w_i^2

    Parameters
    ----------
    module, x, codes, n_groups, weight, cells, batch_size
        As in :func:`scgde.models._inference.encode_groups`.
    counts
        Whether the weights are numbers of equal cells, which were drawn one by one.
    diagonal
        Whether to give variances alone.
    entries
        Which entries of the embedding; by default all.
    directions
        (groups, outputs, n_latent) linear functions of the embedding to take in place of its entries.
    degrees
        Whether to give degrees of freedom and inflation too, in one more pass over the cells; not with ``diagonal``.

    Notes
    -----
    Source: Hampel (1974); Fishman, Gowri et al. 2025, theorem 2. The expectation of Hotelling's statistic follows from
    an expansion of the inverse covariance; of one entry: Hall, "The bootstrap and Edgeworth expansion" (1992).
    """
    rows = GroupedRows.from_codes(codes, n_groups, weight, counts=counts, cells=cells)
    parts, dfs = [], []
    for start in range(0, n_groups, MAX_GROUPS):
        stop = min(start + MAX_GROUPS, n_groups)
        some = None if directions is None else torch.from_numpy(directions[start:stop])
        influence = Influence(module, rows.select(start, stop), x, batch_size or BATCH_SIZE, entries, some)
        parts.append(influence.second_moments(diagonal=diagonal))
        if degrees:
            dfs.append(influence.degrees_of_freedom(parts[-1]))
    n_effective = rows.n_effective
    covariance = torch.cat(parts).numpy()
    # One cell says nothing of the spread between cells.
    factor = np.where(n_effective > 1 + 1e-9, n_effective / np.maximum(n_effective - 1, 1e-9), np.nan)
    covariance = covariance * factor.reshape(-1, *[1] * (covariance.ndim - 1))
    return Dispersion(covariance, n_effective, *(np.concatenate(each) for each in zip(*dfs, strict=True)))
