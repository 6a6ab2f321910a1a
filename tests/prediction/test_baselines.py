"""Features of every baseline: shapes, invariances, and closed forms."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.metrics.pairwise import rbf_kernel

from scgde.prediction import BASELINES, FoldContext
from scgde.prediction._features import FOLD_GROUP

WITH_TYPES = [(name, key) for name in BASELINES for key in (None, "cell_type")]


def context(cell_type_key=None):
    return FoldContext(FOLD_GROUP, "disease", "categorical", cell_type_key, seed=0)


def fold(adata):
    """An AnnData as a fold has it: groups by number."""
    adata = adata.copy()
    adata.obs[FOLD_GROUP] = adata.obs["donor"].cat.codes.to_numpy()
    return adata


@pytest.fixture(scope="module")
def train(make_cohort):
    return fold(make_cohort(8, 60))


@pytest.fixture(scope="module")
def new(make_cohort):
    return fold(make_cohort(5, 30, seed=1))


@pytest.mark.parametrize(("name", "key"), WITH_TYPES)
def test_contract(name, key, train, new):
    model = BASELINES[name](context(key))
    x, z = model.fit_transform(train), model.transform(new)
    assert x.shape == (8, x.shape[1])
    assert z.shape == (5, x.shape[1])
    assert np.isfinite(x).all()
    np.testing.assert_allclose(model.transform(train), x, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "key"), WITH_TYPES)
def test_features_are_those_of_a_distribution(name, key, train, new):
    model = BASELINES[name](context(key))
    model.fit_transform(train)
    z = model.transform(new)
    rows = np.random.default_rng(0).permutation(np.tile(np.arange(new.n_obs), 2))
    twice = AnnData(new.X[rows], obs=new.obs.iloc[rows].reset_index(drop=True).rename(str))
    np.testing.assert_allclose(model.transform(twice), z, rtol=1e-5, atol=1e-5)
    alone = new[new.obs[FOLD_GROUP] == 3].copy()
    np.testing.assert_allclose(model.transform(alone)[0], z[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_one_seed_gives_one_result(name, train):
    x, again = (BASELINES[name](context()).fit_transform(train) for _ in range(2))
    np.testing.assert_array_equal(x, again)


def test_moments_and_proportions_are_those_of_pandas(train):
    cells = train.to_df().astype(float).groupby(train.obs[FOLD_GROUP])
    pseudobulk, mean_sd, composition = (
        BASELINES[name](context("cell_type")).fit_transform(train) for name in ("pseudobulk", "mean_sd", "composition")
    )
    np.testing.assert_allclose(pseudobulk, cells.mean(), atol=1e-6)
    np.testing.assert_allclose(mean_sd, np.hstack([cells.mean(), cells.std(ddof=0)]), atol=1e-6)
    shares = pd.crosstab(train.obs[FOLD_GROUP], train.obs["cell_type"], normalize="index")
    np.testing.assert_allclose(np.sort(composition), np.sort(shares), atol=1e-12)


def test_types_that_training_lacks_are_not_counted(train, new):
    model = BASELINES["composition"](context("cell_type"))
    model.fit_transform(train)
    new = new.copy()
    new.obs["cell_type"] = np.where(new.obs[FOLD_GROUP] == 2, "unheard of", "T")
    np.testing.assert_allclose(model.transform(new).sum(axis=1), [1, 1, 0, 1, 1])


def test_kernel_means_have_the_distance_of_the_kernel(train):
    model = BASELINES["kernel_mean"](context())
    z = model.fit_transform(train)
    a, b = (train.X[train.obs[FOLD_GROUP] == g] for g in (0, 1))
    gamma = model.sampler.gamma
    exact = rbf_kernel(a, a, gamma).mean() + rbf_kernel(b, b, gamma).mean() - 2 * rbf_kernel(a, b, gamma).mean()
    # 512 features of a kernel of at most 1: an error of the order of 1/sqrt(512) = 0.04 times the distance.
    assert np.square(z[0] - z[1]).sum() == pytest.approx(exact, rel=0.2)


def test_median_heuristic(train):
    model = BASELINES["kernel_mean"](context())
    model.fit_transform(train)
    distances = np.sqrt(np.square(train.X[:, None] - train.X).sum(-1))[np.triu_indices(train.n_obs, 1)]
    assert 1 / np.sqrt(2 * model.sampler.gamma) == pytest.approx(np.median(distances), rel=1e-4)


def test_mixture_finds_proportions_and_shifts():
    rng = np.random.default_rng(0)
    share = np.array([0.2, 0.4, 0.6, 0.8])[np.repeat(np.arange(4), 400)]
    kind = rng.random(1600) < share
    x = rng.normal(size=(1600, 2)) + 12 * kind[:, None]
    obs = pd.DataFrame({FOLD_GROUP: np.repeat(np.arange(4), 400)}, index=[f"c{i}" for i in range(1600)])
    adata = AnnData(x.astype(np.float32), obs=obs)
    model = BASELINES["composition"](context())
    weight = model.fit_transform(adata)
    far = [k for k in range(weight.shape[1]) if np.corrcoef(weight[:, k], [0.2, 0.4, 0.6, 0.8])[0, 1] > 0.8]
    true = kind.reshape(4, 400).mean(axis=1)
    prior = float(model.statistics.prior_mass)  # weights are drawn to the mean of the groups by a constant
    np.testing.assert_allclose(weight[:, far].sum(axis=1), (true + prior * true.mean()) / (1 + prior), atol=0.01)
    features = BASELINES["mixture"](context()).fit_transform(adata)
    np.testing.assert_allclose(np.exp(features[:, : weight.shape[1]]).sum(axis=1), 1, atol=1e-5)
