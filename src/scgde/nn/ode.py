"""Fixed-step integration of a velocity field."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def integrate(
    velocity: Callable[[Tensor, float], Tensor], x: Tensor, start: float, stop: float, n_steps: int
) -> Tensor:
    """Solve dx/dt = velocity(x, t) from ``start`` to ``stop`` by the midpoint rule.

    Parameters
    ----------
    velocity
        Velocity at points of the shape of ``x`` and one time.
    x
        Points at ``start``.
    start, stop
        Times; ``stop`` may be before ``start``.
    n_steps
        Number of steps, two evaluations each. The error falls with the square of the step.
    """
    step = (stop - start) / n_steps
    for i in range(n_steps):
        t = start + i * step
        middle = x + 0.5 * step * velocity(x, t)
        x = x + step * velocity(middle, t + 0.5 * step)
    return x


def integrate_multistep(
    velocity: Callable[[Tensor, float], Tensor], x: Tensor, start: float, stop: float, n_steps: int
) -> Tensor:
    """Solve dx/dt = velocity(x, t) as :func:`integrate` does, with one evaluation per step and one more.

    The first step is a midpoint step, the others extrapolate from the last two velocities (Adams and Bashforth).

    Parameters
    ----------
    velocity
        Velocity at points of the shape of ``x`` and one time.
    x
        Points at ``start``.
    start, stop
        Times; ``stop`` may be before ``start``.
    n_steps
        Number of steps. The error falls with the square of the step.
    """
    step = (stop - start) / n_steps
    before = velocity(x, start)
    x = x + step * velocity(x + 0.5 * step * before, start + 0.5 * step)
    for i in range(1, n_steps):
        now = velocity(x, start + i * step)
        x = x + step * (1.5 * now - 0.5 * before)
        before = now
    return x
