"""Forecasts of groups at a time at which they were not seen."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scgde import TDE
from scgde.datasets import simulate_shifts
from scgde.metrics import w2_gaussian

SHIFT = np.array([8.0, 0, -4])


@pytest.fixture(scope="module")
def adata():
    """40 clones on day 2, which all shift by the same on day 4; 12 are seen on both days, and grow threefold."""
    rng = np.random.default_rng(0)
    x, rows = [], []
    for clone in range(40):
        center = 3 * rng.normal(size=3)
        for day, n in (("2", 20), ("4", 60)):
            if day == "4" and clone >= 12:
                continue
            x.append(rng.normal(size=(n, 3)) + center + SHIFT * (day == "4"))
            rows += [(f"clone_{clone:02d}", day, "ab"[clone % 2])] * n
    obs = pd.DataFrame(rows, columns=["clone", "day", "drug"], index=[f"cell{i}" for i in range(len(rows))])
    return AnnData(np.concatenate(x).astype(np.float32), obs=obs, var=pd.DataFrame(index=["a", "b", "c"]))


@pytest.fixture(scope="module")
def model(adata, tiny):
    TDE.setup_anndata(adata, "clone", time_key="day")
    model = TDE(adata, **{**tiny.options, "n_components": 1})
    model.train(max_steps=3, validation_size=0.0, **tiny.train)
    return model


def test_orphans_go_where_the_pairs_went(model, adata):
    errors = model.fit_forecaster("2", "4")
    assert errors["n_pairs"].item() == 12
    assert errors["forecast"].item() < 0.2 * errors["no_change"].item()
    cells = model.forecast("2", "4")
    table = cells.uns["forecast"]["groups"]
    assert table["clone"].tolist() == [f"clone_{i:02d}" for i in range(12, 40)]
    start = adata[cells.obs_names]
    shift = pd.DataFrame(cells.X - start.X).groupby(start.obs["clone"].to_numpy()).mean()
    np.testing.assert_allclose(shift.mean(), SHIFT, atol=0.6)
    assert cells.uns["forecast"]["embedding"].shape == (28, 6)
    assert table["p_value"].between(0, 1).all()


def test_growth_is_relative_to_sampling(model):
    model.fit_forecaster("2", "4")
    cells = model.forecast("2", "4", groups=["clone_20"])
    # 12 clones of 60 cells after 40 of 20: each grew threefold where the total fell to .9.
    assert cells.obs["weight"].to_numpy() == pytest.approx(3 / 0.9, rel=0.1)


def test_draws_carry_uncertainty(model):
    model.fit_forecaster("2", "4")
    cells = model.forecast("2", "4", groups=["clone_20"], n_draws=4)
    assert cells.n_obs == 80
    assert cells.obs_names.is_unique
    means = pd.DataFrame(cells.X).groupby(cells.obs["draw"].to_numpy()).mean()
    assert (means.std() > 1e-3).all()
    again = model.forecast("2", "4", groups=["clone_20"], n_draws=4)
    np.testing.assert_array_equal(cells.X, again.X)


def test_far_groups_are_told(model, adata):
    model.fit_forecaster("2", "4")
    table = model.forecast("2", "4", groups="all").uns["forecast"]["groups"]
    assert len(table) == 40
    far = adata[(adata.obs["day"] == "2").to_numpy()][:20].copy()
    far.X += 300
    assert model.forecast("2", "4", far).uns["forecast"]["groups"]["p_value"].max() <= 1 / 41 + 1e-9


def test_conditions_and_saving(model, tmp_path):
    model.fit_forecaster("2", "4", condition_keys=["drug"])
    expected = model.forecast("2", "4")
    model.save(tmp_path / "model")
    loaded = TDE.load(tmp_path / "model", adata=model.adata.copy(), accelerator="cpu")
    np.testing.assert_allclose(loaded.forecast("2", "4").X, expected.X, atol=1e-5)


def test_fates_are_those_of_the_nearest_real_cells(model):
    """Labels are sides of the target day; a clone whose cells go to one side has that fate."""
    model.fit_forecaster("2", "4")
    side = np.where(model.adata.X[:, 1] > 0, "up", "down")
    model.adata.obs["side"] = side
    cells = model.fate_probabilities("2", "4", labels="side", n_neighbors=5)
    assert cells.uns["fates"]["labels"].tolist() == ["down", "up"]
    np.testing.assert_allclose(cells.obsm["fates"].sum(1), 1, atol=1e-5)
    clear = np.abs(cells.X[:, 1]) > 2.5
    assert clear.sum() > 100
    assert ((cells.obsm["fates"][:, 1] > 0.5) == (cells.X[:, 1] > 0))[clear].mean() > 0.95
    groups = cells.uns["forecast"]["groups"]
    first = (cells.obs["clone"] == groups["clone"].iloc[3]).to_numpy()
    np.testing.assert_allclose(cells.uns["fates"]["groups"][3], cells.obsm["fates"][first].mean(0), atol=1e-5)
    del model.adata.obs["side"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.fit_forecaster("2", "5"), KeyError, "'5' is not in the times.*'2', '4'"),
        (lambda m: m.fit_forecaster("2", "4", "rigde"), ValueError, "rigde.*ridge"),
        (lambda m: m.fit_forecaster("2", "4", condition_keys=["durg"]), KeyError, "durg.*drug"),
        (lambda m: m.forecast("4", "2"), RuntimeError, "No forecaster was fitted for 4 -> 2"),
    ],
)
def test_bad_input(model, call, error, message):
    model.fit_forecaster("2", "4")
    with pytest.raises(error, match=message):
        call(model)


def test_times_are_the_same_however_they_are_written(model):
    model.fit_forecaster("2", "4")
    written = model.forecast("2", "4", groups="all")
    for source, target in ((2, 4), (2.0, 4.0), ("2.0", 4)):
        again = model.forecast(source, target, groups="all")
        np.testing.assert_array_equal(written.X, again.X)


def test_a_time_and_itself_is_no_forecast(model):
    with pytest.raises(ValueError, match="needs two times"):
        model.fit_forecaster("4", 4.0)


def test_no_groups(model):
    model.fit_forecaster("2", "4")
    with pytest.raises(ValueError, match="groups= is empty"):
        model.forecast("2", "4", groups=[])


def test_gaussian_populations_move_by_affine_maps_beyond_the_pairs(tiny):
    """Shapes that change with the location, learned in one region: as good elsewhere as the true embedding, nearly."""
    adata = simulate_shifts("shape", 400, 80, seed=0)
    truth = adata.uns["shifts"]
    TDE.setup_anndata(adata, "group", time_key="time")
    model = TDE(adata, **{**tiny.options, "n_components": 1, "n_latent": 16})
    model.train(max_steps=1, validation_size=0.0, plan_kwargs={"lr": 0.0}, **tiny.train)
    model.fit_forecaster("0", "1")
    names = adata.obs["group"].cat.categories
    outside = np.flatnonzero(truth["observed"][:, 0] & ~truth["observed"][:, 1])[:60]
    cells = model.forecast("0", "1", groups=list(names[outside]))
    x = cells.X.reshape(len(outside), 80, 2).astype(float)
    error, change = [], []
    for i, group in enumerate(outside):
        mean, cov = truth["means"][group], truth["covs"][group]
        error.append(w2_gaussian(x[i].mean(0), np.cov(x[i].T), mean[1], cov[1]))
        change.append(w2_gaussian(mean[0], cov[0], mean[1], cov[1]))
    assert np.mean(error) < 0.02 * np.mean(change)
