"""Simulated cohorts: form, design, and a label that acts through its named channel only."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.stats

from scgde.datasets import CHANNELS, simulate_cohort

SMALL = {"n_donors": 60, "n_cells": (150, 150), "n_genes": 200}


@pytest.fixture(scope="module")
def cohorts():
    return {channel: simulate_cohort(**SMALL, channel=channel, seed=1) for channel in CHANNELS}


def donor_values(adata, cell_type, function, layer=None):
    """Apply `function` to the cells of one type of each donor (at least 8 of them); also the donors' labels."""
    rows = adata.obs[adata.obs["cell_type"] == cell_type].groupby("donor", observed=True).indices
    cells = adata[adata.obs["cell_type"] == cell_type]
    x, disease = (cells.layers[layer].log1p() if layer else cells.X).toarray(), cells.obs["disease"].to_numpy()
    kept = [index for index in rows.values() if len(index) >= 8]
    return np.stack([function(x[index]) for index in kept]), np.array([disease[i[0]] == "disease" for i in kept])


def t_values(values, diseased):
    return scipy.stats.ttest_ind(values[diseased], values[~diseased], equal_var=False).statistic


def gene_t_values(adata, cell_type, function, layer=None):
    t = t_values(*donor_values(adata, cell_type, lambda x: function(x, axis=0), layer))
    return pd.Series(t, adata.var_names)


def assert_null(t):
    """Squared t-values of genes without an effect are 1 on average; programmes make them dependent, hence the slack."""
    assert np.square(t).mean() < 1.5
    assert np.abs(t).max() < 5


def in_set(adata, *names):
    return adata.var["gene_set"].isin(names).to_numpy()


def test_form():
    adata = simulate_cohort(12, (20, 80))
    assert scipy.sparse.issparse(adata.X)
    assert adata.X.format == adata.layers["counts"].format == "csr"
    assert adata.X.dtype == np.float32
    counts = adata.layers["counts"].toarray()
    assert np.issubdtype(counts.dtype, np.integer)
    np.testing.assert_allclose(
        adata.X.toarray(), np.log1p(2000 * counts / counts.sum(axis=1, keepdims=True)), rtol=1e-5, atol=1e-6
    )
    assert list(adata.obs) == ["donor", "disease", "age", "batch", "cell_type"]
    assert adata.obs["age"].between(20, 90).all()
    assert not adata.obs.isna().any(axis=None)
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    keys = [*adata.obs, *adata.var, *adata.uns, *adata.layers, *adata.uns["simulate_cohort"]]
    assert not any("/" in key for key in keys if key is not None)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_file_round_trip(suffix, tmp_path):
    adata = simulate_cohort(4, (5, 9), channel=["shift", "rare"])
    path = tmp_path / f"cohort.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    again = getattr(anndata, f"read_{suffix}")(path)
    np.testing.assert_array_equal(again.X.toarray(), adata.X.toarray())
    assert again.obs["donor"].cat.categories.equals(adata.obs["donor"].cat.categories)
    assert dict(again.uns["simulate_cohort"]) == adata.uns["simulate_cohort"]


def test_design():
    obs = simulate_cohort(60, (10, 60), n_batches=3).obs
    donors = obs.groupby("donor", observed=False)
    assert (donors[["disease", "age", "batch"]].nunique() == 1).all(axis=None)
    sizes = donors.size()
    assert 10 <= sizes.min() < 20 < 45 < sizes.max() <= 60
    # Log-uniform: log sizes average to the middle of their range, standard error (log 6)/sqrt(12 x 60) = 0.067.
    assert np.log(sizes).mean() == pytest.approx(np.log(600) / 2, abs=0.27)
    assert (pd.crosstab(donors["batch"].first(), donors["disease"].first()) == 10).all(axis=None)


def test_counts_spread_more_than_poisson_counts_and_batches_shift_genes(cohorts):
    adata = cohorts["none"]
    counts = adata.layers["counts"].toarray()
    assert (counts.var(axis=0) > counts.mean(axis=0)).all()
    assert 0.2 < np.std(np.log(counts.sum(axis=1))) < 0.6
    x, batch = adata.X.toarray(), adata.obs["batch"].to_numpy()
    shift = x[batch == "batch_0"].mean(axis=0) - x[batch == "batch_1"].mean(axis=0)
    x_disease, x_healthy = (x[(adata.obs["disease"] == label).to_numpy()] for label in ("disease", "healthy"))
    assert np.std(shift) > 3 * np.std(x_disease.mean(axis=0) - x_healthy.mean(axis=0))


def test_a_function_of_the_seed_with_genes_that_all_seeds_share(cohorts):
    adata, other = cohorts["none"], simulate_cohort(**SMALL, channel="none", seed=2)
    again = simulate_cohort(**SMALL, channel="none", seed=1)
    np.testing.assert_array_equal(adata.X.toarray(), again.X.toarray())
    pd.testing.assert_frame_equal(adata.obs, again.obs)
    assert not np.array_equal(adata.obs["cell_type"], other.obs["cell_type"])
    profiles = [np.asarray(cohort[cohort.obs["cell_type"] == "NK"].X.mean(axis=0)).ravel() for cohort in (adata, other)]
    assert np.corrcoef(profiles)[0, 1] > 0.99


@pytest.mark.parametrize("channel", ["composition", "shift", "rare"])
def test_healthy_donors_and_the_design_are_the_same_in_every_channel(channel, cohorts):
    adata, none = cohorts[channel], cohorts["none"]
    columns = ["donor", "disease", "age", "batch"] + ["cell_type"] * (channel != "composition")
    pd.testing.assert_frame_equal(adata.obs[columns], none.obs[columns])
    healthy = (none.obs["disease"] == "healthy").to_numpy()
    np.testing.assert_array_equal(adata.X[healthy].toarray(), none.X[healthy].toarray())
    assert (adata.X[~healthy] != none.X[~healthy]).nnz > 0


@pytest.mark.parametrize("cell_type", ["CD4 T", "CD8 T", "CD14 monocyte", "B"])
@pytest.mark.parametrize("channel", CHANNELS)
def test_expression_within_types_changes_in_the_named_place_only(channel, cell_type, cohorts):
    adata = cohorts[channel]
    t = gene_t_values(adata, cell_type, np.mean)
    place = {("shift", "CD4 T"): "interferon", ("rare", "B"): "emergent"}.get((channel, cell_type))
    if place is not None:
        assert (t[in_set(adata, place)] > 1).all()
        assert t[in_set(adata, place)].mean() > 3
        # A larger total lowers the normalised values of all other genes; their counts keep their law.
        t = gene_t_values(adata, cell_type, np.mean, layer="counts")
    assert_null(t[~in_set(adata, place)])


@pytest.mark.parametrize("channel", CHANNELS)
def test_proportions_change_in_the_channel_composition_only(channel, cohorts):
    obs = cohorts[channel].obs
    shares = pd.crosstab(obs["donor"], obs["cell_type"], normalize="index")
    diseased = obs.groupby("donor", observed=True)["disease"].first().loc[shares.index] == "disease"
    # Odds against all other types; half a cell is added to each count of 150.
    odds = np.log((shares + 0.5 / 150) / (1 - shares + 0.5 / 150))
    t = pd.Series(t_values(odds.to_numpy(), diseased.to_numpy()), shares.columns)
    if channel == "composition":
        difference = odds["CD14 monocyte"][diseased].mean() - odds["CD14 monocyte"][~diseased].mean()
        assert difference == pytest.approx(1.2, abs=4 * difference / t["CD14 monocyte"])
        assert (t.drop("CD14 monocyte") < 1).all()
    else:
        assert np.abs(t).max() < 3.5


def test_covariance_channel_changes_correlations_and_no_gene_by_itself(cohorts):
    adata = cohorts["covariance"]
    for function in (np.mean, np.std):
        assert_null(gene_t_values(adata, "CD8 T", function))
    # Every second gene of a programme falls with its score.
    signs = np.array([1, -1] * 8)
    activation, stress = (np.flatnonzero(in_set(adata, name)) for name in ("activation", "stress"))

    def correlation(x):
        return np.corrcoef(x[:, activation] @ signs, x[:, stress] @ signs)[:1, 1]

    values, diseased = donor_values(adata, "CD8 T", correlation)
    assert values[diseased].mean() > 0.2
    assert values[~diseased].mean() < -0.2
    for cell_type in ("CD4 T", "CD14 monocyte"):
        assert abs(t_values(*donor_values(adata, cell_type, correlation))[0]) < 3.5
    assert abs(t_values(*donor_values(cohorts["none"], "CD8 T", correlation))[0]) < 3.5


def test_rare_state_is_one_percent_of_diseased_cells_and_has_no_name():
    adata = simulate_cohort(60, (400, 400), n_genes=200, channel="rare")
    obs = adata.obs
    diseased = obs["disease"] == "disease"
    assert not obs.loc[~diseased, "rare_state"].any()
    share = obs[diseased].groupby("donor", observed=True)["rare_state"].mean()
    # Just below 1% is expected: donors with few B cells cannot reach it.
    assert share.mean() == pytest.approx(0.01, abs=4 * share.std() / np.sqrt(len(share)))
    assert set(obs.loc[obs["rare_state"], "cell_type"]) == {"B"}
    emergent = np.asarray(adata.X[:, in_set(adata, "emergent")].mean(axis=1)).ravel()
    rare = obs["rare_state"].to_numpy()
    assert emergent[rare].min() > np.quantile(emergent[~rare], 0.99)


def test_effect_size_scales_and_zero_is_none(cohorts):
    zero = simulate_cohort(**SMALL, channel=CHANNELS, effect_size=0, seed=1)
    np.testing.assert_array_equal(zero.X.toarray(), cohorts["none"].X.toarray())
    strong = simulate_cohort(**SMALL, channel="shift", effect_size=2, seed=1)
    place = in_set(strong, "interferon")
    t_strong, t = (gene_t_values(adata, "CD4 T", np.mean)[place].mean() for adata in (strong, cohorts["shift"]))
    assert t_strong > 1.4 * t


def test_channels_combine():
    both = simulate_cohort(**SMALL, seed=1)
    assert both.uns["simulate_cohort"]["channel"] == "composition+shift"
    composition = simulate_cohort(**SMALL, channel="composition", seed=1)
    pd.testing.assert_frame_equal(both.obs, composition.obs)
    assert gene_t_values(both, "CD4 T", np.mean)[in_set(both, "interferon")].mean() > 3


def test_label_noise_flips_recorded_labels_only():
    clean, noisy = (simulate_cohort(200, (5, 5), n_genes=176, label_noise=noise) for noise in (0, 0.2))
    np.testing.assert_array_equal(clean.X.toarray(), noisy.X.toarray())
    flipped = (clean.obs["disease"] != noisy.obs["disease"]).to_numpy().reshape(200, 5)
    assert (flipped == flipped[:, :1]).all()
    # Binomial(200, 0.2): standard error 0.028.
    assert flipped.mean() == pytest.approx(0.2, abs=0.11)


def test_age_lowers_the_share_of_cd8_and_is_unrelated_to_the_disease():
    obs = simulate_cohort(200, (60, 60), n_genes=176, channel="none").obs
    donors = obs.groupby("donor", observed=True)
    age, share = donors["age"].first(), donors["cell_type"].agg(lambda types: (types == "CD8 T").mean())
    assert scipy.stats.pearsonr(age, share).pvalue < 0.01
    assert np.corrcoef(age, share)[0, 1] < 0
    assert abs(t_values(age.to_numpy(), (donors["disease"].first() == "disease").to_numpy())) < 3.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channel": "shifts"}, r"names \['shifts'\]: choose one or several of"),
        ({"channel": []}, "names nothing"),
        ({"n_donors": 3}, "n_donors=3 must be at least 4"),
        ({"n_cells": (10, 5)}, r"n_cells=\(10, 5\) must be"),
        ({"n_genes": 100}, "n_genes=100 must be at least 176"),
        ({"effect_size": -1}, "effect_size=-1 must be"),
        ({"label_noise": 1.5}, "label_noise=1.5 must be a probability"),
        ({"n_batches": 0}, "n_batches=0 must be at least 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_cohort(**arguments)
