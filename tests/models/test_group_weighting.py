"""What groups count in training."""

import numpy as np
import pandas as pd
import pytest
import torch

from scgde import TDE
from scgde.data._sampler import GroupSampler
from scgde.nn.statistics import MixtureStatistics


def sampler(weight, batch_size, **options):
    n = len(weight)
    counts, groups = torch.full((n,), 20), torch.arange(n)
    return GroupSampler(
        counts, groups, batch_size, 4, 2, 0, group_weight=torch.tensor(weight, dtype=torch.float), **options
    )


@pytest.mark.parametrize("batch_size", [3, 5, 12])
def test_groups_are_drawn_and_count_by_weight(batch_size):
    weight = np.r_[[8.0, 4.0], np.ones(8), [0.0, 0.0]]
    weight *= len(weight) / weight.sum()
    draws = sampler(weight, batch_size)
    total, often = np.zeros(12), np.zeros(12)
    for step in range(2000):
        group = draws.groups_of(step)
        assert len(set(group.tolist())) == len(group) == min(batch_size, 10)
        often[group] += 1 / 2000
        total[group] += draws.importance(group).numpy() / len(group) / 2000
    # Standard errors of a share are at most .011: five of them.
    np.testing.assert_allclose(often, draws.probability, atol=0.056)
    np.testing.assert_allclose(total, weight / weight.sum(), atol=0.02)
    assert draws.probability.max() <= 1
    assert often[10:].sum() == 0


def test_ranks_share_a_step():
    whole = sampler(np.arange(1.0, 9.0), 4).groups_of(7).tolist()
    parts = [sampler(np.arange(1.0, 9.0), 4, rank=rank, world_size=2).groups_of(7).tolist() for rank in (0, 1)]
    assert sorted(parts[0] + parts[1]) == sorted(whole)


def test_a_weight_of_two_is_a_group_twice():
    torch.manual_seed(0)
    statistics, twice = MixtureStatistics(3, 2), MixtureStatistics(3, 2)
    twice.load_state_dict(statistics.state_dict())
    x = torch.randn(4, 30, 3) + torch.randn(4, 1, 3)
    sums = statistics.sums(x, torch.full((4, 30), 1 / 30))
    statistics.fit_pooled(sums, torch.tensor([2.0, 1, 1, 1]))
    twice.fit_pooled(sums[[0, 0, 1, 2, 3]])
    torch.testing.assert_close(statistics.pooled_mean, twice.pooled_mean)
    torch.testing.assert_close(statistics.pooled_within, twice.pooled_within)
    statistics.fit_basis(statistics.mixtures(sums), 6, torch.tensor([2.0, 1, 1, 1]))
    twice.fit_basis(twice.mixtures(sums)[[0, 0, 1, 2, 3]], 6)
    torch.testing.assert_close(statistics.center, twice.center)


@pytest.fixture(scope="module")
def adata(make_adata):
    adata = make_adata()
    # One donor of six is "rare", and one has no value.
    kind = adata.obs["donor"].map({f"donor_{i}": "rare" if i == 5 else "common" for i in range(6)})
    adata.obs["kind"] = kind.mask(adata.obs["donor"] == "donor_0")
    adata.obs["mass_of_donor"] = 1.0 + adata.obs["age"]
    return adata


def test_weightings_that_say_the_same_give_the_same_model(adata, make_model):
    def embedding(weighting):
        model = make_model(adata, train={"group_weighting": weighting})
        return model.get_group_embedding(key_added=None).to_numpy()

    by_label = embedding("balanced:kind")
    weight = {f"donor_{i}": 1 / 4 for i in range(1, 5)} | {"donor_5": 1.0, "donor_0": 0.4}
    np.testing.assert_allclose(embedding(pd.Series(weight)), by_label, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(embedding({f"donor_{i}": 3.0 for i in range(6)}), embedding(dict.fromkeys(weight, 1)))
    assert not np.allclose(embedding("uniform"), by_label)
    assert not np.allclose(embedding("mass_of_donor"), by_label)


@pytest.mark.parametrize(
    ("weighting", "error", "words"),
    [
        ("balanced:nothing", KeyError, "nothing"),
        ("kind", ValueError, "balanced:"),
        ("balanced:library", ValueError, "constant"),
        ({"donor_1": 1.0}, ValueError, "donor_0"),
        ({f"donor_{i}": float(i == 0) for i in range(6)}, ValueError, "two"),
        ({f"donor_{i}": -1.0 for i in range(6)}, ValueError, "at least 0"),
        ({"nobody": 1.0}, KeyError, "nobody"),
        (3, TypeError, "int"),
    ],
)
def test_bad_weightings_are_refused_before_any_work(adata, make_model, unchanged, weighting, error, words):
    with unchanged(adata), pytest.raises(error, match=words):
        make_model(adata, train={"group_weighting": weighting})


def test_pairs_cannot_be_weighted(adata, tiny):
    TDE.setup_anndata(adata, "donor")
    model = TDE(adata, method="flow", **tiny.options)
    with pytest.raises(ValueError, match="pairs"):
        model.train(max_steps=1, group_weighting="balanced:disease", **tiny.train)
