"""The velocity field between pairs of populations: analytic Gaussian cases, gradients, cells of weight 0."""

import pytest
import torch

from scgde.nn._random import CounterRandom
from scgde.nn.couplings import COUPLINGS
from scgde.nn.direct import DIRECT, DirectTransport
from scgde.nn.gaussians import gaussian_map, moments
from scgde.nn.generators import Condition
from scgde.nn.transport import TRANSPORTS, PairTransport

CASES = [(d, coupling) for d in (2, 8) for coupling in COUPLINGS]


def gaussians(make_mixtures, d, n=2):
    return make_mixtures(n, 1, d)


def draw(mixtures, n):
    noise = torch.randn(len(mixtures.weight), n, mixtures.mean.shape[-1])
    root = mixtures.root[:, 0]
    return mixtures.mean + (noise @ root if mixtures.full else noise * root[:, None])


@pytest.mark.parametrize("d", [2, 8])
def test_moments_of_mixtures(make_mixtures, d):
    mixtures = make_mixtures(1, 3, d)
    component = torch.multinomial(mixtures.weight[0], 200_000, replacement=True)
    noise = torch.randn(200_000, d)
    root = mixtures.root[0][component]
    x = mixtures.mean[0][component] + (torch.einsum("nij,nj->ni", root, noise) if mixtures.full else root * noise)
    mean, covariance = moments(mixtures)
    torch.testing.assert_close(mean[0], x.mean(0), atol=0.03, rtol=0.03)
    measured = torch.cov(x.T)
    torch.testing.assert_close(covariance[0], measured if mixtures.full else measured.diagonal(), atol=0.05, rtol=0.05)


def test_gaussian_map_carries_one_covariance_to_the_other(make_mixtures):
    source, target = (make_mixtures(4, 1, 3).covariance()[:, 0] for _ in range(2))
    linear = gaussian_map(source, target)
    torch.testing.assert_close(linear @ source @ linear, target, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(linear, linear.mT, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gaussian_map(torch.tensor([[4.0]]), torch.tensor([[9.0]])), torch.tensor([[1.5]]))


@pytest.mark.parametrize(("d", "coupling"), CASES)
def test_untrained_field_moves_gaussians_exactly(make_mixtures, d, coupling):
    mixtures = gaussians(make_mixtures, d)
    field = PairTransport(d, 3, coupling=coupling, width=16, n_steps=32)
    x, z = draw(mixtures[[0]], 4000), torch.zeros(1, 3)
    source, target = (Condition(mixtures[[i]], torch.ones(1)) for i in (0, 1))
    with torch.no_grad():
        half, moved = field.path(x, z, z, source, target, [0.5, 1.0])
    mean, covariance = moments(mixtures[[1]])
    measured = torch.cov(moved[0].T)
    torch.testing.assert_close(moved.mean(1), mean, atol=0.12, rtol=0)
    torch.testing.assert_close(measured if d == 2 else measured.diagonal(), covariance[0], atol=0.15, rtol=0.12)
    torch.testing.assert_close(half.mean(1), (x.mean(1) + moved.mean(1)) / 2, atol=0.05, rtol=0)


OPTIONS = {
    "flow": [{"n_times": 4}, {"coupling": "independent"}, {"condition_on": "source"}, {"base": "none"}],
    **{name: [{}, {"n_noise": 0}] for name in DIRECT},
}


@pytest.mark.parametrize(("name", "options"), [(name, options) for name in TRANSPORTS for options in OPTIONS[name]])
def test_loss_reaches_every_parameter_and_ignores_padding(make_mixtures, name, options):
    torch.manual_seed(1)
    field = TRANSPORTS[name](2, 3, n_batch=2, width=16, **options)
    torch.nn.init.normal_(field.net.output.weight)
    mixtures, z = gaussians(make_mixtures, 2, 6), torch.randn(6, 3)
    x, weight = torch.randn(6, 12, 2), torch.full((6, 12), 1 / 8)
    weight[:, 8:] = 0
    batch = torch.randint(0, 2, (6, 12))
    random = CounterRandom(0, 1, torch.arange(3))

    def loss(x):
        ends = tuple(Condition(mixtures[part], torch.ones(3), batch[part]) for part in (slice(0, 3), slice(3, 6)))
        return field.loss((x[:3], x[3:]), (weight[:3], weight[3:]), (z[:3], z[3:]), ends, random)

    value = loss(x)
    assert value.shape == (3,)
    value.sum().backward()
    for parameter, tensor in field.named_parameters():
        assert tensor.grad.abs().sum() > 0, parameter
    other = x.clone()
    other[:, 8:] = 100
    torch.testing.assert_close(loss(other), value)
    torch.testing.assert_close(loss(x), value)


def test_unknown_options():
    with pytest.raises(ValueError, match="coupling='emd' is unknown: choose from"):
        PairTransport(2, 3, coupling="emd")


def test_source_only_does_not_see_the_target(make_mixtures):
    field = PairTransport(2, 3, condition_on="source", width=16)
    torch.nn.init.normal_(field.net.output.weight)
    mixtures, x = gaussians(make_mixtures, 2, 3), torch.randn(1, 5, 2)
    ends = [Condition(mixtures[[i]], torch.ones(1)) for i in range(3)]
    z = torch.randn(3, 1, 3)
    with torch.no_grad():
        first, second = (next(field.path(x, z[0], z[i], ends[0], ends[i], [1.0])) for i in (1, 2))
    torch.testing.assert_close(first, second)


# --- maps in one evaluation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIRECT)
@pytest.mark.parametrize("d", [2, 8])
def test_an_untrained_map_is_the_gaussian_one(make_mixtures, name, d):
    """And its path is the straight line to it."""
    mixtures, z = gaussians(make_mixtures, d), torch.zeros(1, 3)
    x = draw(mixtures[[0]], 4000)
    ends = [Condition(mixtures[[i]], torch.ones(1)) for i in (0, 1)]
    random = CounterRandom(0, 0, torch.arange(4000))
    with torch.no_grad():
        start, half, moved = DIRECT[name](d, 3, width=16).path(x, z, z, *ends, [0.0, 0.5, 1.0], random)
    (m0, c0), (m1, c1) = (moments(mixtures[[i]]) for i in (0, 1))
    linear = gaussian_map(c0, c1)
    expected = m1 + ((x - m0) @ linear if d == 2 else (x - m0) * linear)
    torch.testing.assert_close(moved, expected)
    torch.testing.assert_close(start, x)
    torch.testing.assert_close(half, (x + moved) / 2)


def test_a_map_learns_what_moments_do_not_say(make_mixtures):
    """From a Gaussian to a ring: of a Gaussian with its moments, 29% of the cells lie within 20% of radius 2.

    One map stands for all: each divergence is tested in the same way with the generators.
    """
    torch.manual_seed(0)
    field = DIRECT["energy"](2, 3, width=32, n_layers=2)
    angle = 6.283 * torch.rand(8, 64)
    ring = 2 * torch.stack([angle.cos(), angle.sin()], -1) + 0.1 * torch.randn(8, 64, 2)
    mixtures = [make_mixtures(8, 1, 2) for _ in range(2)]
    for mixture, scale in zip(mixtures, (1.0, 2**0.5), strict=True):
        mixture.mean.zero_()
        mixture.root.copy_(scale * torch.eye(2))
    ends = tuple(Condition(mixture, torch.ones(8)) for mixture in mixtures)
    x, weight, z = (torch.randn(8, 64, 2), ring), (torch.full((8, 64), 1 / 64),) * 2, (torch.zeros(8, 3),) * 2

    def near(seed):
        random = CounterRandom(seed, 0, torch.arange(8 * 64))
        with torch.no_grad():
            (moved,) = field.path(torch.randn(8, 64, 2), *z, *ends, [1.0], random)
        return ((moved.norm(dim=-1) - 2).abs() < 0.4).float().mean()

    assert near(1) < 0.37
    optimizer = torch.optim.AdamW(field.parameters(), lr=5e-3)
    for step in range(200):
        optimizer.zero_grad()
        field.loss(x, weight, z, ends, CounterRandom(0, step, torch.arange(8))).mean().backward()
        optimizer.step()
    assert near(1) > 0.7


def test_noise_moves_equal_cells_to_different_places(make_mixtures):
    field = DIRECT["energy"](2, 3, width=16)
    torch.nn.init.normal_(field.net.output.weight)
    mixtures, z, x = gaussians(make_mixtures, 2), torch.zeros(1, 3), torch.zeros(1, 5, 2)
    ends = [Condition(mixtures[[i]], torch.ones(1)) for i in (0, 1)]

    def moved(seed):
        with torch.no_grad():
            return next(field.path(x, z, z, *ends, [1.0], CounterRandom(seed, 0, torch.arange(5))))

    assert moved(0)[0].unique(dim=0).shape == (5, 2)
    assert torch.equal(moved(0), moved(0))
    assert not torch.isin(moved(1), moved(0)).any()


def test_number_of_moved_cells():
    assert issubclass(DIRECT["mmd"], DirectTransport)
    with pytest.raises(ValueError, match="n_moved=3: expected an even number"):
        DIRECT["mmd"](2, 3, n_moved=3)
