"""TDE with batches, by both methods; equal bits by seed; and bad times, pairs and groups."""

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from scgde import TDE

GAP = 10
ENDS = ("clone_0", "2"), ("clone_1", "4")


@pytest.fixture(scope="module")
def adata():
    """Six clones on two days; each clone and day has cells of library a and, far from them, more of library b."""
    rng = np.random.default_rng(0)
    clone, day, cell = np.unravel_index(rng.permutation(6 * 2 * 40), (6, 2, 40))
    library = (cell < 25).astype(int)
    x = rng.normal(size=(len(clone), 3)) + np.stack([GAP * library, 6 * day, 2 * clone], axis=1)
    obs = pd.DataFrame(
        {
            "clone": [f"clone_{c}" for c in clone],
            "day": np.array(["2", "4"])[day],
            "library": np.array(["a", "b"])[library],
        },
        index=[f"cell{i}" for i in range(len(clone))],
    )
    return AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=["a", "b", "c"]))


@pytest.fixture(scope="module")
def make(adata, tiny):
    def make(*, steps=2, train=None, setup=None, **options):
        torch.set_num_threads(1)
        own = adata.copy()
        TDE.setup_anndata(own, "clone", **{"time_key": "day", "batch_key": "library", **(setup or {})})
        model = TDE(own, **{**tiny.options, **options})
        model.train(max_steps=steps, **tiny.train, **(train or {}))
        return model

    return make


@pytest.fixture(scope="module", params=["composition", "flow"])
def model(request, make):
    """A trained model of each method. Shared: tests neither train it nor change its AnnData."""
    pairing = {"composition": "any", "flow": "within_group"}[request.param]
    plan = {"lr": 1e-2, "ema_decay": 0.95}
    return make(steps=100, train={"plan_kwargs": plan}, method=request.param, pairing=pairing)


def test_cells_go_to_the_batch_that_is_asked_for(model):
    """By composition all of the way; a field that is trained on coupled cells mostly sees pairs of the same batch."""
    to = {name: model.transport(*ENDS, batch=name) for name in ("a", "b")}
    least = {"composition": 0.85, "flow": 0.5}[model.options["method"]]
    for library in ("a", "b"):
        own = (to["a"].obs["library"] == library).to_numpy()
        gap = to["b"].X[own, 0].mean() - to["a"].X[own, 0].mean()
        assert least * GAP < gap < 1.15 * GAP
    np.testing.assert_allclose(to["a"].X[:, 1:].mean(0), to["b"].X[:, 1:].mean(0), atol=1)


def test_the_batch_is_by_default_the_most_frequent_of_the_target(model):
    np.testing.assert_array_equal(model.transport(*ENDS).X, model.transport(*ENDS, batch="b").X)


def test_an_unknown_batch(model):
    with pytest.raises(KeyError, match=r"'c' is not in the batches of training.*'a', 'b'"):
        model.transport(*ENDS, batch="c")


def test_cells_change_batch_within_their_population(model):
    moved = model.transport(ENDS[0], ENDS[0], batch="a")
    near = (moved.obs["library"] == "a").to_numpy()
    start = model.adata[moved.obs_names]
    assert moved.X[~near, 0].mean() < start.X[~near, 0].mean() - 0.5 * GAP
    np.testing.assert_allclose(moved.X[near].mean(0), start.X[near].mean(0), atol=0.25 * GAP)


def test_save_and_load(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = TDE.load(tmp_path / "model", adata=model.adata.copy(), accelerator="cpu")
    for batch in (None, "a"):
        expected = model.transport(*ENDS, batch=batch).X
        np.testing.assert_allclose(loaded.transport(*ENDS, batch=batch).X, expected, atol=1e-5)


@pytest.mark.parametrize("size", [7, 100])
def test_batch_size_changes_nothing(model, size):
    """Populations of unequal sizes in one call, so that blocks are padded."""
    some = model.adata[np.arange(model.adata.n_obs) % 7 != 0]
    ends = (
        [("clone_0", "2"), ("clone_1", "2"), ("clone_2", "4")],
        [("clone_0", "4"), ("clone_1", "4"), ("clone_3", "2")],
    )
    whole, parts = (model.transport(*ends, some, batch="a", batch_size=n).X for n in (None, size))
    np.testing.assert_allclose(parts, whole, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"method": "flow", "pairing": "forward"}])
def test_the_seed_decides(make, options):
    first, again, other = (make(**options, seed=seed).transport(*ENDS, batch="a").X for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_pairs_of_the_users_own(make):
    pairs = [((f"clone_{i}", "2"), (f"clone_{i + 1}", "4")) for i in range(4)]
    assert make(method="flow", pairing=pairs).transport(*ENDS).n_obs == 40
    with pytest.raises(KeyError, match=r"\('clone_0', '3'\) is not in the groups \(clone, day\)"):
        make(method="flow", pairing=[(("clone_0", "3"), ("clone_0", "4"))])


def test_times_without_an_order(adata, unchanged):
    spoilt = adata.copy()
    spoilt.obs["day"] = spoilt.obs["day"].map({"2": "8h", "4": "7d"})
    with unchanged(spoilt, setup_keys=False), pytest.raises(ValueError, match="'day'.*have no order.*pd.Categorical"):
        TDE.setup_anndata(spoilt, "clone", time_key="day")


def test_a_category_without_cells_is_no_group(make, adata, tiny):
    own = adata.copy()
    own.obs["clone"] = pd.Categorical(own.obs["clone"], categories=[f"clone_{i}" for i in range(8)])
    TDE.setup_anndata(own, "clone", time_key="day")
    model = TDE(own, **tiny.options)
    model.train(max_steps=1, **tiny.train)
    assert len(model.get_group_embedding(key_added=None)) == 12
    with pytest.raises(KeyError, match=r"\('clone_7', '2'\) is not in the groups"):
        model.transport(("clone_7", "2"), ("clone_0", "4"))


@pytest.fixture(scope="module")
def few(adata, tiny):
    """A model of two clones on both days, too few to learn a forecast from."""
    orphan = (adata.obs["clone"] > "clone_1") & (adata.obs["day"] == "4")
    own = adata[~orphan.to_numpy()].copy()
    TDE.setup_anndata(own, "clone", time_key="day")
    model = TDE(own, **tiny.options)
    model.train(max_steps=1, **tiny.train)
    return model


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.fit_forecaster("2", "4"), ValueError, "2 training groups are seen at both '2' and '4'; at least 3"),
        (lambda m: m.fit_forecaster("3", "4"), KeyError, r"'3' is not in the times \(time_key='day'\).*'2', '4'"),
        (lambda m: m.forecast("2", "4"), RuntimeError, "No forecaster was fitted for 2 -> 4"),
    ],
)  # fmt: skip
def test_no_forecast(few, call, error, message):
    with pytest.raises(error, match=message):
        call(few)


def test_groups_to_forecast(make):
    model = make(setup={"batch_key": None})
    model.fit_forecaster("2", "4")
    with pytest.raises(ValueError, match="No group is seen at '2' and not at '4'. Pass groups='all'"):
        model.forecast("2", "4")
    with pytest.raises(KeyError, match=r"clone_9.*is not in the groups"):
        model.forecast("2", "4", groups=["clone_9"])
