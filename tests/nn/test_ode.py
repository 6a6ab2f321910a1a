"""The midpoint rule."""

import math
from itertools import pairwise

import pytest
import torch

from scgde.nn.ode import integrate


def velocity(x, t):
    """Solved by x(t) = x(0) exp(t^2)."""
    return 2 * t * x


def error(n_steps, start=0.0, stop=1.0):
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    exact = x * math.exp(stop**2 - start**2)
    return float((integrate(velocity, x, start, stop, n_steps) - exact).abs().max())


@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (1.0, 0.0), (0.2, 0.9)])
def test_error_falls_with_the_square_of_the_step(start, stop):
    orders = [math.log2(a / b) for a, b in pairwise(error(n, start, stop) for n in (32, 64, 128, 256))]
    assert orders == pytest.approx([2, 2, 2], abs=0.15)


def test_backward_undoes_forward():
    x = torch.randn(5, 2, dtype=torch.float64)
    there = integrate(velocity, x, 0.0, 1.0, 200)
    assert (there - x).abs().max() > 0.1
    torch.testing.assert_close(integrate(velocity, there, 1.0, 0.0, 200), x, atol=1e-3, rtol=0)


def test_constant_velocity_is_exact_and_how_often_it_is_asked():
    asked = []

    def constant(x, t):
        asked.append(t)
        return torch.full_like(x, 2.0)

    torch.testing.assert_close(integrate(constant, torch.zeros(3), 0.0, 1.0, 4), torch.full((3,), 2.0))
    assert asked == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]
