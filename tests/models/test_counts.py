"""Likelihoods of raw counts: what is simulated comes back."""

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scgde import GDE

OPTIONS = {"generator": "vae", "n_latent": 6, "n_components": 2, "encoder_kwargs": {"width": 16}, "seed": 0}


@pytest.fixture(scope="module")
def adata():
    """Twelve donors of 150 cells, 12 genes: negative binomial with dispersion 2, library sizes that vary fourfold."""
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(12), 150)
    profile = rng.gamma(1.0, size=12) * np.exp(0.4 * rng.normal(size=(12, 12)))
    profile /= profile.sum(1, keepdims=True)
    library = 60 * np.exp(0.35 * rng.normal(size=len(donor)))
    counts = rng.poisson(rng.gamma(2.0, profile[donor] * library[:, None] / 2))
    obs = pd.DataFrame({"donor": [f"donor_{i}" for i in donor]}, index=[f"cell{i}" for i in range(len(donor))])
    return AnnData(counts.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(12)]))


@pytest.fixture(scope="module")
def make(adata):
    def make(likelihood, steps=150):
        own = adata.copy()
        with pytest.warns(UserWarning, match="looks like raw counts"):
            GDE.setup_anndata(own, "donor", use_rep="X")
        model = GDE(own, **OPTIONS, generator_kwargs={"likelihood": likelihood, "width": 32, "n_code": 4})
        quiet = {"accelerator": "cpu", "enable_progress_bar": False}
        model.train(max_steps=steps, plan_kwargs={"lr": 1e-2, "ema_decay": 0.95}, **quiet)
        return model

    return make


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_mean_variance_and_zeros_come_back(make, adata, likelihood):
    """Over the pooled cells: zeros within 0.06; of genes seen more than once in two cells, means and variances."""
    model = make(likelihood)
    x = model.sample(n_cells=300).X
    assert x.min() == 0
    np.testing.assert_array_equal(x, np.round(x))
    seen = adata.X.mean(0) > 0.5
    np.testing.assert_allclose(x.mean(0)[seen], adata.X.mean(0)[seen], rtol=0.15)
    assert np.abs(np.log(x.var(0) / adata.X.var(0)))[seen].max() < np.log(1.75)
    assert np.abs((x == 0).mean(0) - (adata.X == 0).mean(0)).max() < 0.06
    # A Poisson of the same means would miss the variance by more.
    assert (adata.X.var(0) / adata.X.mean(0))[seen].max() > 3
    np.testing.assert_array_equal(model.sample("donor_3", 20, seed=1).X, model.sample("donor_3", 20, seed=1).X)


def test_counts_survive_saving(make, adata, tmp_path):
    model = make("nb", steps=3)
    model.save(tmp_path / "model")
    loaded = GDE.load(tmp_path / "model", adata=adata.copy(), accelerator="cpu")
    np.testing.assert_array_equal(loaded.sample("donor_1", 30).X, model.sample("donor_1", 30).X)


def test_new_groups_of_counts_are_read_without_a_warning_and_trusted_like_those_of_training(make, adata):
    """The profile of a group, which is all that its statistics say of counts, has one type of cells."""
    model = make("nb", steps=3)
    with warnings.catch_warnings():
        for category in (UserWarning, RuntimeWarning):
            warnings.simplefilter("error", category)
        new = model.sample("donor_2", 20, adata=adata, seed=1).X
    np.testing.assert_array_equal(new, model.sample("donor_2", 20, adata=adata, trust=1.0, seed=1).X)


@pytest.mark.parametrize("spoil", [lambda x: x + 0.5, lambda x: x - 1, np.log1p])
def test_what_is_no_count_is_refused(adata, spoil):
    own = adata.copy()
    own.X = spoil(own.X)
    GDE.setup_anndata(own, "donor", use_rep="X")
    model = GDE(own, **OPTIONS, generator_kwargs={"likelihood": "nb"})
    with pytest.raises(ValueError, match="adata.X holds values that are no counts.*'likelihood': 'normal'"):
        model.train(max_steps=1, enable_progress_bar=False)
    assert not model.is_trained_
