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
