"""A small trained model of six donors."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scgde import GDE


@pytest.fixture(scope="session")
def adata():
    """Six donors of 60 cells that differ in mean."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(6), 60)
    x = rng.normal(size=(360, 4)) + 2 * rng.normal(size=(6, 4))[codes]
    obs = pd.DataFrame({"donor": [f"donor_{i}" for i in codes]}, index=[f"cell{i}" for i in range(360)])
    return AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(4)]))


@pytest.fixture(scope="session")
def model(adata):
    """A model of these, barely trained."""
    GDE.setup_anndata(adata, "donor")
    options = {"encoder_kwargs": {"width": 16}, "generator_kwargs": {"width": 32}}
    model = GDE(adata, n_latent=6, n_components=2, **options)
    model.train(max_steps=20, accelerator="cpu", enable_progress_bar=False)
    return model
