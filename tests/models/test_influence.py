"""Influence functions of embeddings, against automatic differentiation, the jackknife and repeated draws."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import stats

from scgde.models import _influence
from scgde.models._blocks import GroupedRows
from scgde.models._inference import encode_groups
from scgde.models._influence import Influence, dispersion
from scgde.models._module import GDEModule
from scgde.nn._shared_mixture import fit_shared_mixture
from scgde.nn.encoders import ENCODERS

SIZES = (40, 1, 25, 2)


@pytest.fixture(params=sorted(ENCODERS))
def encoder(request):
    return request.param


def make_module(encoder, n_features=3, pooling=None):
    """An untrained module with fitted statistics, in float64."""
    rng = torch.Generator().manual_seed(0)
    groups = [torch.randn(50, n_features, generator=rng) + 2 * torch.randn(n_features, generator=rng) for _ in range(9)]
    statistics = fit_shared_mixture(groups, feature_scale=torch.ones(n_features), n_components=2, seed=0)
    sums = torch.cat([statistics.sums(x[None], torch.full((1, 50), 1 / 50)) for x in groups])
    statistics.fit_pooled(sums)
    statistics.fit_basis(statistics.mixtures(sums), 5)
    options = {"width": 8} if encoder in {"attention", "deepsets", "resnet"} else {}
    options |= {"pooling": pooling} if pooling else {}
    module = GDEModule()
    module.build(
        n_features=n_features,
        n_components=2,
        n_coordinates=len(statistics.basis),
        n_code=3,
        n_batch=0,
        encoder=encoder,
        generator="flow",
        encoder_kwargs=options,
        generator_kwargs={"width": 8},
        seed=0,
        statistics=statistics,
    )
    module.encoder.fit(groups, 0)
    module.code_scale.fill_(1.7)
    return module.double().eval()


def make_cells(n_features=3, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    return rng.normal(size=(len(codes), n_features)) + 0.5 * codes[:, None], codes, rng.uniform(0.2, 2, len(codes))


def embed(module, x, weight):
    """The embedding of one group, (n_latent,), as a differentiable function of the weights of its cells."""
    share = (weight / weight.sum())[None]
    statistics = module.statistics
    coordinates = statistics.coordinates(statistics.mixtures(statistics.sums(x[None], share)))
    return module.embedding(coordinates, module.encoder(x[None], share))[0]


@pytest.mark.parametrize("pooling", [None, "softmax"])
@pytest.mark.parametrize("n_features", [3, 8])
def test_influence_is_the_derivative_by_the_weights(encoder, n_features, pooling):
    if pooling and encoder not in {"attention", "deepsets", "resnet"}:
        pytest.skip("this encoder has no pooling to choose")
    module = make_module(encoder, n_features, pooling)
    x, codes, weight = make_cells(n_features)
    rows = GroupedRows.from_codes(codes, len(SIZES), weight)
    for size in (7, 1000):
        influence = Influence(module, rows, x, size)
        for g in range(len(SIZES)):
            own = codes == g
            cells, mass = torch.from_numpy(x[own]), torch.from_numpy(weight[own])
            # d/de of the weights w + e (delta_i - w): the derivative by each weight, of masses that sum to 1.
            expected = torch.autograd.functional.jacobian(
                lambda w, cells=cells: embed(module, cells, w), mass / mass.sum()
            ).T
            found = influence.of(cells[None], torch.tensor([g]))[0]
            torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-6)
            mean = (mass / mass.sum()) @ found
            torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-8, rtol=0)


def test_some_entries_alone_are_the_same(encoder):
    module = make_module(encoder)
    x, codes, weight = make_cells()
    full = dispersion(module, x, codes, len(SIZES), weight=weight).covariance
    for some in (slice(2), slice(6), slice(1, 4), slice(4, 7), slice(6, None)):
        part = dispersion(module, x, codes, len(SIZES), weight=weight, entries=some).covariance
        np.testing.assert_allclose(part, full[:, some, some], rtol=1e-9, atol=1e-12)
    variance = dispersion(module, x, codes, len(SIZES), weight=weight, diagonal=True).covariance
    np.testing.assert_allclose(variance, np.einsum("gii->gi", full), rtol=1e-9, atol=1e-12)


def test_linear_functions_of_the_embedding(encoder):
    module = make_module(encoder)
    x, codes, weight = make_cells()
    full = dispersion(module, x, codes, len(SIZES), weight=weight).covariance
    directions = np.random.default_rng(2).normal(size=(len(SIZES), 2, full.shape[1]))
    found = dispersion(module, x, codes, len(SIZES), weight=weight, directions=directions).covariance
    np.testing.assert_allclose(found, directions @ full @ directions.transpose(0, 2, 1), rtol=1e-6, atol=1e-12)


def test_jackknife_agrees(encoder):
    """Leaving out one cell at a time, in a group of 200: the two differ by terms of the order of 1 / 200."""
    module = make_module(encoder)
    x = np.random.default_rng(1).normal(size=(200, 3))
    left = np.tile(x, (200, 1, 1))[~np.eye(200, dtype=bool)]
    z = encode_groups(module, left, np.repeat(np.arange(200), 199), 200).z.double().numpy()
    jackknife = 199 * np.cov(z.T, ddof=0)
    found = dispersion(module, x, np.zeros(200, dtype=int), 1).covariance[0]
    used = np.diag(jackknife) > 1e-12
    ratio = np.diag(found)[used] / np.diag(jackknife)[used]
    assert (np.abs(ratio - 1) < 0.15).all()
    sd = np.sqrt(np.diag(jackknife)[used])
    assert (np.abs((found - jackknife)[np.ix_(used, used)] / np.outer(sd, sd)) < 0.15).all()


def test_groups_are_taken_in_turns(encoder, monkeypatch):
    module = make_module(encoder)
    x, codes, weight = make_cells()
    whole = dispersion(module, x, codes, len(SIZES), weight=weight).covariance
    monkeypatch.setattr(_influence, "MAX_GROUPS", 3)
    again = dispersion(module, x, codes, len(SIZES), weight=weight, batch_size=11).covariance
    np.testing.assert_allclose(again, whole, rtol=1e-9, atol=1e-12)


def test_counts_are_repeated_cells(encoder):
    module = make_module(encoder)
    x, codes, _ = make_cells()
    counts = np.random.default_rng(4).integers(1, 5, len(codes))
    found = dispersion(module, x, codes, len(SIZES), weight=counts, counts=True)
    expected = dispersion(module, np.repeat(x, counts, axis=0), np.repeat(codes, counts), len(SIZES))
    np.testing.assert_allclose(found.n_effective, expected.n_effective)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-8, atol=1e-12)


def test_degrees_of_freedom_tell_how_many_cells_a_variance_rests_on():
    """Influences of means are the cells themselves: normal ones give about n - 1, a rare type that sets them few."""
    module = make_module("moments")
    rng = np.random.default_rng(7)
    normal = rng.normal(size=(20, 300, 3))
    rare = 0.05 * rng.normal(size=(20, 300, 3))
    rare[:, :3] += 4
    codes = np.repeat(np.arange(40), 300)
    found = dispersion(module, np.concatenate([normal, rare]).reshape(-1, 3), codes, 40, degrees=True)
    assert (found.df <= 299).all()
    assert np.median(found.df[:20]) > 50
    assert np.median(found.df[20:]) < 10
    assert found.joint_df.shape == (40,)
    assert found.joint_df[:20].min() > found.joint_df[20:].max()
    few = dispersion(module, rng.normal(size=(6, 3)), np.zeros(6, dtype=int), 1, degrees=True)
    assert np.isnan(few.joint_df).all()


def test_inflation_is_what_skewness_does_to_hotelling_s_statistic():
    """The mean of T^2 / p over sets of 60 skewed influences is that of normal ones plus the inflation's prediction.

    60,000 sets leave a standard error of .006 of a difference of .1 to .2; terms of higher order are allowed a third.
    """
    module, rng, n, sets = make_module("moments"), np.random.default_rng(8), 60, 60_000
    x = rng.gamma(2.0, size=(5000, 3)) - 2
    rows = GroupedRows.from_codes(np.zeros(len(x), dtype=int), 1)
    influence = Influence(module, rows, x, 10_000, slice(2))
    inflation = influence.degrees_of_freedom(influence.second_moments(diagonal=False))[2][0]
    predicted = (inflation - 1) / _influence.SKEWNESS * len(x) / n
    own = influence.of(torch.from_numpy(x)[None], torch.tensor([0]))[0].numpy()
    drawn = own[rng.integers(len(x), size=(sets, n))]
    mean = drawn.mean(1)
    deviation = drawn - mean[:, None]
    covariance = np.einsum("sni,snj->sij", deviation, deviation) / (n - 1) / n
    t2 = np.einsum("si,si->s", mean, np.linalg.solve(covariance, mean[..., None])[..., 0])
    excess = t2.mean() / 2 - (n - 1) / (n - 4)
    assert abs(excess / predicted - 1) < 1 / 3
    assert dispersion(module, x, rows.order * 0, 1, degrees=True).inflation.shape == (1,)


def test_intervals_hold_the_embedding(model):
    z, se = model.get_group_embedding(return_se=True, key_added=None)
    lower, upper = model.group_intervals()
    wide = model.group_intervals(level=0.999)
    np.testing.assert_allclose((lower + upper) / 2, z, atol=1e-5)
    assert (upper - z > 1.95 * se).all().all()
    assert (wide[1] > upper).all().all()
    with pytest.raises(ValueError, match="level=95"):
        model.group_intervals(level=95)


def test_symmetric_roots_have_derivatives_where_eigenvalues_are_equal():
    from scgde.nn.mixtures import symmetric_root

    covariance = 4 * torch.eye(3, dtype=torch.float64)[None]
    covariance.requires_grad_()
    change = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 2]], dtype=torch.float64)
    (symmetric_root(covariance)[0] * change).sum().backward()
    # The derivative of the root of c I in direction H is H / (2 sqrt(c)).
    torch.testing.assert_close(covariance.grad[0], change / 4)


# --- results of a model ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adata(make_adata):
    return make_adata(n_groups=6, n_cells=40)


@pytest.fixture(scope="module")
def model(adata, make_model):
    return make_model(adata, steps=30)


def test_standard_errors_are_returned_and_written(model, adata):
    data = adata.copy()
    z, se = model.get_group_embedding(data, return_se=True)
    pd.testing.assert_frame_equal(z, model.get_group_embedding(data, key_added=None))
    assert se.shape == z.shape
    assert se.index.equals(z.index)
    assert (se.to_numpy() > 0).all()
    entry = data.uns["gde"]
    np.testing.assert_array_equal(entry["se"], se.to_numpy())
    assert entry["se"].dtype == np.float32
    assert entry["groups"]["n_effective"].tolist() == [40.0] * 6
    assert not entry["groups"]["few_cells"].any()
    covariance = model.group_covariance(data)
    np.testing.assert_allclose(np.sqrt(np.einsum("gii->gi", covariance)), se.to_numpy(), rtol=1e-5)
    one = model.group_covariance(data, groups=["donor_3", "donor_1"])
    np.testing.assert_allclose(one, covariance[[3, 1]], rtol=1e-5, atol=1e-10)


def test_errors_do_not_depend_on_order_and_shrink_with_duplicates(model, adata):
    se = model.get_group_embedding(return_se=True, key_added=None)[1]
    order = np.random.default_rng(0).permutation(adata.n_obs)
    shuffled = model.get_group_embedding(adata[order].copy(), return_se=True, key_added=None, batch_size=50)[1]
    np.testing.assert_allclose(shuffled, se, rtol=1e-4)
    # The same distribution, as if four times as many cells had been seen: 1 / (n - 1) becomes 1 / (4 n - 1).
    index = np.repeat(np.arange(adata.n_obs), 4)
    more = AnnData(adata.X[index], obs=adata.obs.iloc[index].reset_index(drop=True).rename(str), var=adata.var)
    repeated = model.get_group_embedding(more, return_se=True, key_added=None)[1]
    np.testing.assert_allclose(repeated, se * np.sqrt(39 / 159), rtol=1e-3)


def test_weighted_groups_have_fewer_effective_cells(make_adata, make_model):
    adata = make_adata(n_groups=5, n_cells=100)
    adata.obs["mass"] = np.where(np.random.default_rng(0).random(adata.n_obs) < 0.5, 1.0, 0.05)
    model = make_model(adata, weight_key="mass", steps=3)
    n = model.effective_cells()
    mass = adata.obs["mass"][adata.obs["donor"] == "donor_2"]
    assert n["donor_2"] == pytest.approx(mass.sum() ** 2 / (mass**2).sum())
    weighted = model.get_group_embedding(return_se=True, key_added=None)[1]
    adata.obs["mass"] = 1.0
    equal = model.get_group_embedding(adata.copy(), return_se=True, key_added=None)[1]
    assert 1.1 < float((weighted / equal).median().median()) < 2


def test_small_groups_are_marked_and_named(model, adata):
    few = adata[(adata.obs["donor"] != "donor_2") | (np.arange(adata.n_obs) % 2 == 0)]
    few = few[~few.obs["donor"].isin(["donor_4"])].copy()
    lone = adata[adata.obs["donor"] == "donor_4"][:1]
    few = AnnData(np.vstack([few.X, lone.X]), obs=pd.concat([few.obs, lone.obs]), var=adata.var)
    with pytest.warns(UserWarning, match=r"2 of 6 groups have fewer than 30 effective cells \(donor_2, donor_4\)"):
        se = model.get_group_embedding(few, return_se=True)[1]
    assert few.uns["gde"]["groups"].set_index("donor")["few_cells"].to_dict() == {
        f"donor_{i}": i in {2, 4} for i in range(6)
    }
    assert se.loc["donor_4"].isna().all()
    assert se.drop("donor_4").notna().all().all()


def test_intervals_cover_the_population(model):
    """Of 400 draws of 200 cells, 95% intervals of 6 entries cover the population's embedding: 2,400 correlated trials.

    With at least 400 independent ones the standard error of the coverage is at most 1.1%, and the exact test at 92% and
    98% fails by chance with probability below 0.01.
    """
    rng = np.random.default_rng(3)

    def draw(n):
        x = rng.normal(size=(n, 4)) * [1, 0.7, 1.2, 1]
        x[rng.random(n) < 0.3] += 1.5
        return x.astype(np.float32)

    module = model.module
    truth = encode_groups(module, draw(400_000), np.zeros(400_000, dtype=int), 1, batch_size=100_000).z.numpy()
    x, codes = draw(400 * 200), np.repeat(np.arange(400), 200)
    z = encode_groups(module, x, codes, 400).z.numpy()
    se = np.sqrt(dispersion(module, x, codes, 400, diagonal=True).covariance)
    coverage = (np.abs(z - truth) < 1.97 * se).mean()
    assert 0.92 < coverage < 0.98


def test_no_warning_without_small_groups(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.get_group_embedding(return_se=True, key_added=None)


def test_region_of_one_entry_is_hotelling_s(model):
    """With one entry M is the squared half width of Student's interval, but for the skewness that it counts."""
    z, shape = model.group_regions(n_components=1, level=0.9)
    z2, wide = model.group_regions(n_components=3, level=0.9)
    assert shape.shape == (len(z), 1, 1)
    assert wide.shape == (len(z), 3, 3)
    np.testing.assert_array_equal(z2.to_numpy()[:, :1], z.to_numpy())
    covariance = model.group_covariance()[:, 0, 0]
    assert (shape[:, 0, 0] >= stats.norm.ppf(0.95) ** 2 * covariance).all()
    assert (shape[:, 0, 0] < 3 * stats.norm.ppf(0.95) ** 2 * covariance).all()
    # The region of three entries, seen along one of them, is wider than that of this one alone.
    assert (wide[:, 0, 0] > shape[:, 0, 0]).all()
    for bad, message in (({"level": 2}, "level=2"), ({"n_components": 17}, "n_components=17")):
        with pytest.raises(ValueError, match=message):
            model.group_regions(**bad)
