"""p-values of novelty of forecasts: uniform for groups like those of training, smallest for groups unlike any."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import stats

from scgde import TDE

N_TRAINING, N_NEW, N_PAIRED = 400, 300, 12


def clones(rng, n, *, spread=1.0, prefix):
    """AnnData of ``n`` clones of 10 cells on day 2, whose centres and widths are random."""
    center = 3 * spread * rng.normal(size=(n, 1, 3))
    x = center + np.exp(0.3 * rng.normal(size=(n, 1, 3))) * rng.normal(size=(n, 10, 3))
    names = [f"{prefix}{i:03d}" for i in range(n)]
    obs = pd.DataFrame({"clone": np.repeat(names, 10), "day": "2"}, index=[f"{prefix}{i}" for i in range(10 * n)])
    return AnnData(x.reshape(-1, 3).astype(np.float32), obs=obs, var=pd.DataFrame(index=["a", "b", "c"]))


@pytest.fixture(scope="module")
def model(tiny):
    torch.set_num_threads(1)
    early = clones(np.random.default_rng(0), N_TRAINING, prefix="clone")
    paired = early[: 10 * N_PAIRED]
    late = paired.obs.assign(day="4").set_axis([f"late{i}" for i in range(paired.n_obs)])
    adata = AnnData(np.concatenate([early.X, paired.X + 5]), obs=pd.concat([early.obs, late]), var=early.var)
    TDE.setup_anndata(adata, "clone", time_key="day")
    model = TDE(adata, **{**tiny.options, "n_components": 1})
    model.train(max_steps=20, validation_size=0.0, **tiny.train)
    model.fit_forecaster("2", "4")
    return model


def p_values(model, adata):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some of hundreds of groups lie far by chance
        return model.forecast("2", "4", adata).uns["forecast"]["groups"]["p_value"].to_numpy()


def distance_to_uniform(p):
    """Kolmogorov-Smirnov statistic in units of its law, that of two samples: all p-values share the training groups.

    p-values lie on the grid 1/(n+1), 2/(n+1), …: a jitter down to the next makes them continuous.
    """
    jittered = p - np.random.default_rng(0).random(len(p)) / (N_TRAINING + 1)
    return stats.kstest(jittered, "uniform").statistic / np.sqrt(1 / N_TRAINING + 1 / len(p))


@pytest.mark.parametrize("seed", [1, 2])
def test_p_values_of_new_groups_are_uniform(model, seed):
    """The error rate of the test is 0.001."""
    p = p_values(model, clones(np.random.default_rng(seed), N_NEW, prefix="new"))
    assert len(p) == N_NEW
    assert distance_to_uniform(p) < stats.kstwobign.isf(0.001)
    assert (p < 0.01).mean() < 0.04


def test_p_values_of_another_law_are_not(model):
    p = p_values(model, clones(np.random.default_rng(1), N_NEW, spread=2.0, prefix="new"))
    assert distance_to_uniform(p) > stats.kstwobign.isf(0.001)
    assert (p <= 0.05).mean() > 0.2


def test_a_group_unlike_any_has_the_smallest_p_value(model):
    adata = clones(np.random.default_rng(3), 2, prefix="new")
    adata.X[:10] += 100
    adata.X[10:] -= adata.X[10:].mean(0)
    with pytest.warns(UserWarning, match=r"1 of 2 groups lie far .*p < 0.01.*new000.*extrapolate"):
        table = model.forecast("2", "4", adata).uns["forecast"]["groups"]
    assert table["p_value"].iloc[0] == pytest.approx(1 / (N_TRAINING + 1))
    assert table["p_value"].iloc[1] > 0.05
