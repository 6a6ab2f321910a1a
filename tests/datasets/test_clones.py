"""Simulated clones against their stated laws: fates, growth, what is observed, and what early cells give away."""

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict

from scgde.datasets import FATES, simulate_clones

SMALL = {"n_clones": 30, "n_truth_cells": 5}
RATES = np.array([-0.15, 0.0, 0.15])


def assert_zero_in_expectation(values, n_errors=5):
    """Check means over the first axis (independent clones) against their own standard errors."""
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    np.testing.assert_array_less(np.abs(values.mean(axis=0)), n_errors * error)


def counts(adata, *columns):
    sizes = adata.obs.groupby(list(columns), observed=False).size()
    return sizes.to_numpy().reshape([len(adata.obs[column].cat.categories) for column in columns])


@pytest.fixture(scope="module")
def cohort():
    return simulate_clones(seed=1)


def test_form(cohort):
    observed, truth = cohort
    assert observed.X.dtype == truth.X.dtype == np.float32
    assert list(observed.obs) == ["clone", "day", "cell_type"]
    assert list(truth.obs) == ["clone", "day", "cell_type", "fate", "progress"]
    for adata in cohort:
        assert adata.n_vars == 20
        assert adata.obs_names.is_unique
        assert list(adata.obs["clone"].cat.categories[[0, -1]]) == ["clone_000", "clone_399"]
        assert list(adata.obs["day"].cat.categories) == ["2", "4", "6"]
        assert adata.obs["day"].cat.ordered
        assert list(adata.obs["cell_type"].cat.categories) == ["progenitor", *FATES]
    assert (counts(truth, "clone", "day") == 200).all()
    assert list(truth.uns["clones"]["day"]) == ["2", "4", "6"]


def test_cells_of_the_truth_are_others_than_those_observed(cohort):
    cells = np.concatenate([adata.X for adata in cohort])
    assert len(np.unique(cells, axis=0)) == len(cells)


def test_orphans_are_seen_on_one_random_day_and_the_others_on_all(cohort):
    observed, truth = cohort
    clones = truth.uns["clones"]
    np.testing.assert_array_equal(counts(observed, "clone", "day"), clones["n_observed"])
    assert clones["paired"].sum() == 40
    days_seen = (clones["n_observed"] > 0).sum(axis=1)
    assert (days_seen[~clones["paired"]] <= 1).all()
    assert days_seen[clones["paired"]].mean() > 2.9
    days = (clones["n_observed"][~clones["paired"]] > 0).sum(axis=0)
    np.testing.assert_array_less(np.abs(days - 120), 5 * np.sqrt(360 * 2 / 9))


@pytest.mark.parametrize(("fraction", "n_paired"), [(0, 30), (0.5, 15), (1, 0)])
def test_share_of_orphans(fraction, n_paired):
    assert simulate_clones(**SMALL, orphan_fraction=fraction)[1].uns["clones"]["paired"].sum() == n_paired


@pytest.mark.parametrize("depth", [None, (0.5, 0.3, 0.1)])
def test_numbers_of_cells_are_poisson_around_depth_times_size(depth):
    observed, truth = simulate_clones(orphan_fraction=0, sampling_depth=depth, n_truth_cells=1)
    clones = truth.uns["clones"]
    used = observed.uns["simulate_clones"]["sampling_depth"]
    np.testing.assert_allclose(used, depth or np.exp(-0.4 * np.array([0, 2, 4])))
    standardised = (clones["n_observed"] - used * clones["size"]) / np.sqrt(used * clones["size"])
    assert_zero_in_expectation(standardised)
    assert_zero_in_expectation(standardised**2 - 1)
    assert clones["size"][:, 0].min() >= 10
    assert clones["size"][:, 0].max() <= 60
    np.testing.assert_allclose(clones["log_growth"], np.log(clones["size"][:, 1:] / clones["size"][:, :-1]))


def test_growth_follows_its_law():
    truth = simulate_clones(1000, days=(1, 2, 5), bias=0, growth=0.2, n_truth_cells=1)[1]
    # Without bias one third of the cells of the first day go to each fate.
    multiple = np.exp(RATES * np.array([[0], [1], [4]])).mean(axis=1)
    noise = truth.uns["clones"]["log_growth"] - np.diff(0.2 * np.array([1, 2, 5]) + np.log(multiple))
    assert_zero_in_expectation(noise)
    assert_zero_in_expectation(noise**2 - (0.1 * np.array([1, 3])) ** 2)
    # The effect of a clone stays with it.
    np.testing.assert_allclose(noise[:, 1], 3 * noise[:, 0])


def test_cells_have_the_stated_types(cohort):
    truth = cohort[1]
    stated = truth.uns["clones"]["fate_proportions"]
    np.testing.assert_allclose(stated.sum(axis=-1), 1)
    drawn = counts(truth, "clone", "day", "cell_type")
    # Too rare types make averages of squares far from normal: they are left to the other checks.
    for day, cell_type in np.argwhere(stated.mean(axis=0) > 0.02):
        p, n = stated[:, day, cell_type], drawn[:, day, cell_type]
        assert_zero_in_expectation(n / 200 - p)
        assert_zero_in_expectation((n - 200 * p) ** 2 - 200 * p * (1 - p))


def test_fast_fates_take_over(cohort):
    share = cohort[1].uns["clones"]["fate_proportions"][..., 1:]
    odds = np.log(share[..., 2] / share[..., 0])
    np.testing.assert_allclose(np.diff(odds, axis=1), 0.3 * 2)


def test_cells_move_along_the_tree_at_the_pace_of_their_clone(cohort):
    obs = cohort[1].obs
    np.testing.assert_array_equal(obs["cell_type"] == "progenitor", obs["progress"] <= 1)
    committed = obs[obs["progress"] > 1]
    np.testing.assert_array_equal(committed["cell_type"].astype(str), committed["fate"].astype(str))
    progress = obs["progress"].to_numpy().reshape(400, 3, 200)
    pace = progress.mean(axis=2) / np.array([2, 4, 6])
    assert_zero_in_expectation(pace[:, :1] - pace[:, 1:])
    assert_zero_in_expectation(np.log(pace[:, 2] / 0.25))
    assert np.log(pace[:, 2]).std() == pytest.approx(0.15, rel=0.15)
    assert_zero_in_expectation(progress.var(axis=2, ddof=1) - 0.25**2)


def test_features_are_eight_latent_variables_and_noise(cohort):
    covariance = np.cov(cohort[1].X.astype(float), rowvar=False)
    noise = 0.25 / np.sqrt(np.arange(1, 21)) + 0.05
    values = np.linalg.eigvalsh(covariance - np.diag(noise**2))[::-1]
    assert values[7] > 0.01
    # Variances of the noise are at most 0.09, and known to 1/350 of that.
    np.testing.assert_array_less(np.abs(values[8:]), 1e-3)


@pytest.mark.parametrize("fate", FATES)
def test_branches_are_curved_and_each_has_its_own_direction(cohort, fate):
    truth = cohort[1]
    noise = 0.25 / np.sqrt(np.arange(1, 21)) + 0.05
    # Within clones, whose displacement would give away the fate as well.
    late = truth[(truth.obs["progress"] > 1).to_numpy()]
    x = pd.DataFrame(late.X / noise, index=late.obs_names)
    end = late.obs["progress"] > 1.4
    means = x[end].groupby([late.obs["clone"][end], late.obs["fate"][end]], observed=True).mean().unstack("fate")
    for other in set(FATES) - {fate}:
        difference = means.xs(fate, axis=1, level="fate") - means.xs(other, axis=1, level="fate")
        assert np.linalg.norm(difference.mean()) > 4

    rows = late.obs["fate"] == fate
    clone, along = late.obs["clone"][rows], late.obs["progress"][rows] - 1
    course = pd.DataFrame({"linear": along, "square": along**2})
    centred, path = (table - table.groupby(clone, observed=True).transform("mean") for table in (x[rows], course))
    square = np.linalg.lstsq(path.to_numpy(), centred.to_numpy(), rcond=None)[0][1]
    assert np.linalg.norm(square) > 5


def explained(irreducible):
    """Share of the variance of final log odds that a ridge on clone means of the first day explains, out of fold."""
    truth = simulate_clones(irreducible=irreducible, n_truth_cells=40)[1]
    early = truth.X.reshape(400, 3, 40, -1)[:, 0].mean(axis=1)
    odds = np.log(truth.uns["clones"]["fate_proportions"][:, -1, 1:])
    odds -= odds.mean(axis=1, keepdims=True)
    predicted = cross_val_predict(RidgeCV(np.logspace(-4, 2, 7)), early, odds, cv=5)
    return 1 - np.square(odds - predicted).sum() / np.square(odds - odds.mean(axis=0)).sum()


def test_early_cells_show_what_is_not_irreducible():
    # R2 has a standard error of about 0.03 with 400 clones.
    assert explained(0) > 0.9
    assert explained(0.3) == pytest.approx(0.68, abs=0.12)
    assert explained(1) < 0.1


def test_log_odds_of_fates_vary_with_the_bias():
    weak, strong = (simulate_clones(2000, bias=bias, n_truth_cells=1)[1].uns["clones"] for bias in (0.5, 2))
    for clones, bias in ((weak, 0.5), (strong, 2)):
        share = clones["fate_proportions"][:, 0, 1:]
        contrast = np.log(share[:, 1] / share[:, 0])
        assert_zero_in_expectation(contrast)
        # Two unit vectors at 120 degrees differ by a vector of squared length 3.
        assert_zero_in_expectation(contrast**2 - 3 * bias**2)


def test_results_are_a_function_of_the_seed():
    first, again, other = (simulate_clones(**SMALL, seed=seed) for seed in (0, 0, 1))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a.X, b.X)
        assert not np.array_equal(a.X[:5], c.X[:5])


@pytest.mark.parametrize(
    "change", [{"n_truth_cells": 9}, {"n_features": 50}, {"orphan_fraction": 0}, {"sampling_depth": (1, 1, 1)}]
)
def test_parameters_do_not_depend_on_what_is_drawn(change):
    base, changed = (simulate_clones(**SMALL | extra) for extra in ({}, change))
    for name in ("fate_proportions", "size", "log_growth", "factor"):
        np.testing.assert_array_equal(base[1].uns["clones"][name], changed[1].uns["clones"][name])
    if "n_truth_cells" in change:
        np.testing.assert_array_equal(base[0].X, changed[0].X)


def test_days_may_be_fractions():
    observed, truth = simulate_clones(**SMALL, days=(0.5, 10))
    assert list(observed.obs["day"].cat.categories) == ["0.5", "10"]
    assert truth.uns["clones"]["log_growth"].shape == (30, 1)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_file_round_trip(suffix, tmp_path):
    for name, adata in zip(("observed", "truth"), simulate_clones(**SMALL), strict=True):
        path = tmp_path / f"{name}.{suffix}"
        getattr(adata, f"write_{suffix}")(path)
        again = getattr(anndata, f"read_{suffix}")(path)
        np.testing.assert_array_equal(again.X, adata.X)
        assert again.obs["day"].cat.ordered
        (key,) = adata.uns
        for entry, value in adata.uns[key].items():
            np.testing.assert_array_equal(again.uns[key][entry], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_clones": 0}, "n_clones=0 must be at least 1"),
        ({"n_cells": (20, 10)}, r"n_cells=\(20, 10\) must be \(smallest, largest\)"),
        ({"n_cells": (0, 10)}, "with 0 < smallest"),
        ({"days": (2,)}, r"days=\[2.0\] must be at least two"),
        ({"days": (4, 2)}, "in increasing order"),
        ({"days": (0, 2)}, r"days=\[0.0, 2.0\]"),
        ({"days": (2, np.nan)}, "days="),
        ({"orphan_fraction": 1.1}, "orphan_fraction=1.1 must be between 0 and 1"),
        ({"bias": -1}, "bias=-1 must be finite and not negative"),
        ({"irreducible": 2}, "irreducible=2 must be between 0 and 1"),
        ({"growth": np.inf}, "growth=inf must be finite"),
        ({"n_features": 7}, "n_features=7 must be between 8 and 50"),
        ({"n_features": 51}, "n_features=51"),
        ({"n_truth_cells": 0}, "n_truth_cells=0 must be at least 1"),
        ({"sampling_depth": (1, 1)}, r"sampling_depth=\(1, 1\) must be one positive number for each of the 3 days"),
        ({"sampling_depth": (1, 0, 1)}, r"sampling_depth=\(1, 0, 1\)"),
        ({"n_clones": 0, "bias": np.nan}, "n_clones=0 .*; bias=nan"),
    ],
)
def test_bad_requests_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        simulate_clones(**SMALL | change)
