"""Features of groups that need no deep model: what any embedding is to be compared with."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from sklearn.kernel_approximation import RBFSampler
from sklearn.metrics.pairwise import euclidean_distances

from scgde.nn._shared_mixture import fit_shared_mixture
from scgde.nn.mixtures import Mixtures
from scgde.nn.statistics import MixtureStatistics
from scgde.prediction._features import Factory, FoldContext, group_codes, group_means

#: Cells whose distances give the bandwidth of the kernel, and number of random Fourier features.
BANDWIDTH_CELLS, N_FOURIER = 1000, 512


class Pseudobulk:
    """Mean of a group's cells."""

    def __init__(self, context: FoldContext) -> None:
        self.context = context

    def fit_transform(self, train: AnnData) -> np.ndarray:
        """Learn what there is to learn from the training cells; features of the training groups."""
        self.fit(train)
        return self.transform(train)

    def fit(self, train: AnnData) -> None:
        """Nothing."""

    def transform(self, adata: AnnData) -> np.ndarray:
        """Features of groups, (n_groups, n_features)."""
        return group_means(adata.X, *group_codes(adata))


class MeanSd(Pseudobulk):
    """Mean and standard deviation of a group's cells."""

    def transform(self, adata: AnnData) -> np.ndarray:
        """Features of groups, (n_groups, 2 n_features)."""
        codes, n_groups = group_codes(adata)
        mean = group_means(adata.X, codes, n_groups)
        variance = group_means(adata.X - mean[codes], codes, n_groups, np.square)
        return np.hstack([mean, np.sqrt(variance)])


class SharedMixture(Pseudobulk):
    """The mixture that all training groups share: log weights of a group and its components' mean shifts.

    Shifts are in standard deviations of the training cells and count by the square root of their component's weight;
    groups' own weights and means are regularised as in a GDE.
    """

    def fit(self, train: AnnData) -> None:
        """Fit the mixture, once for all models of a fold."""
        shared = self.context.shared
        if "mixture" not in shared:
            shared["mixture"] = _fit_mixture(train, self.context.seed)
        self.shift, self.scale, self.statistics = shared["mixture"]

    def mixtures(self, adata: AnnData) -> Mixtures:
        """The groups' own mixtures."""
        codes, n_groups = group_codes(adata)
        return self.statistics.mixtures(_sums(self.statistics, (adata.X - self.shift) / self.scale, codes, n_groups))

    def transform(self, adata: AnnData) -> np.ndarray:
        """Features of groups, (n_groups, n_components (1 + n_features))."""
        own, statistics = self.mixtures(adata), self.statistics
        shift = statistics.pooled_weight.sqrt()[:, None] * (own.mean - statistics.pooled_mean)
        # A component that only one training group has may have no mass at all in the others.
        weight = own.weight.clamp_min(1e-6)
        return torch.cat([weight.log(), shift.flatten(1)], dim=1).numpy()


class Composition(SharedMixture):
    """Share of each cell type in a group: of a column's values in training, else of the shared mixture's components."""

    def fit(self, train: AnnData) -> None:
        """Learn which cell types there are."""
        if self.context.cell_type_key is None:
            super().fit(train)
        else:
            self.types = pd.unique(train.obs[self.context.cell_type_key].astype(object).dropna())

    def transform(self, adata: AnnData) -> np.ndarray:
        """Features of groups, (n_groups, n_types)."""
        if self.context.cell_type_key is None:
            return self.mixtures(adata).weight.numpy()
        types = pd.Index(self.types).get_indexer(adata.obs[self.context.cell_type_key].astype(object))
        return group_means(types[:, None], *group_codes(adata), lambda part: part == np.arange(len(self.types)))


class KernelMean(Pseudobulk):
    """Mean embedding in a Gaussian kernel, by random Fourier features.

    The bandwidth is the median distance between training cells. Source: Rahimi & Recht, "Random features for
    large-scale kernel machines" (2007); Muandet et al., "Kernel mean embedding of distributions" (2017).
    """

    def fit(self, train: AnnData) -> None:
        """Set the bandwidth and draw the features."""
        rng = np.random.default_rng(self.context.seed)
        cells = train.X[rng.permutation(train.n_obs)[:BANDWIDTH_CELLS]].astype(np.float64)
        distances = euclidean_distances(cells, squared=True)[np.triu_indices(len(cells), 1)]
        gamma = 1 / (2 * max(float(np.median(distances)), 1e-12))
        self.sampler = RBFSampler(gamma=gamma, n_components=N_FOURIER, random_state=self.context.seed)
        self.sampler.fit(cells)

    def transform(self, adata: AnnData) -> np.ndarray:
        """Features of groups, (n_groups, N_FOURIER)."""
        return group_means(adata.X, *group_codes(adata), self.sampler.transform)


class Majority(Pseudobulk):
    """No information: the head predicts the classes' frequencies in training, or the mean."""

    def transform(self, adata: AnnData) -> np.ndarray:
        """Zeros, (n_groups, 1)."""
        return np.zeros((group_codes(adata)[1], 1))


class Permuted(Pseudobulk):
    """Pseudobulk, with labels permuted among the labelled training groups: what chance gives with this pipeline."""

    permute_labels = True


#: Baselines by name. Every entry is found by the contract tests.
BASELINES: dict[str, Factory] = {
    "pseudobulk": Pseudobulk,
    "mean_sd": MeanSd,
    "composition": Composition,
    "mixture": SharedMixture,
    "kernel_mean": KernelMean,
    "majority": Majority,
    "permuted": Permuted,
}

#: Baselines that run whether they are asked for or not.
ALWAYS = ("majority", "permuted")


def _fit_mixture(train: AnnData, seed: int) -> tuple[np.ndarray, np.ndarray, MixtureStatistics]:
    """Location and scale of the training cells, and the statistics of the mixture fitted to them."""
    codes, n_groups = group_codes(train)
    shift, scale = train.X.mean(axis=0), train.X.std(axis=0)
    # A constant feature has no scale of its own.
    scale = np.maximum(scale, max(1e-3 * float(np.sqrt(np.square(scale).mean())), 1e-9))
    x = (train.X - shift) / scale
    order = np.random.default_rng(seed).permutation(len(x))
    order = order[np.argsort(codes[order], kind="stable")]
    groups = [torch.from_numpy(cells) for cells in np.split(x[order], np.cumsum(np.bincount(codes))[:-1])]
    statistics = fit_shared_mixture(groups, feature_scale=torch.from_numpy(scale), n_components=None, seed=seed)
    statistics.fit_pooled(_sums(statistics, x, codes, n_groups))
    return shift, scale, statistics


def _sums(statistics: MixtureStatistics, x: np.ndarray, codes: np.ndarray, n_groups: int) -> torch.Tensor:
    """What all statistics are made of, (n_groups, n_sums)."""

    def function(part: np.ndarray) -> np.ndarray:
        return statistics.terms(torch.from_numpy(part.astype(np.float32))).numpy()

    return torch.from_numpy(group_means(x, codes, n_groups, function).astype(np.float32))
