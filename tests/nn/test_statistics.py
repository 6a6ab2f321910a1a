"""Closed-form statistics of a group, their coordinates, and the way back."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from scgde.nn.mixtures import Mixtures, positive_part, symmetric_root
from scgde.nn.statistics import WHOLE_SCALE, MixtureStatistics

F64 = torch.float64
FULL, DIAGONAL = 3, 8
both_kinds = pytest.mark.parametrize("n_features", [FULL, DIAGONAL], ids=["full", "diagonal"])


def covariance_of(root):
    """Squared root, as covariance matrices in both kinds."""
    return root @ root if root.shape[-1] == FULL else torch.diag_embed(root.square())


@pytest.fixture
def fitted(make_mixtures):
    """Statistics on a shared mixture, and the groups (24, 40 cells) that they were fitted on, in float64."""

    def make(n_features, n_components=3, max_coordinates=1000):
        shared = make_mixtures(1, n_components, n_features, dtype=F64)
        statistics = MixtureStatistics(n_features, n_components).double()
        statistics.weight.copy_(shared.weight[0])
        statistics.mean.copy_(shared.mean[0])
        statistics.root.copy_(shared.root[0])
        statistics.feature_scale.copy_(torch.rand(n_features) + 0.5)
        own = make_mixtures(24, n_components, n_features, spread=0.3, dtype=F64)
        component = torch.multinomial(own.weight, 40, replacement=True)
        group = torch.arange(24)[:, None]
        root = own.root[group, component]
        noise = torch.randn(24, 40, n_features, dtype=F64)
        noise = (root @ noise[..., None])[..., 0] if statistics.full else root * noise
        x = shared.mean[0][component] + own.mean[group, component] + noise
        statistics.fit_pooled(sums_of(statistics, x))
        statistics.fit_basis(statistics.mixtures(sums_of(statistics, x)), max_coordinates)
        return statistics.double(), x

    return make


def sums_of(statistics, x):
    return statistics.sums(x, x.new_full(x.shape[:2], 1 / x.shape[1]))


def close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance, check_dtype=False)


@both_kinds
def test_responsibilities_and_log_density_are_those_of_the_mixture(fitted, n_features):
    statistics, x = fitted(n_features)
    covariances = covariance_of(statistics.root).numpy()
    density = np.stack(
        [
            float(w) * scipy.stats.multivariate_normal(m.numpy(), c).pdf(x.numpy())
            for w, m, c in zip(statistics.weight, statistics.mean, covariances, strict=True)
        ],
        axis=-1,
    )
    shared = Mixtures(statistics.weight[None], statistics.mean[None], statistics.root[None])
    close(shared.log_prob(x), torch.from_numpy(np.log(density.sum(-1))))
    close(statistics.responsibilities(x), torch.from_numpy(density / density.sum(-1, keepdims=True)))


@both_kinds
def test_sums_add_up_over_parts(fitted, n_features):
    statistics, x = fitted(n_features)
    weight = torch.rand(24, 40, dtype=F64)
    parts = statistics.sums(x[:, :13], weight[:, :13]) + statistics.sums(x[:, 13:], weight[:, 13:])
    whole = statistics.sums(x, weight)
    assert whole.shape[1:] == (statistics.n_sums,)
    close(parts, whole)
    close(torch.einsum("gn,gns->gs", weight, statistics.terms(x)), whole)
    sizes = [40] * 23 + [13, 27]
    ragged = statistics.sums_of_parts(x.flatten(0, 1), weight.flatten(), sizes)
    close(ragged, torch.cat([whole[:-1], statistics.sums(x[-1:, :13], weight[-1:, :13]), whole[-1:] - ragged[-2]]))
    moments = whole[:, : statistics.n_sums - statistics.n_pairs].unflatten(1, (3, -1)).sum(1)
    close(moments[:, 0], weight.sum(1))
    close(moments[:, 1 : 1 + n_features], (weight[..., None] * x).sum(1))


@both_kinds
def test_mixtures_follow_the_documented_formula(fitted, n_features):
    """By explicit loops over groups, components and cells."""
    statistics, x = fitted(n_features)
    own = statistics.mixtures(sums_of(statistics, x))
    c, share = float(statistics.prior_mass), statistics.responsibilities(x)
    pooled_within = statistics.pooled_within if statistics.full else torch.diag_embed(statistics.pooled_within)
    for g in (0, 7):
        mass = [share[g, :, k].mean() for k in range(3)]
        mean = [(share[g, :, k, None] * x[g]).mean(0) / mass[k] for k in range(3)]
        shift = sum(mass[k] * (mean[k] - statistics.pooled_mean[k]) for k in range(3))
        for k in range(3):
            pooled = statistics.pooled_mean[k]
            close(own.weight[g, k], (mass[k] + c * statistics.pooled_weight[k]) / (1 + c))
            expected = pooled + shift + mass[k] / (mass[k] + c) * (mean[k] - pooled - shift)
            close(own.mean[g, k], expected)
            second = sum(share[g, i, k] * torch.outer(x[g, i] - expected, x[g, i] - expected) for i in range(40)) / 40
            covariance = (second + c * pooled_within[k]) / (mass[k] + c)
            if not statistics.full:
                covariance = torch.diag(covariance.diagonal())
            close(covariance_of(own.root[g, k]), covariance, 1e-6)


@both_kinds
def test_one_component_gives_the_mean_exactly_and_the_covariance_shrunk_by_a_constant(n_features):
    statistics = MixtureStatistics(n_features, 1).double()
    x = torch.randn(6, 30, n_features, dtype=F64) + torch.randn(6, 1, n_features, dtype=F64)
    statistics.fit_pooled(sums_of(statistics, x))
    own = statistics.mixtures(sums_of(statistics, x))
    close(own.mean[:, 0], x.mean(1))
    close(own.weight, torch.ones(6, 1))
    covariance = torch.stack([torch.cov(cells.T, correction=0) for cells in x])
    within = 0.9 * covariance.mean(0) + 0.1 * torch.eye(n_features)
    c = float(statistics.prior_mass)
    expected = (covariance + c * within) / (1 + c)
    if not statistics.full:
        expected = torch.diag_embed(expected.diagonal(dim1=-2, dim2=-1))
    close(covariance_of(own.root[:, 0]), expected)


@both_kinds
def test_predictive_gaussians_scatter_as_cells_that_were_left_out(n_features):
    """5,000 samples of 25 cells, 25 others each: in units of the predictive covariance these have variance 1.

    The mean over 5,000 samples has a standard error below .003.
    """
    statistics = MixtureStatistics(n_features, 1).double()
    statistics.prior_mass.fill_(1e-12)
    x, others = torch.randn(2, 5000, 25, n_features, dtype=F64)
    sums = statistics.sums(x, torch.ones(5000, 25, dtype=F64))
    own = statistics.mixtures(sums)
    predictive = statistics.predictive(own, sums)
    close(predictive.mean, own.mean)
    squares = []
    for mixtures in (own, predictive):
        root = mixtures.root[:, 0]
        inverse = root.inverse() if statistics.full else torch.diag_embed(root.reciprocal())
        squares.append((((others - mixtures.mean) @ inverse).square().mean()).item())
    assert squares[0] > 1.15
    assert squares[1] == pytest.approx(1, abs=0.02)


@both_kinds
@pytest.mark.parametrize(("n_components", "n_cells"), [(1, 10_000_000), (3, 5)])
def test_large_groups_and_mixtures_have_nothing_to_widen(fitted, n_features, n_components, n_cells):
    statistics, x = fitted(n_features, n_components)
    sums = n_cells * sums_of(statistics, x)
    own = statistics.mixtures(sums)
    close(statistics.predictive(own, sums).root, own.root, 1e-5)


@both_kinds
def test_the_pooled_population_has_the_pooled_weights_and_means(fitted, n_features):
    statistics, x = fitted(n_features)
    pooled = statistics.mixtures(sums_of(statistics, x).mean(0, keepdim=True))
    close(pooled.weight[0], statistics.pooled_weight)
    close(pooled.mean[0], statistics.pooled_mean)


@both_kinds
def test_statistics_are_a_function_of_the_weighted_measure(fitted, n_features):
    statistics, x = fitted(n_features)
    counts = torch.randint(0, 4, (40,))
    repeated = x.repeat_interleave(counts, dim=1)[:, torch.randperm(int(counts.sum()))]
    a = statistics.coordinates(statistics.mixtures(sums_of(statistics, repeated)))
    b = statistics.coordinates(statistics.mixtures(statistics.sums(x, counts.double().expand(24, -1))))
    close(a, b, 1e-8)


@both_kinds
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_groups_of_one_cell_are_finite_and_weights_sum_to_one(fitted, n_features, dtype, device):
    if device.type == "mps" and dtype == F64:
        pytest.skip("no float64 there")
    statistics, x = fitted(n_features)
    statistics, x = statistics.float().to(device), x.to(device, dtype)
    for cells in (x, x[:, :1], x[:, :1] + 30):
        own = statistics.mixtures(sums_of(statistics.to(dtype), cells))
        back = statistics.read_back(statistics.coordinates(own))
        for mixtures in (own, back):
            assert mixtures.weight.dtype == dtype
            assert all(torch.isfinite(part).all() for part in (mixtures.weight, mixtures.mean, mixtures.root))
            torch.testing.assert_close(mixtures.weight.sum(1), torch.ones_like(mixtures.weight[:, 0]))
            assert torch.isfinite(mixtures.log_prob(cells)).all()


@both_kinds
def test_double_sums_give_double_statistics_with_single_buffers(fitted, n_features):
    statistics, x = fitted(n_features)
    expected = statistics.coordinates(statistics.mixtures(sums_of(statistics, x)))
    sums = sums_of(statistics, x)
    statistics.float()
    coordinates = statistics.coordinates(statistics.mixtures(sums))
    assert coordinates.dtype == F64
    close(coordinates, expected, 1e-4)


@both_kinds
def test_an_unused_component_stays_finite(n_features):
    """A component that no training cell belongs to falls back on the shared mixture."""
    statistics = MixtureStatistics(n_features, 2)
    statistics.mean[1] = 1000.0
    x = torch.randn(5, 20, n_features)
    statistics.fit_pooled(sums_of(statistics, x))
    assert float(statistics.pooled_weight[1]) == 0
    close(statistics.pooled_mean[1], statistics.mean[1])
    own = statistics.mixtures(sums_of(statistics, x))
    assert torch.isfinite(own.log_prob(x)).all()
    statistics.fit_basis(own, 10)
    assert torch.isfinite(statistics.coordinates(own)).all()


# --- coordinates -----------------------------------------------------------------------------------------------------


@both_kinds
def test_devectorize_undoes_vectorize(fitted, n_features):
    statistics, x = fitted(n_features)
    own = statistics.mixtures(sums_of(statistics, x))
    back = statistics.devectorize(statistics.vectorize(own))
    for a, b in zip((own.weight, own.mean, own.root), (back.weight, back.mean, back.root), strict=True):
        close(a, b, 1e-6)


@both_kinds
def test_coordinates_of_full_rank_read_back_to_the_same_mixtures(fitted, n_features):
    statistics, x = fitted(n_features)
    # As many groups as it takes for their statistics to span everything.
    x = torch.cat([x + 0.3 * torch.randn(1, *x.shape[1:], dtype=F64) for _ in range(12)])
    own = statistics.mixtures(sums_of(statistics, x))
    statistics.fit_basis(own, 1000)
    statistics.double()
    close(statistics.basis @ statistics.basis.T, torch.eye(len(statistics.basis)), 1e-5)
    back = statistics.read_back(statistics.coordinates(own))
    for a, b in zip((own.weight, own.mean, own.root), (back.weight, back.mean, back.root), strict=True):
        close(a, b, 2e-3)


@both_kinds
def test_distance_between_single_gaussians_is_the_wasserstein_distance(n_features):
    """Exactly, where covariances commute: |m1 - m2|^2 + |C1^(1/2) - C2^(1/2)|^2, the Bures distance."""
    statistics = MixtureStatistics(n_features, 1).double()
    statistics.feature_scale.copy_(torch.full((n_features,), 1.7))
    mean, sd = torch.randn(2, n_features, dtype=F64), torch.rand(2, n_features, dtype=F64) + 0.3
    axes = torch.linalg.qr(torch.randn(n_features, n_features, dtype=F64)).Q
    root = (axes * sd[:, None]) @ axes.T if statistics.full else sd
    vector = statistics.vectorize(Mixtures(torch.ones(2, 1, dtype=F64), mean[:, None], root[:, None]))
    covariance = [1.7**2 * covariance_of(r) for r in root]
    half = symmetric_root(covariance[0])
    cross = symmetric_root(half @ covariance[1] @ half)
    expected = (1.7 * (mean[0] - mean[1])).square().sum() + (covariance[0] + covariance[1] - 2 * cross).trace()
    close((vector[0] - vector[1]).square().sum(), expected, 1e-6)


@both_kinds
def test_units_of_the_standardised_features_do_not_matter(fitted, n_features):
    statistics, x = fitted(n_features)
    own = statistics.mixtures(sums_of(statistics, x))
    factor = torch.rand(n_features, dtype=F64) + 0.5
    square = factor[:, None] * factor if statistics.full else factor.square()
    other = MixtureStatistics(n_features, 3, len(statistics.basis)).double()
    other.load_state_dict(statistics.state_dict())
    other.mean.mul_(factor)
    other.pooled_mean.mul_(factor)
    other.pooled_within.mul_(square)
    other.root.copy_(symmetric_root(statistics.root @ statistics.root * square) if other.full else other.root * factor)
    other.feature_scale.div_(factor)
    close(other.coordinates(other.mixtures(sums_of(other, x * factor))), statistics.coordinates(own), 1e-6)


@both_kinds
def test_basis_repeats_and_does_not_depend_on_the_order_of_groups(fitted, n_features):
    statistics, x = fitted(n_features, max_coordinates=5)
    basis = statistics.basis.clone()
    assert basis.shape[0] == 5
    largest = basis.gather(1, basis.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    own = statistics.mixtures(sums_of(statistics, x))
    statistics.fit_basis(own, 5)
    assert torch.equal(statistics.basis.double(), basis)
    statistics.fit_basis(own[torch.arange(23, -1, -1)], 5)
    close(statistics.basis, basis, 1e-4)


@both_kinds
def test_coordinates_outside_the_range_read_back_to_valid_mixtures(fitted, n_features):
    statistics, _ = fitted(n_features)
    far = 100 * torch.randn(10, len(statistics.basis), dtype=F64)
    back = statistics.read_back(far)
    assert (back.weight > 0).all()
    close(back.weight.sum(1), torch.ones(10))
    spectrum = torch.linalg.eigvalsh(back.root) if statistics.full else back.root
    assert (spectrum > 0).all()


def test_roots():
    a = torch.randn(4, 3, 3, dtype=F64)
    covariance = a @ a.mT + torch.eye(3)
    close(symmetric_root(covariance) @ symmetric_root(covariance), covariance)
    close(positive_part(covariance), covariance)
    close(torch.linalg.eigvalsh(positive_part(-covariance)), torch.full((4, 3), 1e-3))


def test_diagonal_log_density_of_a_standard_normal():
    standard = Mixtures(torch.ones(1, 1), torch.zeros(1, 1, 7), torch.ones(1, 1, 7))
    assert float(standard.log_prob(torch.zeros(1, 1, 7))) == pytest.approx(-3.5 * math.log(2 * math.pi), rel=1e-6)


# --- blocks ----------------------------------------------------------------------------------------------------------


def test_correlations_are_the_covariance_within_components(fitted):
    """By explicit loops over groups and components."""
    statistics, x = fitted(DIAGONAL)
    own, share = statistics.mixtures(sums_of(statistics, x)), statistics.responsibilities(x)
    i, j = statistics.pairs(x)
    for g in (0, 7):
        within = torch.zeros(DIAGONAL, DIAGONAL, dtype=F64)
        for k in range(3):
            centred = x[g] - own.mean[g, k]
            within += (share[g, :, k, None] * centred).T @ centred / x.shape[1]
        close(own.cross[g], within[i, j])


def test_small_correlations_are_distances_between_roots():
    statistics = MixtureStatistics(DIAGONAL, 1).double()
    variance = torch.rand(DIAGONAL, dtype=F64) + 0.5
    statistics.pooled_within.copy_(variance[None])
    root = torch.diag(variance.sqrt())
    small = 1e-4 * torch.randn(DIAGONAL, DIAGONAL, dtype=F64)
    small = small + small.T - 2 * torch.diag(small.diagonal())
    i, j = statistics.pairs(small)
    ones = torch.ones(2, 1, dtype=F64)
    mixtures = Mixtures(
        ones, torch.zeros(2, 1, DIAGONAL), root.diagonal().expand(2, 1, -1), torch.stack([0 * small, small])[:, i, j]
    )
    vector = statistics.all_statistics(mixtures)
    expected = (symmetric_root(root @ root + small) - root).norm()
    assert float((vector[1] - vector[0]).norm()) == pytest.approx(float(expected), rel=1e-3)


def test_whole_populations_have_their_own_mean_and_covariance(fitted):
    statistics, x = fitted(FULL)
    statistics.prior_mass.fill_(1e-12)
    own = statistics.mixtures(sums_of(statistics, x))
    x = x * statistics.feature_scale
    whole = statistics.all_statistics(own)[:, statistics.n_vector :] / WHOLE_SCALE
    close(whole[:, :FULL], x.mean(1), 1e-6)
    covariance = torch.stack([torch.cov(cells.T, correction=0) for cells in x])
    root = torch.from_numpy(np.stack([scipy.linalg.sqrtm(each).real for each in covariance.numpy()]))
    distance = (whole[1:] - whole[:-1]).square().sum(1)
    mean = x.mean(1)
    close(distance, (mean[1:] - mean[:-1]).square().sum(1) + (root[1:] - root[:-1]).square().sum((1, 2)), 1e-6)


@pytest.mark.parametrize(("n_features", "n_components"), [(FULL, 1), (DIAGONAL, 3)])
def test_single_gaussians_and_diagonal_ones_have_no_moments_of_whole_populations(n_features, n_components):
    assert MixtureStatistics(n_features, n_components).n_whole == 0


def test_far_populations_are_far_though_they_share_no_component(fitted):
    statistics, _ = fitted(FULL)
    statistics.mean.copy_(torch.tensor([[0.0] * FULL, [1.0] * FULL, [9.0] * FULL]))
    weight = torch.eye(3, dtype=F64) * 0.997 + 0.001
    root = torch.eye(FULL, dtype=F64).expand(3, 3, FULL, FULL)
    vector = statistics.all_statistics(Mixtures(weight, statistics.mean.expand(3, 3, FULL), root))
    own, whole = vector[:, : statistics.n_vector], vector[:, statistics.n_vector :]
    near, far = (own[0] - own[1]).norm(), (own[0] - own[2]).norm()
    close(near, far, 1e-6)
    assert (whole[0] - whole[2]).norm() > 5 * (whole[0] - whole[1]).norm()


@both_kinds
def test_basis_keeps_weights_and_does_not_mix_blocks(fitted, n_features):
    statistics, x = fitted(n_features, max_coordinates=18)
    own = statistics.mixtures(sums_of(statistics, x))
    z = statistics.coordinates(own)
    close(statistics.basis @ statistics.basis.T, torch.eye(len(z[0])), 1e-5)
    blocks = statistics.blocks(z)
    close(blocks["log_weights"], own.weight.log(), 1e-5)
    close(blocks["weights"], own.weight, 1e-5)
    assert ("correlations" in blocks) == (not statistics.full)


@both_kinds
def test_types_are_sums_of_weights_of_overlapping_components(fitted, n_features):
    statistics, x = fitted(n_features, max_coordinates=18)
    own = statistics.mixtures(sums_of(statistics, x))
    z = statistics.coordinates(own)
    statistics.pooled_within.copy_(torch.eye(n_features) if statistics.full else torch.ones(n_features))
    statistics.pooled_mean.zero_()
    statistics.pooled_mean[:, 0] = torch.tensor([0.0, 100.0, 1.0])
    expected = torch.stack([own.weight[:, 0] + own.weight[:, 2], own.weight[:, 1]], dim=1)
    close(statistics.blocks(z)["types"].sort(dim=1).values, expected.sort(dim=1).values, 1e-5)
    statistics.pooled_mean[:, 0] = torch.tensor([0.0, 100.0, 50.0])
    assert "types" not in statistics.blocks(z)  # all apart: the weights say the same


@both_kinds
def test_moments_of_a_single_component_are_those_of_the_cells(fitted, n_features):
    statistics, x = fitted(n_features, 1)
    x = torch.cat([x + 0.3 * torch.randn(1, *x.shape[1:], dtype=F64) for _ in range(12)])
    own = statistics.mixtures(sums_of(statistics, x))
    statistics.fit_basis(own, 1000)
    statistics.double()
    mean, sd = statistics.blocks(statistics.coordinates(own))["moments"].chunk(2, dim=1)
    units = statistics.feature_scale
    close(mean, torch.einsum("gk,gkd->gd", own.weight, own.mean) * units, 1e-3)
    second = torch.diagonal(own.root @ own.root, dim1=2, dim2=3) if statistics.full else own.root.square()
    second = torch.einsum("gk,gkd->gd", own.weight, second + own.mean.square()) * units.square()
    close(sd, (second - mean.square()).sqrt(), 2e-3)
