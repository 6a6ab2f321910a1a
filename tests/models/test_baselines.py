"""Baselines of forecasting, training without orphans, and held-out groups that reach no forecast."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scgde import TDE
from scgde.models._baselines import BASELINES, Given
from scgde.models._forecast import FORECAST_METHODS

SOURCE_ONLY = {
    "method": "flow",
    "pairing": "within_group",
    "generator_kwargs": {"width": 16, "condition_on": "source"},
}


def clones(*, held_out=0.0, n_held_out=15):
    """16 clones of 10 cells on day 2, of which 12 have 15 on day 4; the last 3 of these are held out."""
    rng = np.random.default_rng(0)
    x, rows = [], []
    for clone in range(16):
        split = "test" if clone in (9, 10, 11) else "train"
        for day, n in (("2", 10), ("4", 15 * (clone < 12))):
            cells = rng.normal(size=(n, 3)) + [clone % 4, 0, 8 * (day == "4")]
            if split == "test" and day == "4":
                cells = np.resize(cells + held_out, (n_held_out, 3))
            x.append(cells)
            rows += [(f"clone_{clone:02d}", day, split)] * len(cells)
    obs = pd.DataFrame(rows, columns=["clone", "day", "split"], index=[f"cell{i}" for i in range(len(rows))])
    return AnnData(np.concatenate(x).astype(np.float32), obs=obs, var=pd.DataFrame(index=["a", "b", "c"]))


@pytest.fixture(scope="module")
def make(tiny):
    def make(adata=None, **options):
        adata = clones() if adata is None else adata
        TDE.setup_anndata(adata, "clone", time_key="day", split_key="split")
        model = TDE(adata, **{**tiny.options, "n_components": 1, **options})
        model.train(max_steps=3, **tiny.train)
        model.fit_forecaster("2", "4")
        return model

    return make


@pytest.fixture(scope="module")
def model(make):
    return make()


def given(n=20, m=30, seed=0, **weights):
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(n, 2)), rng.normal(size=(m, 2)) + [0, 10]
    return Given(source[:7], source, target, *[weights.get(name) for name in ("source", "target")], seed)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_move_every_cell_and_repeat(name):
    moved = BASELINES[name](given())
    assert moved.shape == (7, 2)
    np.testing.assert_array_equal(moved, BASELINES[name](given()))


@pytest.mark.parametrize("name", ["pooled", "nearest_ot"])
def test_ends_are_real_cells_of_positive_mass(name):
    weight = np.r_[np.zeros(20), np.ones(10)]
    known = given(target=weight)
    moved = BASELINES[name](known._replace(cells=np.repeat(known.cells, 50, axis=0)))
    distance = np.linalg.norm(moved[:, None] - known.target, axis=-1)
    assert (distance.min(1) == 0).all()
    assert (distance.argmin(1) >= 20).all()


def test_pooled_cells_are_those_of_the_target():
    known = given()
    moved = BASELINES["pooled"](known._replace(cells=np.zeros((20000, 2))))
    np.testing.assert_allclose(moved.mean(0), known.target.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(known.target.T, ddof=0), atol=0.05)


def test_nearest_ot_is_the_plan_of_the_nearest_cell():
    """A shifted copy: the optimal plan is the shift, and a cell beside a training cell ends where that one does."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=(40, 2))
    order = rng.permutation(40)
    moved = BASELINES["nearest_ot"](Given(source[::2] + 1e-4, source, (source + 5)[order], None, None, 0))
    np.testing.assert_allclose(moved, source[::2] + 5, atol=1e-6)


def test_nearest_ot_splits_mass_by_the_plan():
    """One source cell of all the mass goes to each target cell by that one's mass."""
    mass = np.array([0.2, 0.0, 0.5, 0.3])
    target = np.eye(4)
    moved = BASELINES["nearest_ot"](Given(np.zeros((20000, 4)), np.zeros((1, 4)), target, None, mass, 0))
    np.testing.assert_allclose(moved.mean(0), mass, atol=0.015)


def test_nearest_ot_subsamples(monkeypatch):
    monkeypatch.setattr("scgde.models._baselines.MAX_PLAN_CELLS", 5)
    known = given()
    moved = BASELINES["nearest_ot"](known._replace(cells=known.source))
    assert len(np.unique(moved, axis=0)) <= 5


@pytest.mark.parametrize("method", [name for name in FORECAST_METHODS if name != "oracle"])
def test_forecasts_of_orphans(model, method):
    cells = model.forecast("2", "4", method=method)
    assert cells.n_obs == 40
    assert cells.uns["forecast"]["embedding"].shape == (4, 6)
    shift = cells.X - model.adata[cells.obs_names].X
    np.testing.assert_allclose(shift[:, 2].mean(), 0 if method == "identity" else 8, atol=0.8)
    if method != "forecaster":
        np.testing.assert_array_equal(cells.obs["weight"], 1)
        assert "p_value" not in cells.uns["forecast"]["groups"]


def test_identity_stays(model):
    cells = model.forecast("2", "4", method="identity")
    np.testing.assert_array_equal(cells.X, model.adata[cells.obs_names].X)
    z = model.get_group_embedding(key_added=None).xs("2", level="day").iloc[12:]
    np.testing.assert_allclose(cells.uns["forecast"]["embedding"], z, atol=1e-5)


def test_baselines_need_no_fitted_forecaster(make, model):
    fresh = TDE.from_gde(model, adata=model.adata)
    assert fresh.forecast("2", "4", method="pooled").n_obs == 40
    with pytest.raises(RuntimeError, match="No forecaster was fitted"):
        fresh.forecast("2", "4")


def test_the_oracle_is_transport_to_the_truth(model):
    keys = ["clone_09", "clone_02"]
    cells = model.forecast("2", "4", groups=keys, method="oracle")
    expected = model.transport([(key, "2") for key in keys], [(key, "4") for key in keys])
    np.testing.assert_allclose(cells.X, expected.X, atol=1e-4)
    assert cells.uns["forecast"]["groups"]["clone"].tolist() == keys


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.forecast("2", "4", method="poled"), ValueError, "poled.*pooled"),
        (lambda m: m.forecast("2", "4", method="oracle"), ValueError, "4 groups are not seen at '4'.*clone_12"),
        (lambda m: m.forecast("2", "4", method="pooled", n_draws=3), ValueError, "n_draws=3.*pooled"),
        (lambda m: m.forecast("2", "5", method="identity"), KeyError, "'5' is not in the times"),
    ],
)
def test_bad_input(model, call, error, message):
    with pytest.raises(error, match=message):
        call(model)


def test_fates_of_baselines(model):
    """Labels are those of the training groups' cells on day 4: pooled cells have them in the same shares."""
    obs = model.adata.obs
    obs["level"] = np.where(model.adata.X[:, 0] > 1.5, "high", "low")
    cells = model.fate_probabilities("2", "4", "level", method="pooled", n_neighbors=1)
    train = (obs["day"] == "4") & (obs["split"] == "train")
    assert cells.uns["fates"]["groups"].shape == (16, 2)
    assert cells.obsm["fates"][:, 0].mean() == pytest.approx((obs["level"][train] == "high").mean(), abs=0.12)
    del obs["level"]


def test_source_only_forecasts(make):
    model = make(**SOURCE_ONLY)
    before = model.forecast("2", "4")
    state = model.forecasters_["2 -> 4"]["forecaster"]
    state["target_mean"] = state["target_mean"] + 100
    np.testing.assert_array_equal(model.forecast("2", "4").X, before.X)
    assert model.forecast("2", "4", groups="all", method="identity").n_obs == 160


@pytest.mark.parametrize("options", [{}, {"method": "flow"}, {"method": "flow", "pairing": "within_group"}])
def test_without_orphans_they_do_not_matter(make, options):
    """Cells of orphans are moved far away, and more of them are added: nothing else changes."""
    near, far = clones(), clones()
    orphan = far.obs["clone"].isin([f"clone_{i}" for i in range(12, 16)]).to_numpy()
    far.X[orphan] += 1000
    forecasts = [
        make(adata, orphans=False, **options).forecast("2", "4", groups=["clone_03", "clone_10"])
        for adata in (near, far)
    ]
    np.testing.assert_array_equal(forecasts[0].X, forecasts[1].X)
    np.testing.assert_array_equal(forecasts[0].obs["weight"], forecasts[1].obs["weight"])
    with_orphans = [make(adata, **options).module.shift.numpy() for adata in (near, far)]
    assert np.abs(with_orphans[0] - with_orphans[1]).max() > 1


def test_without_orphans_is_saved(make, tmp_path):
    model = make(orphans=False)
    model.save(tmp_path / "model")
    loaded = TDE.load(tmp_path / "model", adata=model.adata.copy(), accelerator="cpu")
    assert loaded.options["orphans"] is False
    for method in ("forecaster", "pooled"):
        expected = model.forecast("2", "4", method=method)
        np.testing.assert_allclose(loaded.forecast("2", "4", method=method).X, expected.X, atol=1e-5)


def test_without_orphans_needs_times(tiny):
    adata = clones()
    TDE.setup_anndata(adata, "clone")
    with pytest.raises(ValueError, match="none is seen at two times"):
        TDE(adata, **tiny.options, orphans=False).train(max_steps=1, **tiny.train)


@pytest.mark.parametrize("options", [{}, {"orphans": False}, SOURCE_ONLY])
def test_held_out_groups_reach_no_forecast(make, options):
    """Other cells of held-out groups at the target time, and another number of them, change no forecast."""
    models = [make(clones(**held_out), **options) for held_out in ({}, {"held_out": 50.0, "n_held_out": 400})]
    for method in ("forecaster", *BASELINES):
        first, second = (
            model.forecast("2", "4", groups=["clone_10", "clone_12", "clone_03"], method=method) for model in models
        )
        np.testing.assert_array_equal(first.X, second.X)
        np.testing.assert_array_equal(first.obs["weight"], second.obs["weight"])
        # Sums of products of another number of rows may be rounded in another order.
        embeddings = (each.uns["forecast"]["embedding"] for each in (first, second))
        np.testing.assert_allclose(*embeddings, rtol=1e-6, atol=1e-6)
