"""Choosing the mixture that all groups share."""

import pytest
import torch
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_info, threadpool_limits

from scgde.nn._shared_mixture import COMPONENTS, NEGLIGIBLE, PRIOR_MASSES, _first_good, fit_shared_mixture


def fit(groups, n_components=None, seed=0):
    scale = torch.ones(groups[0].shape[1])
    return fit_shared_mixture(groups, feature_scale=scale, n_components=n_components, seed=seed)


def gaussians(n_features, n_groups=20, n_cells=100):
    return [torch.randn(n_cells, n_features) + 0.5 * torch.randn(n_features) for _ in range(n_groups)]


def types(n_features, n_groups=20, n_cells=100):
    """Five types of cells, far apart, in proportions that differ between groups."""
    centres = 6 * torch.randn(5, n_features)
    proportions = torch.distributions.Dirichlet(torch.ones(5)).sample((n_groups,))
    return [
        centres[torch.multinomial(p, n_cells, replacement=True)] + torch.randn(n_cells, n_features) for p in proportions
    ]


@pytest.mark.parametrize("n_features", [2, 8])
@pytest.mark.parametrize("seed", [0, 1])
def test_gaussian_populations_have_one_component_and_types_have_several(n_features, seed):
    torch.manual_seed(seed)
    assert fit(gaussians(n_features, n_cells=400), seed=seed).n_components == 1
    assert 5 <= fit(types(n_features), seed=seed).n_components < max(COMPONENTS)


@pytest.mark.parametrize(
    ("scores", "first"), [([0.0], 0), ([-3, -1.1, 0], 2), ([-0.9, 0, -5], 0), ([-5, -1.1, 0, -1], 2)]
)
def test_what_is_negligible_is_per_feature(scores, first):
    assert _first_good([score * NEGLIGIBLE * 50 for score in scores], n_features=50) == first


def test_components_lie_on_the_types():
    groups = types(8)
    statistics = fit(groups, 5)
    share = statistics.responsibilities(torch.cat(groups))
    assert (share.max(-1).values > 0.99).float().mean() > 0.98
    assert float(statistics.prior_mass) in torch.tensor(PRIOR_MASSES).tolist()
    torch.testing.assert_close(statistics.pooled_weight.sum(), torch.tensor(1.0))


def test_the_number_of_components_can_be_set():
    assert fit(gaussians(2), n_components=3).n_components == 3


def test_one_seed_gives_one_result():
    groups = types(8)
    first, second = fit(groups).state_dict(), fit(groups).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("sizes", [[1, 1], [1, 1, 1, 2], [3, 1, 2], [40, 1]])
@pytest.mark.parametrize("n_features", [2, 8])
def test_very_small_groups(sizes, n_features):
    groups = [torch.randn(n, n_features) for n in sizes]
    statistics = fit(groups)
    assert all(torch.isfinite(value).all() for value in statistics.state_dict().values())
    sums = torch.cat([statistics.sums(x[None], torch.full((1, len(x)), 1 / len(x))) for x in groups])
    own = statistics.mixtures(sums)
    assert all(torch.isfinite(part).all() for part in (own.weight, own.mean, own.root))


@pytest.mark.parametrize("n_features", [2, 8])
def test_a_held_out_outlier_does_not_spoil_the_choice(n_features):
    """Its component has no mass in the cells that the groups' own mixtures are computed from."""
    groups = gaussians(n_features, 8, 60)
    groups[3][-1] = 500.0
    statistics = fit(groups, n_components=4)
    assert statistics.n_components == 4
    assert all(torch.isfinite(value).all() for value in statistics.state_dict().values())


def test_single_gaussians_keep_their_own_covariance():
    """In a large group hardly anything is left of the pooled covariance, or of the spread between groups."""
    torch.manual_seed(0)
    spreads = [0.5, 2.0] * 10
    groups = [5 * torch.randn(2) + spread * torch.randn(60, 2) for spread in spreads]
    statistics = fit(groups, 1)
    sums = torch.cat([statistics.sums(x[None], torch.full((1, len(x)), 1 / len(x))) for x in groups])
    statistics.fit_pooled(sums)
    own = statistics.mixtures(sums).covariance()[:, 0]
    expected = torch.stack([torch.cov(x.T, correction=0) for x in groups])
    pooled = expected.mean(0)
    assert ((own - expected).abs() <= 0.035 * (pooled - expected).abs() + 1e-4).all()


def test_one_thread_fits_whatever_their_number(monkeypatch):
    """k-means adds up in the order in which threads end: with several, the last bits differ from run to run."""
    seen = []
    fit_ = GaussianMixture.fit

    def watched(self, x):
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
        return fit_(self, x)

    monkeypatch.setattr(GaussianMixture, "fit", watched)
    with threadpool_limits(2, user_api="openmp"):
        fit(gaussians(3, n_groups=3, n_cells=20), n_components=1)
    assert set(seen) == {1}
