"""A small model of clones on three days."""

import numpy as np
import pytest
import torch

from scgde import TDE
from scgde.datasets import simulate_clones


@pytest.fixture(scope="session")
def model():
    """A trained model with forecasters between consecutive days, cells in random order. Shared: tests change nothing."""
    torch.set_num_threads(1)
    adata = simulate_clones(24, (10, 20), days=(2, 4, 6), orphan_fraction=0.5, n_features=8, seed=0)[0]
    adata = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    TDE.setup_anndata(adata, "clone", time_key="day")
    tiny = {"encoder_kwargs": {"width": 16}, "generator_kwargs": {"width": 32}}
    model = TDE(adata, n_latent=6, n_components=2, **tiny)
    model.train(max_steps=3, validation_size=0.0, accelerator="cpu", enable_progress_bar=False)
    for times in [(2, 4), (4, 6)]:
        model.fit_forecaster(*times)
    return model
