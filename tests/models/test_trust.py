"""What was learned counts as far as it helps on cells that training has not seen."""

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from scgde import GDE
from scgde.data._batch import GroupBatch
from scgde.models._trust import MAX_DRAWS, MIN_DRAWS, NUMBERS, PRIOR_GROUPS, default_trust, fit_trust


class Loss:
    """A plan whose loss has its least value at a weight that depends on the group, or falls or rises throughout."""

    module = torch.nn.Linear(1, 1)
    module.device = torch.device("cpu")

    def __init__(self, of_group):
        self.of_group, self.calls = of_group, 0

    def loss(self, batch, *, step, measured, trust):
        self.calls += 1
        return self.of_group(batch.group, trust), None


class Held:
    """Batches of groups held out: 0 to 3 are training groups, others are not."""

    train_groups, validation_groups = torch.arange(4), torch.arange(4, 100)

    def __init__(self, *loaders):
        self.loaders = loaders

    def validation_batches(self):
        return [[_batch(groups) for groups in loader] for loader in self.loaders]


def _batch(groups):
    group = torch.tensor(groups)
    return GroupBatch(group, *[torch.zeros(len(group), 2, 1)] * 5, None, 0)


@pytest.mark.parametrize(("least", "expected"), [(0.3, 0.3), (-1.0, 0.0), (2.0, 1.0), (1.0, 1.0)])
def test_the_weight_of_the_least_loss_is_found(least, expected):
    plan = Loss(lambda group, trust: (trust - least) ** 2 + group.double())
    found = fit_trust(plan, Held([[0, 1], [2, 3]]))
    assert found["known"] == pytest.approx(expected, abs=1e-9)
    assert plan.calls == 2 * MAX_DRAWS * 3


@pytest.mark.parametrize(("n_features", "n_draws"), [(NUMBERS, MIN_DRAWS), (NUMBERS // 20, 6), (1, MAX_DRAWS)])
def test_many_numbers_are_drawn_less_often(n_features, n_draws):
    plan = Loss(lambda group, trust: (trust - 0.5) ** 2 + 0.0 * group)
    batch = _batch([0, 1])._replace(x_score=torch.zeros(()).expand(2, 2, n_features))
    held = Held()
    held.validation_batches = lambda: [[batch]]
    assert fit_trust(plan, held)["known"] == pytest.approx(0.5)
    assert plan.calls == 3 * n_draws


@pytest.mark.parametrize(("slope", "expected"), [(-1.0, 1.0), (1.0, 0.0)])
def test_a_loss_without_a_least_value_is_least_at_an_end(slope, expected):
    plan = Loss(lambda group, trust: slope * trust - 0.1 * trust**2 + 0.0 * group)
    assert fit_trust(plan, Held([[0, 1]]))["known"] == expected


def test_groups_count_equally_in_batches_of_any_size():
    plan = Loss(lambda group, trust: (trust - torch.where(group == 0, 0.9, 0.1).double()) ** 2)
    assert fit_trust(plan, Held([[0, 1, 2], [3]]))["known"] == pytest.approx(0.3)


@pytest.mark.parametrize("n_held", [1, 10, 80])
def test_new_groups_count_by_how_many_were_held_out(n_held):
    plan = Loss(lambda group, trust: (trust - 0.5) ** 2 + 0.0 * group)
    found = fit_trust(plan, Held([[0, 1, 2, 3]], [list(range(4, 4 + n_held))]))
    prior = default_trust(4)["new"]
    assert found["new"] == pytest.approx((n_held * 0.5 + PRIOR_GROUPS * prior) / (n_held + PRIOR_GROUPS))
    assert found["known"] == pytest.approx(0.5)


def test_where_nothing_is_held_out_the_number_of_groups_decides():
    assert fit_trust(Loss(None), Held()) == default_trust(4) == {"known": 1.0, "new": 4 / 104}


def test_new_groups_are_not_trusted_more_than_known_ones():
    plan = Loss(lambda group, trust: (trust - torch.where(group < 4, 0.2, 0.9).double()) ** 2)
    found = fit_trust(plan, Held([[0, 1]], [list(range(4, 90))]))
    assert found["new"] == found["known"] == pytest.approx(0.2)


def test_models_without_these_weights_have_those_of_their_number_of_groups(model, monkeypatch):
    monkeypatch.setitem(model.fitted_, "trust", None)
    monkeypatch.setitem(model.fitted_, "n_train", 50)
    other = model.adata[model.adata.obs["donor"] == "donor_0"].copy()
    np.testing.assert_allclose(
        model.sample("donor_0", 20, adata=other).X, model.sample("donor_0", 20, trust=1 / 3).X, atol=1e-5
    )
    np.testing.assert_array_equal(model.sample("donor_0", 20).X, model.sample("donor_0", 20, trust=1.0).X)


def test_batches_and_counts_are_known_by_learning_alone(batch_model):
    assert batch_model.fitted_["trust"] == {"known": 1.0, "new": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize(("generator", "most"), [("flow", 0.5), ("vae", 0.7)])
def test_little_is_trusted_where_statistics_say_all(generator, most):
    rng = np.random.default_rng(0)
    mean, scale = rng.normal(size=(60, 1, 2)), np.exp(0.3 * rng.normal(size=(60, 1, 2)))
    x = (mean + scale * rng.normal(size=(60, 40, 2))).reshape(-1, 2).astype(np.float32)
    donor = pd.Series(np.repeat([f"d{i}" for i in range(60)], 40), index=[str(i) for i in range(len(x))])
    adata = AnnData(x, obs=donor.to_frame("donor"))
    GDE.setup_anndata(adata, "donor")
    model = GDE(adata, generator=generator, seed=0)
    model.train(max_steps=300, enable_progress_bar=False)
    assert model.module.statistics.n_components == 1
    assert model.fitted_["trust"]["known"] < most
