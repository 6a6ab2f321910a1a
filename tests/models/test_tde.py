"""TDE: times, sources and targets of every form, trajectories, methods, saving, bad input."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scgde import GDE, TDE
from scgde.nn.transport import TRANSPORTS

TIMES = ("2", "4", "10")


@pytest.fixture(scope="module")
def adata():
    """Five clones on up to three days; each day shifts the first feature by 10, and clones differ in the second."""
    rng = np.random.default_rng(0)
    rows = [(c, t) for c in range(5) for t in range(3) if (c, t) not in {(3, 2), (4, 0), (4, 1)} for _ in range(30)]
    clone, time = np.array(rows).T
    x = rng.normal(size=(len(rows), 3)) + np.stack([10 * time, 3 * clone, np.zeros(len(rows))], axis=1)
    obs = pd.DataFrame(
        {
            "clone": [f"clone_{c}" for c in clone],
            "day": [TIMES[t] for t in time],
            "split": np.array(["train", "train", "train", "validation", "test"])[clone],
        },
        index=[f"cell{i}" for i in range(len(rows))],
    )
    return AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=["a", "b", "c"]))


@pytest.fixture(scope="module")
def make(adata, tiny):
    def make(*, steps=3, setup=None, **options):
        own = adata.copy()
        TDE.setup_anndata(own, "clone", **{"time_key": "day", **(setup or {})})
        model = TDE(own, **{**tiny.options, "n_components": 1, **options})
        model.train(max_steps=steps, **tiny.train)
        return model

    return make


@pytest.fixture(scope="module")
def model(make):
    return make()


def own(adata, clone, day):
    return adata[((adata.obs["clone"] == clone) & (adata.obs["day"] == day)).to_numpy()]


def test_populations_are_groups_at_times(model):
    z = model.get_group_embedding()
    assert z.index.names == ["clone", "day"]
    assert len(z) == 12
    assert ("clone_0", "4") in z.index
    assert model.adata.uns["tde"]["embedding"].shape == z.shape
    assert model.adata.uns["tde"]["settings"]["time_key"] == "day"


@pytest.mark.parametrize("method", ["composition", "flow", "energy"])
@pytest.mark.parametrize("exact", [True, False])
def test_transport_moves_the_cells(make, method, exact):
    model = make(method=method)
    moved = model.transport(("clone_0", "2"), ("clone_1", "10"), exact_moments=exact)
    start, target = own(model.adata, "clone_0", "2"), own(model.adata, "clone_1", "10")
    assert moved.obs_names.tolist() == start.obs_names.tolist()
    assert moved.obs["source"].unique().tolist() == ["clone_0 | 2"]
    assert moved.obs["target"].unique().tolist() == ["clone_1 | 10"]
    assert np.abs(moved.X.mean(0) - start.X.mean(0)).max() > 15
    np.testing.assert_allclose(moved.X.mean(0), target.X.mean(0), atol=2)


@pytest.mark.parametrize("method", sorted(TRANSPORTS))
def test_every_method_is_deterministic_in_every_chunking(make, method):
    model = make(method=method, steps=10)
    ends = [("clone_0", "2"), ("clone_1", "2")], [("clone_0", "4"), ("clone_1", "10")]
    moved = model.transport(*ends)
    np.testing.assert_array_equal(model.transport(*ends).X, moved.X)
    np.testing.assert_allclose(model.transport(*ends, batch_size=7).X, moved.X, atol=1e-4)
    np.testing.assert_allclose(model.transport(ends[0][1], ends[1][1]).X, moved.X[30:], atol=1e-4)
    other = model.transport(*ends, seed=1).X
    assert (np.abs(other - moved.X).max() > 0) == (method != "flow")


def test_lists_are_matched_one_to_one_and_equal_single_calls(model):
    sources, targets = (
        [("clone_0", "2"), ("clone_1", "4"), ("clone_2", "2")],
        [("clone_0", "4"), ("clone_1", "10"), ("clone_0", "4")],
    )
    together = model.transport(sources, targets)
    apart = [model.transport(s, t) for s, t in zip(sources, targets, strict=True)]
    np.testing.assert_allclose(together.X, np.concatenate([a.X for a in apart]), atol=1e-4)
    assert together.obs["target"].tolist() == sum((a.obs["target"].tolist() for a in apart), [])


def test_one_source_to_several_targets(model):
    moved = model.transport(("clone_0", "2"), [("clone_0", "4"), ("clone_0", "10")])
    assert moved.n_obs == 60
    assert moved.obs_names.is_unique
    assert moved.X[30:, 0].mean() - moved.X[:30, 0].mean() == pytest.approx(10, abs=2)


def test_anndata_as_source_and_target(model, adata):
    source, target = own(adata, "clone_0", "2").copy(), own(adata, "clone_2", "4").copy()
    del source.obs["clone"], source.obs["day"]
    moved = model.transport(source, target, exact_moments=True)
    expected = model.transport(("clone_0", "2"), ("clone_2", "4"), exact_moments=True)
    np.testing.assert_allclose(moved.X, expected.X, atol=1e-4)
    assert list(source.obs.columns) == ["split"]


def test_embedding_as_source_and_target(model):
    z = model.get_group_embedding(key_added=None)
    expected = model.transport(("clone_0", "2"), ("clone_2", "4"))
    np.testing.assert_allclose(model.transport(("clone_0", "2"), z.loc[("clone_2", "4")]).X, expected.X, atol=1e-3)
    moved = model.transport(z.loc[("clone_0", "2")], z.loc[("clone_2", "4")], n_cells=300)
    assert moved.n_obs == 300
    np.testing.assert_allclose(moved.X.mean(0), expected.X.mean(0), atol=1)


@pytest.mark.parametrize("method", ["composition", "flow", "energy"])
def test_trajectory_goes_from_source_to_target(make, method):
    model = make(method=method)
    path = model.transport(("clone_0", "2"), ("clone_0", "10"), return_trajectory=True, n_steps=5)
    end = model.transport(("clone_0", "2"), ("clone_0", "10"))
    assert path.n_obs == 150
    steps = [path[(path.obs["t"] == t).to_numpy()] for t in np.linspace(0, 1, 5)]
    np.testing.assert_allclose(steps[0].X, own(model.adata, "clone_0", "2").X, atol=0.05)
    np.testing.assert_allclose(steps[-1].X, end.X, atol=0.05)
    assert steps[2].obs["cell"].tolist() == end.obs_names.tolist()
    np.testing.assert_allclose([s.X[:, 0].mean() for s in steps], np.linspace(0, 20, 5), atol=2)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_batch_size_changes_nothing(model, size):
    ends = [("clone_0", "2"), ("clone_1", "2")], [("clone_0", "4"), ("clone_1", "4")]
    np.testing.assert_allclose(model.transport(*ends, batch_size=size).X, model.transport(*ends).X, atol=1e-4)


def test_moved_cells_are_written_where_asked(make):
    model = make()
    moved = model.transport(("clone_0", "2"), ("clone_0", "4"), key_added="X_tde_transported")
    written = model.adata.obsm["X_tde_transported"]
    here = (model.adata.obs["clone"] == "clone_0") & (model.adata.obs["day"] == "2")
    np.testing.assert_array_equal(written[here.to_numpy()], moved.X)
    assert np.isnan(written[~here.to_numpy()]).all()


def test_clones_are_held_out_with_all_their_days(make):
    model = make(setup={"split_key": "split"}, method="flow", pairing="within_group")
    assert model.is_trained_
    adata = model.adata.copy()
    adata.obs.loc[(adata.obs["clone"] == "clone_0") & (adata.obs["day"] == "4"), "split"] = "test"
    with pytest.raises(ValueError, match="split_key=.*not constant within 1 of 5 groups"):
        TDE.setup_anndata(adata, "clone", time_key="day", split_key="split")


def test_what_is_held_out_has_no_influence(make, adata, tiny):
    model = make(setup={"split_key": "split"}, method="flow", pairing="any")
    other = adata.copy()
    other.X[(other.obs["split"] == "test").to_numpy()] += 50
    TDE.setup_anndata(other, "clone", time_key="day", split_key="split")
    again = TDE(other, **{**tiny.options, "n_components": 1, "method": "flow"})
    again.train(max_steps=3, **tiny.train)
    ends = ("clone_0", "2"), ("clone_1", "4")
    np.testing.assert_array_equal(model.transport(*ends).X, again.transport(*ends).X)


def test_from_gde_starts_from_its_networks(adata, tiny):
    GDE.setup_anndata(adata, "clone")
    gde = GDE(adata, **tiny.options)
    gde.train(max_steps=3, **tiny.train)
    tde = TDE.from_gde(gde)
    expected = gde.transport("clone_0", "clone_1", exact_moments=True).X
    np.testing.assert_array_equal(tde.transport("clone_0", "clone_1", exact_moments=True).X, expected)
    timed = adata.copy()
    TDE.setup_anndata(timed, "clone", time_key="day")
    assert len(TDE.from_gde(gde, adata=timed).get_group_embedding()) == 12
    tde.train(max_steps=2, **tiny.train)
    assert (tde.steps_, gde.steps_) == (5, 3)


@pytest.mark.parametrize("method", ["composition", "flow", "energy"])
def test_save_and_load(make, tmp_path, method):
    model = make(method=method)
    model.save(tmp_path / "model")
    loaded = TDE.load(tmp_path / "model", adata=model.adata.copy(), accelerator="cpu")
    ends = ("clone_0", "2"), ("clone_1", "4")
    np.testing.assert_array_equal(loaded.transport(*ends).X, model.transport(*ends).X)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.transport(("clone_0", "3"), ("clone_0", "4")), KeyError, "clone_0"),
        (lambda m: m.transport(("clone_0", "2"), ("clone_0", "2")), ValueError, "same population"),
        (lambda m: m.transport(m.adata[:0].copy(), ("clone_0", "2")), ValueError, "AnnData holds no cells"),
        (lambda m: m.transport([("clone_0", "2")] * 2, [("clone_0", "4")] * 3), ValueError, "2 populations and target= 3"),
        (lambda m: m.transport(("clone_0", "2"), [("clone_0", "4"), ("clone_0", "10")], key_added="x"), ValueError, "move once"),
        (lambda m: TDE(m.adata, method="flwo"), ValueError, "flwo.*flow"),
        (lambda m: TDE(m.adata, method="flow", pairing="forwards"), ValueError, "forwards.*forward"),
        (lambda m: TDE(m.adata, generator="vae"), ValueError, "'vae' cannot be inverted.*'flow', 'diffusion'.*'energy'"),
        (lambda m: TDE(m.adata, method="energy", generator_kwargs={"coupling": "ot"}), ValueError, "'coupling' is not in the options of 'energy'"),
        (lambda m: TDE(m.adata, pairing="forward"), ValueError, "pairing='forward' is for method='flow' or 'energy'"),
        (lambda m: TDE.setup_anndata(m.adata.copy(), "clone", time_key="clone"), ValueError, "no order|one of the groupby"),
        (lambda m: TDE.setup_anndata(m.adata.copy(), "clone", time_key="dya"), KeyError, "dya.*day"),
    ],
)  # fmt: skip
def test_bad_input(model, call, error, message):
    with pytest.raises(error, match=message):
        call(model)


def test_pairs_are_needed(adata, tiny):
    orphans = adata[(adata.obs["day"] == "2").to_numpy()].copy()
    TDE.setup_anndata(orphans, "clone", time_key="day")
    for pairing, message in (("within_group", "no pair of training groups"), ("forward", "needs two times")):
        with pytest.raises(ValueError, match=message):
            TDE(orphans, **tiny.options, method="flow", pairing=pairing).train(max_steps=1, **tiny.train)


def test_pairs_of_the_user(make):
    model = make(method="flow", pairing=[(("clone_0", "2"), ("clone_1", "4")), (("clone_2", "4"), ("clone_0", "10"))])
    assert model.is_trained_


def test_pair_trained_models_generate_nothing(make):
    with pytest.raises(TypeError, match="method='flow' moves cells and generates none"):
        make(method="flow").sample(("clone_0", "2"))
