"""Moves of Gaussian populations."""

import pytest
import torch

from scgde.nn._shared_mixture import fit_shared_mixture
from scgde.nn.displacement import displaced, displacement, is_affine
from scgde.nn.mixtures import Mixtures


@pytest.fixture(scope="module")
def statistics():
    generator = torch.Generator().manual_seed(0)
    groups = [torch.randn(60, 2, generator=generator) + 2 * torch.randn(2, generator=generator) for _ in range(40)]
    fitted = fit_shared_mixture(groups, feature_scale=torch.ones(2), n_components=1, seed=0)
    sums = torch.cat([fitted.sums(x[None], torch.full((1, 60), 1 / 60)) for x in groups])
    fitted.fit_pooled(sums)
    fitted.fit_basis(fitted.mixtures(sums), 24)
    return fitted


def populations(statistics, seed: int, n: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, 1, 2, 2, generator=generator)
    root = 0.3 * a @ a.transpose(-1, -2) + 0.5 * torch.eye(2)
    mean = torch.randn(n, 1, 2, generator=generator)
    return statistics.coordinates(Mixtures(torch.ones(n, 1), mean, root))


def test_all_is_known_of_gaussians_from_their_coordinates(statistics):
    assert is_affine(statistics)
    mixture = fit_shared_mixture(
        [torch.randn(60, 2) for _ in range(3)], feature_scale=torch.ones(2), n_components=2, seed=0
    )
    assert not is_affine(mixture)


def test_displaced_is_the_inverse(statistics):
    source, target = populations(statistics, 1), populations(statistics, 2)
    move = displacement(statistics, source, target)
    torch.testing.assert_close(displaced(statistics, source, move), target, atol=2e-4, rtol=0)
    zero = displacement(statistics, source, source)
    torch.testing.assert_close(zero, torch.zeros_like(zero), atol=2e-4, rtol=0)


def test_one_map_is_one_move_wherever_it_starts(statistics):
    """Stretching by a matrix that commutes with nothing, and a shift: the same for all starts of one shape."""
    source = statistics.read_back(populations(statistics, 3))
    linear, shift = torch.tensor([[1.5, 0.4], [0.4, 0.8]]), torch.tensor([1.0, -2.0])
    covariance = linear @ source.covariance() @ linear
    values, axes = torch.linalg.eigh(covariance)
    root = (axes * values.sqrt()[..., None, :]) @ axes.transpose(-1, -2)
    target = Mixtures(source.weight, source.mean + shift, root)
    move = displacement(statistics, *(statistics.coordinates(each) for each in (source, target)))
    torch.testing.assert_close(move, move[:1].expand_as(move), atol=5e-4, rtol=0)
    differences = statistics.coordinates(target) - statistics.coordinates(source)
    assert (differences - differences[:1]).abs().max() > 0.1
