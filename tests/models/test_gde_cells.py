"""From embeddings back to cells."""

import numpy as np
import pandas as pd
import pytest

from scgde.nn.generators import GENERATORS
from scgde.nn.generators._base import Generator

#: How near means of generated cells are to those of a group of 30 cells of unit variance, after next to no training. The
#: means of the groups themselves have a standard deviation of 2 in each gene.
CLOSE = 0.75


def cells(adata, group):
    return adata.X[(adata.obs["donor"] == group).to_numpy()]


# --- sampling --------------------------------------------------------------------------------------------------------


def test_sample_one_several_and_all(model):
    one = model.sample("donor_2", 7)
    assert one.shape == (7, 4)
    assert one.var_names.tolist() == model.adata.var_names.tolist()
    assert one.obs["donor"].tolist() == ["donor_2"] * 7
    assert one.obs_names.is_unique
    several = model.sample(["donor_4", "donor_1"], 5)
    assert several.obs["donor"].tolist() == ["donor_4"] * 5 + ["donor_1"] * 5
    every = model.sample(n_cells=3)
    assert every.obs["donor"].tolist() == [f"donor_{i}" for i in range(6) for _ in range(3)]
    assert every.X.dtype == np.float32


def test_sampled_cells_have_the_moments_of_their_group(model):
    for group in ("donor_0", "donor_5"):
        own, generated = cells(model.adata, group), model.sample(group, 2000).X
        np.testing.assert_allclose(generated.mean(0), own.mean(0), atol=CLOSE)
        np.testing.assert_allclose(generated.std(0), own.std(0), rtol=0.6)


def test_seed_of_the_draws(model):
    one, again, other = (model.sample("donor_1", 300, seed=seed).X for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert not np.isin(other, one).any()


def test_steps_of_the_sampler(model):
    expected = model.sample("donor_1", 300).X
    np.testing.assert_array_equal(model.sample("donor_1", 300, n_steps=model.module.generator.n_steps).X, expected)
    few, many = (np.abs(model.sample("donor_1", 300, n_steps=n).X - expected).max() for n in (1, 16))
    assert 0 < many < few
    with pytest.raises(ValueError, match="n_steps=0: expected an integer of at least 1"):
        model.sample("donor_1", 3, n_steps=0)


def test_groups_do_not_share_noise(model):
    z = model.get_group_embedding(key_added=None)
    twice = model.sample(pd.concat([z[:1], z[:1]]), 50).X
    assert not np.isin(twice[50:], twice[:50]).any()


@pytest.mark.parametrize("batch_size", [1, 70, 500])
def test_cells_do_not_depend_on_the_batch_size(model, batch_size):
    expected = model.sample(n_cells=300)
    np.testing.assert_allclose(model.sample(n_cells=300, batch_size=batch_size).X, expected.X, atol=1e-4)
    expected = model.transport("donor_1", "donor_2")
    np.testing.assert_allclose(model.transport("donor_1", "donor_2", batch_size=batch_size).X, expected.X, atol=1e-4)
    expected = model.interpolate("donor_1", "donor_2", 3, n_cells=300)
    np.testing.assert_allclose(
        model.interpolate("donor_1", "donor_2", 3, n_cells=300, batch_size=batch_size).X, expected.X, atol=1e-4
    )


@pytest.mark.parametrize("form", ["rows", "row", "array", "vector"])
def test_embeddings_in_place_of_keys(model, form):
    z = model.get_group_embedding(key_added=None)[:1]
    given = {"rows": z, "row": z.iloc[0], "array": z.to_numpy(), "vector": z.to_numpy()[0]}[form]
    expected = model.sample("donor_0", 40, exact_moments=False)
    np.testing.assert_allclose(model.sample(given, 40).X, expected.X, atol=1e-3)
    moved = model.transport("donor_3", given)
    assert moved.obs["source"].unique().tolist() == ["donor_3"]
    assert np.abs(moved.X - cells(model.adata, "donor_3")).max() > 1
    np.testing.assert_allclose(moved.X.mean(0), cells(model.adata, "donor_0").mean(0), atol=2 * CLOSE)
    path = model.interpolate(given, "donor_1", 2, n_cells=40)
    # Interpolation gives all populations the noise of the first group.
    np.testing.assert_allclose(path.X[:40], expected.X, atol=1e-3)


def test_embedding_rows_keep_their_names(model):
    z = model.get_group_embedding(key_added=None)
    assert model.sample(z[2:4], 2).obs["donor"].tolist() == ["donor_2", "donor_2", "donor_3", "donor_3"]
    assert model.sample(z[2:4].to_numpy(), 2).obs["embedding"].tolist() == [0, 0, 1, 1]


def test_exact_moments(model):
    """Measured statistics are nearer to the group than those read back from a short embedding."""
    own = cells(model.adata, "donor_3")
    exact, read = (model.sample("donor_3", 4000, exact_moments=exact).X for exact in (True, False))
    assert not np.array_equal(exact, read)
    np.testing.assert_allclose(exact.mean(0), own.mean(0), atol=CLOSE)
    np.testing.assert_allclose(read.mean(0), own.mean(0), atol=2 * CLOSE)
    moved = [model.transport("donor_0", "donor_3", exact_moments=exact).X.mean(0) for exact in (True, False)]
    np.testing.assert_allclose(moved[0], own.mean(0), atol=CLOSE)
    assert not np.array_equal(*moved)
    ends = model.interpolate("donor_0", "donor_3", 2, n_cells=2000, exact_moments=True).X[2000:]
    np.testing.assert_allclose(ends.mean(0), own.mean(0), atol=CLOSE)


def test_obsm_representation_comes_back_in_obsm(make_adata, make_model):
    adata = make_adata()
    adata.obsm["X_emb"] = adata.X.copy()
    model = make_model(adata, use_rep="X_emb")
    for made in (
        model.sample("donor_1", 3),
        model.transport("donor_1", "donor_2"),
        model.interpolate("donor_1", "donor_2", 2),
    ):
        assert made.var_names.tolist() == ["emb_1", "emb_2", "emb_3", "emb_4"]
        np.testing.assert_array_equal(made.obsm["X_emb"], made.X)


# --- interpolation ---------------------------------------------------------------------------------------------------


def test_interpolation(model):
    path = model.interpolate("donor_0", "donor_5", 5, n_cells=400)
    assert path.n_obs == 2000
    assert path.obs["t"].drop_duplicates().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert path.obs["cell"].tolist() == list(range(400)) * 5
    means = np.stack([path.X[(path.obs["t"] == t).to_numpy()].mean(0) for t in (0, 0.5, 1)])
    np.testing.assert_allclose(means[0], cells(model.adata, "donor_0").mean(0), atol=CLOSE)
    np.testing.assert_allclose(means[2], cells(model.adata, "donor_5").mean(0), atol=CLOSE)
    gap = np.abs(means[2] - means[0]).max()
    assert np.abs(means[1] - means[[0, 2]].mean(0)).max() < 0.25 * gap
    # A cell keeps its noise: it moves less than a random pair of cells of neighbouring populations lies apart.
    steps = path.X.reshape(5, 400, 4)
    followed = np.linalg.norm(np.diff(steps, axis=0), axis=-1).mean()
    shuffled = np.linalg.norm(steps[1:] - np.roll(steps[:-1], 1, axis=1), axis=-1).mean()
    assert followed < 0.75 * shuffled
    np.testing.assert_array_equal(model.interpolate("donor_0", "donor_5", 5, n_cells=400).X, path.X)


# --- transport -------------------------------------------------------------------------------------------------------


def test_transport(model):
    moved = model.transport("donor_1", "donor_4")
    source = model.adata[model.adata.obs["donor"] == "donor_1"].copy()
    assert moved.obs_names.tolist() == source.obs_names.tolist()
    pd.testing.assert_frame_equal(moved.obs[source.obs.columns], source.obs)
    assert moved.obs["source"].unique().tolist() == ["donor_1"]
    assert moved.obs["target"].unique().tolist() == ["donor_4"]
    target = cells(model.adata, "donor_4")
    np.testing.assert_allclose(moved.X.mean(0), target.mean(0), atol=CLOSE)
    np.testing.assert_allclose(moved.X.std(0), target.std(0), rtol=0.6)
    np.testing.assert_array_equal(model.transport("donor_1", "donor_4").X, moved.X)


def test_there_and_back_is_the_identity(model):
    own = model.adata[model.adata.obs["donor"] == "donor_2"].copy()
    stay = model.transport("donor_2", own).X
    assert np.abs(stay - own.X).max() < 1e-2 * own.X.std(0).max()


def test_every_group_reaches_every_other(model):
    names = [f"donor_{i}" for i in range(6)]
    for source, target in zip(names, names[1:] + names[:1], strict=True):
        moved = model.transport(source, target)
        assert np.isfinite(moved.X).all()
        np.testing.assert_allclose(moved.X.mean(0), cells(model.adata, target).mean(0), atol=CLOSE)


def test_generator_that_cannot_be_inverted(make_adata, make_model, monkeypatch):
    class OneWay(Generator):
        def __init__(self, *args, width):
            super().__init__(*args)
            self.net = GENERATORS["flow"](*args, width=width)

        def loss(self, *args):
            return self.net.loss(*args)

        def sample(self, *args, n_steps=None):
            return self.net.sample(*args)

    monkeypatch.setitem(GENERATORS, "one_way", OneWay)
    model = make_model(make_adata(), options={"generator": "one_way"})
    assert model.sample("donor_1", 3).n_obs == 3
    with pytest.raises(ValueError, match="n_steps=4, but the generator 'one_way' takes no steps"):
        model.sample("donor_1", 3, n_steps=4)
    with pytest.raises(TypeError, match=r"'one_way' cannot be inverted. Train with one of \['flow'"):
        model.transport("donor_1", "donor_2")


# --- batches ---------------------------------------------------------------------------------------------------------


def test_batches_condition_the_cells(batch_model):
    """Batch b lies 20 units above batch a in the first gene."""
    own = batch_model.adata
    for group in ("donor_0", "donor_3"):
        low, high = (batch_model.sample(group, 500, batch=batch) for batch in ("a", "b"))
        assert low.obs["library"].unique().tolist() == ["a"]
        real = cells(own[own.obs["library"] == "a"], group)[:, 0].mean()
        assert np.median(low.X[:, 0]) == pytest.approx(real, abs=5)
        assert np.median(high.X[:, 0]) == pytest.approx(real + 20, abs=5)


def test_batches_of_a_group_come_in_their_proportions(make_adata, make_model):
    adata = make_adata(n_cells=60)
    adata.obs["library"] = np.where(np.arange(adata.n_obs) % 4 == 0, "b", "a")
    adata.obs.loc[adata.obs["donor"] == "donor_1", "library"] = "b"
    model = make_model(adata, batch_key="library")
    drawn = model.sample(["donor_0", "donor_1"], 2000).obs
    share = (drawn["library"] == "b").groupby(drawn["donor"]).mean()
    own = (adata.obs["library"] == "b").groupby(adata.obs["donor"]).mean()
    assert share["donor_0"] == pytest.approx(own["donor_0"], abs=0.05)
    assert share["donor_1"] == 1
    z = model.get_group_embedding(key_added=None)
    overall = (model.sample(z[:1], 2000).obs["library"] == "b").mean()
    assert overall == pytest.approx((adata.obs["library"] == "b").mean(), abs=0.05)
    assert model.transport("donor_0", "donor_1", batch="a").n_obs == 60


def test_transport_and_interpolation_to_a_batch(batch_model):
    for batch, level in (("a", 0), ("b", 20)):
        moved = batch_model.transport("donor_1", "donor_1", batch=batch).X[:, 0]
        real = cells(batch_model.adata[batch_model.adata.obs["library"] == "a"], "donor_1")[:, 0].mean()
        assert np.median(moved) == pytest.approx(real + level, abs=5)
        path = batch_model.interpolate("donor_1", "donor_2", 2, n_cells=200, batch=batch)
        assert path.obs["library"].unique().tolist() == [batch]
        assert np.median(path.X[:200, 0]) == pytest.approx(real + level, abs=5)


def test_embeddings_do_not_read_batches(batch_model, unchanged):
    other = batch_model.adata.copy()
    other.obs["library"] = "a"
    pd.testing.assert_frame_equal(
        batch_model.get_group_embedding(other, key_added=None), batch_model.get_group_embedding(key_added=None)
    )


@pytest.mark.parametrize("values", [[3, 7], [True, False], ["a", 1]], ids=["int", "bool", "mixed"])
def test_batches_of_any_type(make_adata, make_model, values):
    adata = make_adata()
    adata.obs["library"] = pd.Series([values[i % 2] for i in range(adata.n_obs)], index=adata.obs_names)
    model = make_model(adata, batch_key="library")
    assert set(model.sample("donor_0", 50).obs["library"]) == set(values)
    assert model.sample("donor_0", 5, batch=values[1]).obs["library"].tolist() == [values[1]] * 5


def test_trust_is_that_of_training_in_its_groups_and_another_in_others(model, monkeypatch):
    assert 0 <= model.fitted_["trust"]["new"] <= model.fitted_["trust"]["known"] <= 1
    monkeypatch.setitem(model.fitted_, "trust", {"known": 0.6, "new": 0.2})
    other = model.adata[model.adata.obs["donor"] == "donor_1"].copy()
    new, known = (model.sample("donor_1", 50, trust=trust).X for trust in (0.2, 0.6))
    assert np.abs(new - known).max() > 1e-4
    np.testing.assert_array_equal(model.sample("donor_1", 50).X, known)
    np.testing.assert_allclose(model.sample("donor_1", 50, adata=other).X, new, atol=1e-5)
    np.testing.assert_allclose(model.interpolate("donor_1", "donor_2", 2, n_cells=50).X[:50], known, atol=1e-4)
    moved, given = (model.transport("donor_1", "donor_2", trust=trust).X for trust in (None, 0.2))
    np.testing.assert_array_equal(moved, given)
    for call in (model.sample, lambda **k: model.transport("donor_1", "donor_2", **k)):
        with pytest.raises(ValueError, match="trust=2"):
            call(trust=2)


def test_cells_that_start_at_an_embedding_are_those_that_it_gives(model, monkeypatch):
    monkeypatch.setitem(model.fitted_, "trust", {"known": 0.6, "new": 0.2})
    z = model.get_group_embedding(key_added=None).loc[["donor_1"]]
    for trust in (None, 0.0):
        path = model.transport(z, "donor_2", n_cells=30, return_trajectory=True, n_steps=2, trust=trust)
        start = path[path.obs["t"] == 0].X
        np.testing.assert_allclose(start, model.sample(z, 30, trust=trust).X, atol=2e-2)


def test_where_batches_are_known_by_learning_alone_it_counts_in_full(batch_model):
    given = batch_model.transport("donor_1", "donor_2", trust=1).X
    np.testing.assert_array_equal(batch_model.transport("donor_1", "donor_2").X, given)
