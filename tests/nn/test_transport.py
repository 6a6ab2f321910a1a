"""The velocity field between pairs of populations: analytic Gaussian cases, gradients, cells of weight 0."""

import pytest
import torch

from scgde.nn._random import CounterRandom
from scgde.nn.couplings import COUPLINGS
from scgde.nn.generators import Condition
from scgde.nn.transport import TRANSPORTS, PairTransport, gaussian_map, moments

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


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize("options", [{}, {"coupling": "independent"}, {"condition_on": "source"}, {"base": "none"}])
def test_loss_reaches_every_parameter_and_ignores_padding(make_mixtures, name, options):
    torch.manual_seed(1)
    field = TRANSPORTS[name](2, 3, n_batch=2, width=16, n_times=4, **options)
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
