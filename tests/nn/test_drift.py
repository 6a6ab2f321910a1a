"""The closed-form velocity from noise to a mixture."""

import numpy as np
import pytest
import scipy.stats
import torch

from scgde.nn.generators import Drift
from scgde.nn.mixtures import Mixtures, symmetric_root
from scgde.nn.ode import integrate

F64 = torch.float64
FULL, DIAGONAL = 3, 8
both_kinds = pytest.mark.parametrize("n_features", [FULL, DIAGONAL], ids=["full", "diagonal"])


def covariance_of(root):
    return root @ root if root.shape[-1] == FULL else torch.diag_embed(root.square())


def brute_force(weights, means, roots, x, t):
    """Velocity, whitened position, scale and responsibilities at one point of one group, by a loop over components."""
    unit = np.eye(len(x))
    density, velocities, whitened, scales = [], [], [], []
    for weight, mean, covariance in zip(weights.numpy(), means.numpy(), covariance_of(roots).numpy(), strict=True):
        total = (1 - t) ** 2 * unit + t**2 * covariance
        density.append(weight * scipy.stats.multivariate_normal(t * mean, total).pdf(x))
        gain = (t * covariance - (1 - t) * unit) @ np.linalg.inv(total)
        velocities.append(mean + gain @ (x - t * mean))
        values, axes = np.linalg.eigh(total)
        whitened.append((axes / np.sqrt(values)) @ axes.T @ (x - t * mean))
        # Covariance of x_1 - x_0 given x_t, by the formula for jointly normal vectors.
        remainder = unit + covariance - gain @ (t * covariance - (1 - t) * unit)
        along_axes = np.full(len(x), np.sqrt(np.linalg.eigvalsh(remainder)).mean())
        scales.append(along_axes if len(x) == FULL else np.sqrt(np.diag(remainder)))
    share = np.array(density) / sum(density)
    return [*(share @ np.array(values) for values in (velocities, whitened, scales)), share]


@both_kinds
@pytest.mark.parametrize("n_components", [1, 4])
def test_all_parts_are_those_of_the_formula(make_mixtures, n_features, n_components):
    mixtures = make_mixtures(5, n_components, n_features, dtype=F64)
    x, t = 1.5 * torch.randn(5, 4, n_features, dtype=F64), torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=F64)
    parts = Drift(mixtures)(x, t)
    for g in range(5):
        for i in range(4):
            own = mixtures.weight[g], mixtures.mean[g], mixtures.root[g]
            for part, expected in zip(parts, brute_force(*own, x[g, i].numpy(), float(t[g])), strict=True):
                np.testing.assert_allclose(part[g, i].numpy(), expected, atol=1e-7, rtol=1e-7)


@both_kinds
def test_single_precision_agrees_with_double(make_mixtures, n_features, device):
    mixtures = make_mixtures(6, 5, n_features, dtype=F64)
    x, t = 2 * torch.randn(6, 50, n_features, dtype=F64), torch.rand(6, dtype=F64)
    single = Drift(Mixtures(*(part.float().to(device) for part in (mixtures.weight, mixtures.mean, mixtures.root))))
    for a, b in zip(single(x.float().to(device), t.float().to(device)), Drift(mixtures)(x, t), strict=True):
        assert a.dtype == torch.float32
        assert a.shape[:-1] == x.shape[:-1]
        torch.testing.assert_close(a.cpu().double(), b, atol=2e-4, rtol=2e-4)


@both_kinds
def test_one_gaussian_has_the_known_flow(make_mixtures, n_features):
    """With one component the path of a code x_0 ends at mean + root x_0."""
    mixtures = make_mixtures(3, 1, n_features, dtype=F64)
    noise = torch.randn(3, 20, n_features, dtype=F64)
    drift = Drift(mixtures)
    end = integrate(lambda x, t: drift(x, torch.full((3,), t, dtype=F64))[0], noise, 0.0, 1.0, 300)
    root = mixtures.root[:, 0]
    linear = noise @ root if mixtures.full else noise * root[:, None]
    torch.testing.assert_close(end, mixtures.mean + linear, atol=1e-4, rtol=0)


@both_kinds
@pytest.mark.parametrize(("start", "at", "stop"), [(0.0, 0.0, 0.7), (0.1, 0.5, 0.9), (1.0, 0.5, 0.0), (1.0, 1.0, 0.4)])
def test_a_bent_step_ends_where_the_flow_of_its_component_does(make_mixtures, n_features, start, at, stop):
    """Two components far apart: a cell of one moves on its known way, of which the straight step takes the velocity."""
    mixtures = make_mixtures(2, 2, n_features, spread=1e4, dtype=F64)
    share, noise = torch.tensor([1.0, 0.0], dtype=F64).expand(2, 5, 2), torch.randn(2, 5, n_features, dtype=F64)
    variance = covariance_of(mixtures.root[:, 0])

    def place(t):
        root = symmetric_root((1 - t) ** 2 * torch.eye(n_features) + t**2 * variance)
        return t * mixtures.mean[:, :1] + noise @ root

    straight = place(start) + (stop - start) * (place(at + 1e-4) - place(at - 1e-4)) / 2e-4
    bent = straight + Drift(mixtures).bend(share, place(start), start, at, stop)
    torch.testing.assert_close(bent, place(stop), atol=1e-4, rtol=0)
    assert (straight - place(stop)).abs().max() > 1e-3


@both_kinds
def test_noise_arrives_at_the_mixture(make_mixtures, n_features):
    """Mean and covariance of 20,000 cells: all entries within five standard errors, which 2.5e-5 of right flows miss."""
    mixtures = make_mixtures(1, 3, n_features)
    drift = Drift(mixtures)
    noise = torch.randn(1, 20_000, n_features)
    x = integrate(lambda x, t: drift(x, torch.tensor([t]))[0], noise, 0.0, 1.0, 60)[0].double()
    weight, mean, covariance = mixtures.weight[0].double(), mixtures.mean[0].double(), covariance_of(mixtures.root[0])
    center = weight @ mean
    deviation = mean - center
    expected = torch.einsum("k,kij->ij", weight, covariance.double() + deviation[:, :, None] * deviation[:, None])
    products = (x - center)[:, :, None] * (x - center)[:, None]
    for values, target in ((x, center), (products, expected)):
        error = (values.mean(0) - target).abs() / (values.std(0) / len(x) ** 0.5)
        assert error.max() < 5


@both_kinds
def test_the_remainder_has_the_stated_scale(n_features):
    """x_1 - x_0 minus the velocity, divided by the scale, has variance 1 at every time."""
    root = torch.rand(n_features) + 0.4
    root = torch.eye(n_features) * root.mean() if n_features == FULL else root
    mixtures = Mixtures(torch.ones(1, 1), torch.randn(1, 1, n_features), root[None, None])
    for t in (0.0, 0.3, 0.7, 1.0):
        x0, x1 = torch.randn(2, 1, 20_000, n_features)
        x1 = mixtures.mean + (x1 @ root if mixtures.full else x1 * root)
        velocity, _, scale, _ = Drift(mixtures)(torch.lerp(x0, x1, t), torch.tensor([t]))
        variance = ((x1 - x0 - velocity) / scale).square().mean((0, 1))
        # The mean of 20,000 squared normal numbers has standard deviation 0.01.
        torch.testing.assert_close(variance, torch.ones(n_features), atol=0.05, rtol=0)


def test_components_far_apart_do_not_overflow(make_mixtures):
    mixtures = make_mixtures(2, 3, DIAGONAL, spread=100.0)
    for t in (0.0, 0.5, 1.0):
        parts = Drift(mixtures)(50 * torch.randn(2, 6, DIAGONAL), torch.full((2,), t))
        assert all(torch.isfinite(part).all() for part in parts)


def test_full_and_diagonal_branches_agree(make_mixtures):
    diagonal = make_mixtures(4, 3, DIAGONAL, dtype=F64)
    full = Mixtures(diagonal.weight, diagonal.mean, torch.diag_embed(diagonal.root))
    x, t = torch.randn(4, 5, DIAGONAL, dtype=F64), torch.rand(4, dtype=F64)
    (velocity, whitened, scale, share), (v, w, s, r) = Drift(diagonal)(x, t), Drift(full)(x, t)
    torch.testing.assert_close(velocity, v)
    torch.testing.assert_close(whitened, w)
    torch.testing.assert_close(share, r)
    bends = (Drift(each).bend(share, x, 0.2, 0.3, 0.4) for each in (diagonal, full))
    torch.testing.assert_close(*bends)
    # The full branch has one scale for all features, the mean over the axes of a component.
    torch.testing.assert_close(scale.mean(-1), s[..., 0])
    torch.testing.assert_close(symmetric_root(full.covariance()), full.root)


@both_kinds
def test_blocks_are_worked_on_in_parts(make_mixtures, n_features, monkeypatch):
    mixtures, x, t = make_mixtures(6, 5, n_features), torch.randn(6, 4, n_features), torch.rand(6)
    whole = Drift(mixtures)(x, t)
    monkeypatch.setattr("scgde.nn.generators._drift.CACHED", 2 * 5 * n_features)
    for part, expected in zip(Drift(mixtures)(x, t), whole, strict=True):
        torch.testing.assert_close(part, expected)
