"""Cross-validation where the answer is known."""

import functools

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from scgde.prediction import GDEFeatures, GDEPredictions, cross_validate

QUICK = {"n_splits": 2, "n_repeats": 1, "progress": False}


def test_form_of_the_result(make_cohort):
    result = cross_validate(make_cohort(), "donor", "disease", ["mean_sd"], n_splits=2, n_repeats=2, progress=False)
    assert list(result.scores["model"].unique()) == ["mean_sd", "majority", "permuted"]
    assert len(result.scores) == 2 * 2 * 3 * 4
    assert set(result.scores["metric"]) == {"accuracy", "balanced_accuracy", "auc", "log_loss"}
    assert (result.scores[["n_labelled", "n_train", "n_test"]] == [12, 12, 12]).all(axis=None)
    assert (result.summary["n_folds"] == 4).all()
    pairs = set(zip(result.comparison["model"], result.comparison["baseline"], strict=True))
    assert ("mean_sd", "majority") in pairs
    assert ("majority", "mean_sd") in pairs
    assert len(pairs) == 6
    predictions = result.predictions
    assert (predictions.groupby(["model", "repeat"])["group_donor"].nunique() == 24).all()
    np.testing.assert_allclose(predictions[["p_healthy", "p_ill"]].sum(axis=1), 1)
    assert "mean_sd" in repr(result)


def test_majority_is_known(make_cohort, mean_scores):
    adata = make_cohort()
    numbers = adata.obs["donor"].cat.codes
    adata.obs["rare"] = np.where(numbers < 6, "yes", "no")
    result = cross_validate(adata, "donor", "rare", [], **QUICK)
    assert mean_scores(result, "accuracy")["majority"] == 0.75
    assert mean_scores(result, "balanced_accuracy")["majority"] == 0.5
    assert mean_scores(result, "auc")["majority"] == 0.5
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert mean_scores(result, "log_loss")["majority"] == pytest.approx(entropy, abs=1e-4)


def test_pseudobulk_is_perfect_where_the_mean_differs(make_cohort, mean_scores):
    result = cross_validate(make_cohort(), "donor", "disease", ["pseudobulk"], **QUICK)
    assert mean_scores(result, "auc")["pseudobulk"] == 1
    assert mean_scores(result, "accuracy")["pseudobulk"] >= 0.95
    row = result.comparison.query("model == 'pseudobulk' and baseline == 'majority' and metric == 'auc'").iloc[0]
    assert row["advantage"] == 0.5


def test_only_what_sees_the_spread_predicts_where_the_mean_is_the_same(make_cohort, mean_scores):
    result = cross_validate(
        make_cohort(effect="spread"), "donor", "disease", ["pseudobulk", "mean_sd", "kernel_mean"], **QUICK
    )
    auc = mean_scores(result, "auc")
    assert auc["mean_sd"] == 1
    assert auc["kernel_mean"] > 0.95
    assert auc["pseudobulk"] < 0.8


def test_permuted_labels_predict_nothing(make_cohort):
    """Mean AUC over 12 cohorts with a perfect feature; the test fails by chance once in 10,000 times."""
    values = []
    for seed in range(12):
        adata = make_cohort(16, 10, seed=seed)
        result = cross_validate(adata, "donor", "disease", [], n_splits=2, n_repeats=1, progress=False, seed=seed)
        scores = result.scores.query("model == 'permuted' and metric == 'auc'")
        values.append(scores["value"].mean())
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert error > 0
    assert abs(np.mean(values) - 0.5) < 5.9 * error  # t with 11 degrees of freedom


def test_numeric_and_ordered_labels(make_cohort, mean_scores):
    adata = make_cohort(effect="dose", size=6.0)
    result = cross_validate(adata, "donor", "dose", ["pseudobulk"], **QUICK)
    assert result.settings["label_kind"] == "numeric"
    assert mean_scores(result, "r2")["pseudobulk"] > 0.8
    assert mean_scores(result, "pearson")["pseudobulk"] > 0.9
    assert mean_scores(result, "spearman")["pseudobulk"] > 0.85
    assert mean_scores(result, "rmse")["pseudobulk"] < 0.15 < mean_scores(result, "rmse")["majority"]
    assert mean_scores(result, "r2")["majority"] < 0.05
    assert mean_scores(result, "pearson")["majority"] == 0
    result = cross_validate(adata, "donor", "stage", ["pseudobulk"], **QUICK)
    assert result.settings["label_kind"] == "ordered"
    assert mean_scores(result, "spearman")["pseudobulk"] > 0.8
    assert mean_scores(result, "kappa")["pseudobulk"] > 0.7
    assert mean_scores(result, "mae")["pseudobulk"] < 0.4
    assert set(result.predictions["truth"]) == {"I", "II", "III"}


def test_several_classes(make_cohort, mean_scores):
    adata = make_cohort(effect="dose", size=8.0)
    result = cross_validate(adata, "donor", "stage", ["pseudobulk"], **QUICK, label_kind="categorical")
    assert mean_scores(result, "auc")["pseudobulk"] > 0.8
    assert {"p_I", "p_II", "p_III"} <= set(result.predictions)


def test_outlying_numbers_are_scored_not_refused(make_cohort):
    adata = make_cohort(effect="dose")
    adata.obs.loc[adata.obs["donor"] == "d03", "dose"] = 1e6
    result = cross_validate(adata, "donor", "dose", ["pseudobulk"], **QUICK)
    assert np.isfinite(result.scores["value"]).all()


def test_groups_without_a_label_are_in_training_and_never_scored(make_cohort):
    adata = make_cohort()
    hidden = [f"d{i:02d}" for i in range(6)]
    adata.obs.loc[adata.obs["donor"].isin(hidden), "disease"] = None
    result = cross_validate(adata, "donor", "disease", ["mixture"], **QUICK)
    assert not set(result.predictions["group_donor"]) & set(hidden)
    assert (result.scores["n_train"] + result.scores["n_test"] == 24).all()
    assert (result.scores["n_labelled"] == result.scores["n_train"] - 6).all()


def test_units_are_never_split(make_cohort):
    adata = make_cohort()
    adata.obs.loc[adata.obs["donor"] == "d05", "disease"] = None
    adata.obs["disease"] = adata.obs["disease"].astype("category")
    seen = []

    class Spy:
        def __init__(self, context):
            self.groupby = context.groupby

        def fit_transform(self, train):
            seen.append([set(train.obs["family"])])
            return train.to_df().groupby(train.obs[self.groupby]).mean()

        def transform(self, adata):
            seen[-1].append(set(adata.obs["family"]))
            return adata.to_df().groupby(adata.obs[self.groupby]).mean()

    options = {"n_splits": 2, "n_repeats": 2, "progress": False}
    result = cross_validate(adata, "donor", "disease", [Spy], **options, group_unit="family")
    assert len(seen) == 4
    assert all(not train & test for train, test in seen)
    # The unlabelled member of a test family is left out, not learned from.
    total = result.scores["n_train"] + result.scores["n_test"]
    assert set(total) == {23, 24}
    seen.clear()
    cross_validate(adata, "donor", "disease", [Spy], **options)
    assert any(train & test for train, test in seen)


def test_label_may_be_a_grouping_column(make_cohort):
    adata = make_cohort(12, 20)
    adata.obs["half"] = np.where(np.arange(adata.n_obs) % 2, "u", "v")
    adata.X[(adata.obs["half"] == "u").to_numpy(), 0] += 8
    result = cross_validate(adata, ["donor", "half"], "half", ["pseudobulk"], **QUICK, group_unit="donor")
    auc = result.summary.query("model == 'pseudobulk' and metric == 'auc'")["mean"].iloc[0]
    assert auc == 1
    assert {"group_donor", "group_half"} <= set(result.predictions)


def test_more_labels_contain_fewer(make_cohort):
    sizes = {}
    for fraction in (0.01, 0.3, 1.0):
        result = cross_validate(make_cohort(), "donor", "disease", [], **QUICK, label_fraction=fraction)
        sizes[fraction] = set(result.scores["n_labelled"])
        assert set(result.scores["n_train"]) == {12}
    assert sizes == {0.01: {2}, 0.3: {4}, 1.0: {12}}


@pytest.mark.multiprocess
def test_one_seed_gives_one_result_however_many_processes(make_cohort):
    adata = make_cohort(12, 20)
    models = ["mixture", "kernel_mean"]
    run = functools.partial(cross_validate, adata, "donor", "disease", models, **QUICK, label_fraction=0.5)
    first, again, other = run(seed=1), run(seed=1), run(seed=2)
    for name in ("scores", "summary", "comparison", "predictions"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(again, name))
    assert not first.predictions.equals(other.predictions)
    pd.testing.assert_frame_equal(first.predictions, run(seed=1, n_jobs=2).predictions, rtol=1e-6)


def test_adata_is_not_changed(make_cohort):
    adata = make_cohort()
    before = adata.copy()
    cross_validate(adata, "donor", "disease", ["mixture"], **QUICK)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    np.testing.assert_array_equal(adata.X, before.X)
    assert not adata.uns
    assert not adata.obsm


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "string", "object"])
def test_labels_with_missing_values_of_any_dtype(dtype, make_cohort):
    adata = make_cohort(12, 5)
    ill = (adata.obs["disease"] == "ill").to_numpy()
    values = {"Int64": ill.astype(int), "boolean": ill}.get(dtype, np.where(ill, "yes", "no"))
    adata.obs["label"] = pd.Series(values, index=adata.obs_names).astype(dtype)
    adata.obs.loc[adata.obs["donor"] == "d03", "label"] = None
    result = cross_validate(adata, "donor", "label", [], **QUICK)
    assert result.settings["label_kind"] == "categorical"
    assert result.settings["groups"] == "11 labelled, 1 without a label"
    assert result.predictions["truth"].nunique() == 2


def test_sparse_and_backed_data_give_the_same(make_cohort, tmp_path):
    adata = make_cohort(12, 5, n_vars=60)
    adata.obs = adata.obs[["donor", "disease"]]
    adata.write_h5ad(tmp_path / "cohort.h5ad")
    dense = cross_validate(adata, "donor", "disease", ["mean_sd"], **QUICK).predictions
    backed = anndata.read_h5ad(tmp_path / "cohort.h5ad", backed="r")
    pd.testing.assert_frame_equal(cross_validate(backed, "donor", "disease", ["mean_sd"], **QUICK).predictions, dense)
    backed.file.close()
    adata.X = csr_matrix(adata.X)
    sparse = cross_validate(adata, "donor", "disease", ["mean_sd"], **QUICK).predictions
    pd.testing.assert_frame_equal(sparse, dense, rtol=1e-3, atol=1e-4)


def test_gde_in_the_fold(make_cohort, mean_scores):
    options = {"n_latent": 6, "n_components": 1, "encoder_kwargs": {"width": 16}, "generator_kwargs": {"width": 32}}
    gde = functools.partial(GDEFeatures, model=options, train={"max_steps": 5, "accelerator": "cpu"})
    result = cross_validate(
        make_cohort(12, 30), "donor", "disease", {"gde": gde}, n_splits=2, n_repeats=1, progress=False
    )
    assert mean_scores(result, "auc")["gde"] > 0.9
    assert set(result.comparison.query("model == 'gde'")["baseline"]) == {"majority", "permuted"}


def test_models_of_the_user(make_cohort, mean_scores):
    class Medians:
        def __init__(self, context):
            self.groupby = "donor"

        def fit_transform(self, train):
            return self.transform(train)

        def transform(self, adata):
            names = adata.obs[self.groupby].astype(str)
            return adata.to_df().groupby(names).median().sample(frac=1, random_state=0)

    class Oracle:
        """Has a head of its own."""

        def __init__(self, context):
            self.context = context

        def fit(self, train):
            self.labels = set(train.obs[self.context.label].dropna())

        def predict(self, test):
            ill = test.to_df().groupby(test.obs["donor"], observed=True)["0"].mean()
            p = 1 / (1 + np.exp(-4 * (ill.astype(float) - 1.5)))
            return pd.DataFrame({"ill": p, "healthy": 1 - p})

    result = cross_validate(make_cohort(), "donor", "disease", {"medians": Medians, "own": Oracle}, **QUICK)
    assert mean_scores(result, "auc")["medians"] == 1
    assert mean_scores(result, "auc")["own"] == 1
    assert mean_scores(result, "log_loss")["own"] < 0.3


def test_semi_supervised_and_supervised_gde_in_the_fold(make_cohort, mean_scores):
    options = {"n_latent": 6, "n_components": 1, "encoder_kwargs": {"width": 16}, "generator_kwargs": {"width": 32}}
    settings = {"model": options, "train": {"max_steps": 5, "accelerator": "cpu"}}
    models = {
        "semi": functools.partial(GDEFeatures, labels_weight=1.0, **settings),
        "supervised": functools.partial(GDEFeatures, labelled_only=True, **settings),
        "predict": functools.partial(GDEPredictions, **settings),
    }
    adata = make_cohort(16, 30)
    result = cross_validate(adata, "donor", "disease", models, label_fraction=0.5, **QUICK)
    for name in models:
        assert mean_scores(result, "auc")[name] > 0.9, name
    adata = make_cohort(16, 30, effect="dose", size=6.0)
    models = {"predict": models["predict"]}
    for label, metric in (("dose", "pearson"), ("stage", "spearman")):
        result = cross_validate(adata, "donor", label, models, **QUICK)
        assert mean_scores(result, metric)["predict"] > 0.6, label
