"""Building blocks of the networks."""

import math

import pytest
import torch

from scgde.nn._blocks import ConditionalMLP, time_features


@pytest.fixture
def network():
    network = ConditionalMLP(3, 4, 2, n_batch=3, width=16, n_layers=2, dropout=0.0)
    torch.nn.init.normal_(network.output.weight)
    return network


def test_time_features_are_sines_and_cosines(device):
    t = torch.tensor([0.0, 0.3, 1.0], device=device)
    features = time_features(t, 3)
    angles = [[math.pi * f * value for f in (1, 2, 4)] for value in (0.0, 0.3, 1.0)]
    expected = [[*(math.sin(a) for a in row), *(math.cos(a) for a in row)] for row in angles]
    torch.testing.assert_close(features.cpu(), torch.tensor(expected), atol=1e-5, rtol=0)
    assert time_features(t[:, None]).shape == (3, 1, 8)


def test_a_new_network_gives_zero():
    network = ConditionalMLP(3, 4, 2, n_batch=0, width=16, n_layers=2, dropout=0.0)
    assert torch.equal(network(torch.randn(2, 5, 3), torch.randn(2, 4)), torch.zeros(2, 5, 2))


def test_cells_do_not_see_each_other_but_see_condition_and_batch(network, device):
    network = network.to(device)
    x, condition = torch.randn(2, 6, 3, device=device), torch.randn(2, 4, device=device)
    batch = torch.tensor([[0, 1, 2, 0, 1, 2]] * 2, device=device)
    output = network(x, condition, batch)
    assert output.shape == (2, 6, 2)
    alone = network(x[1:, 2:3], condition[1:], batch[1:, 2:3])
    torch.testing.assert_close(alone[0, 0], output[1, 2], atol=1e-5, rtol=1e-4)
    assert (network(x, condition.flip(0), batch) - output).abs().amax(-1).min() > 1e-3
    assert (network(x, condition, (batch + 1) % 3) - output).abs().amax(-1).min() > 1e-3


def test_without_batches_codes_are_not_read():
    network = ConditionalMLP(3, 4, 2, n_batch=0, width=16, n_layers=2, dropout=0.0)
    assert not any("batch" in name for name, _ in network.named_parameters())


def test_dropout_acts_in_training_only():
    network = ConditionalMLP(3, 4, 2, n_batch=0, width=16, n_layers=2, dropout=0.5)
    torch.nn.init.normal_(network.output.weight)
    x, condition = torch.randn(2, 5, 3), torch.randn(2, 4)
    assert not torch.equal(network(x, condition), network(x, condition))
    network.eval()
    assert torch.equal(network(x, condition), network(x, condition))
