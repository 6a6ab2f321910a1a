"""Solvers with fixed steps: the midpoint rule, and the multistep rule."""

import math

import pytest
import torch

from scgde.nn.ode import integrate, integrate_multistep


def velocity(x, t):
    """Solved by x(t) = x(0) exp(t^2)."""
    return 2 * t * x


@pytest.fixture(params=[integrate, integrate_multistep])
def solve(request):
    return request.param


def error(solve, n_steps, start=0.0, stop=1.0):
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    exact = x * math.exp(stop**2 - start**2)
    return float((solve(velocity, x, start, stop, n_steps) - exact).abs().max())


@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (1.0, 0.0), (0.2, 0.9)])
def test_error_falls_with_the_square_of_the_step(solve, start, stop):
    orders = [math.log2(error(solve, n, start, stop) / error(solve, 2 * n, start, stop)) for n in (32, 64, 128)]
    assert orders == pytest.approx([2, 2, 2], abs=0.15)


def test_backward_undoes_forward(solve):
    x = torch.randn(5, 2, dtype=torch.float64)
    there = solve(velocity, x, 0.0, 1.0, 200)
    assert (there - x).abs().max() > 0.1
    torch.testing.assert_close(solve(velocity, there, 1.0, 0.0, 200), x, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (integrate, [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]),
        (integrate_multistep, [0, 0.125, 0.25, 0.5, 0.75]),
    ],
)
def test_constant_velocity_is_exact_and_how_often_it_is_asked(rule, expected):
    times = []

    def constant(x, t):
        times.append(t)
        return torch.full_like(x, 2.0)

    torch.testing.assert_close(rule(constant, torch.zeros(3), 0.0, 1.0, 4), torch.full((3,), 2.0))
    assert times == expected
