"""Pairs of embeddings whose law is known."""

import numpy as np
import pytest


def linear_pairs(n=60, p=6, noise=0.1, seed=0):
    """Target = source + 1 + source @ b + noise."""
    rng = np.random.default_rng(seed)
    source = rng.standard_normal((n, p)) * np.linspace(2, 1, p) + 3
    b = np.random.default_rng(99).standard_normal((p, p)) / np.sqrt(p)
    return source, source + 1 + source @ b + noise * rng.standard_normal((n, p)), b


@pytest.fixture(scope="session")
def linear():
    return linear_pairs()


@pytest.fixture(scope="session")
def bimodal():
    """The first source coordinate decides how often, and nothing which, of two changes occurs."""
    rng = np.random.default_rng(5)
    source = rng.standard_normal((300, 4))
    up = rng.random(300) < 1 / (1 + np.exp(-2 * source[:, 0]))
    change = np.zeros((300, 4))
    change[:, 0] = np.where(up, 3, -3)
    return source, source + change + 0.3 * rng.standard_normal((300, 4)), up
