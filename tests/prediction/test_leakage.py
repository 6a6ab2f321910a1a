"""Nothing of a test group enters what is learned, and nothing of a hidden label is seen."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.preprocessing import StandardScaler

from scgde.prediction import cross_validate

QUICK = {"n_splits": 2, "n_repeats": 1, "progress": False}


def wide(make_cohort, n_vars=60):
    """A cohort with more variables than are read without a PCA."""
    return make_cohort(12, 30, n_vars, size=1.0)


def compared(adata, changed, **options):
    """Predictions for all donors but the first, before and after its cells change, and the fold that tests it."""
    models = ["mean_sd", "mixture", "kernel_mean"]
    results = [cross_validate(a, "donor", "disease", models, **QUICK, **options) for a in (adata, changed)]
    first, second = (r.predictions.set_index(["model", "group_donor", "fold"])["p_ill"] for r in results)
    pd.testing.assert_index_equal(first.index, second.index)
    fold = int(first.xs("d00", level="group_donor").reset_index()["fold"].iloc[0])
    others = first.index.get_level_values("group_donor") != "d00"
    tested = first.index.get_level_values("fold") == fold
    return first, second, others & tested, others & ~tested


def outlying(adata):
    changed = adata.copy()
    rows = (adata.obs["donor"] == "d00").to_numpy()
    changed.X[rows] += 50 * np.random.default_rng(0).normal(size=(rows.sum(), adata.n_vars)).astype(np.float32)
    return changed


def test_cells_of_a_test_group_change_no_other_prediction_of_the_fold(make_cohort):
    adata = wide(make_cohort)
    first, second, same_fold, other_folds = compared(adata, outlying(adata))
    pd.testing.assert_series_equal(first[same_fold], second[same_fold], check_exact=True)
    assert not np.allclose(first[other_folds], second[other_folds])


def test_transductive_training_sees_them_and_says_so(make_cohort):
    adata = wide(make_cohort)
    first, second, same_fold, _ = compared(adata, outlying(adata), transductive=True)
    assert not np.allclose(first[same_fold], second[same_fold])
    result = cross_validate(adata, "donor", "disease", ["pseudobulk"], **QUICK, transductive=True)
    assert result.settings["transductive"] is True
    assert result.scores["transductive"].all()


def noise(n_donors=40, n_genes=600, seed=0):
    """Donors whose label is a coin."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(n_donors), 10)
    x = rng.normal(size=(len(codes), n_genes)) + rng.normal(size=(n_donors, n_genes))[codes]
    labels = rng.permutation(np.arange(n_donors) % 2)
    obs = pd.DataFrame({"donor": codes.astype(str), "disease": np.array(["a", "b"])[labels[codes]]})
    return AnnData(x.astype(np.float32), obs=obs.rename(str), var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]))


def chosen_genes(adata):
    """The ten genes whose pseudobulk differs most between the labelled donors of the two classes."""
    known = adata.obs["disease"].notna().to_numpy()
    means = pd.DataFrame(adata.X[known]).groupby(adata.obs["donor"].to_numpy()[known]).mean()
    label = adata.obs[known].groupby("donor", observed=True)["disease"].first().loc[means.index]
    difference = means[label == "a"].mean() - means[label == "b"].mean()
    return np.argsort(-difference.abs().to_numpy())[:10]


def select_genes(train):
    genes = chosen_genes(train)
    return lambda adata: adata.X[:, genes]


def test_genes_chosen_outside_the_folds_predict_noise_and_inside_they_do_not(mean_scores):
    outside, inside = [], []
    for seed in range(3):
        adata = noise(seed=seed)
        options = {"models": ["pseudobulk"], "n_splits": 2, "n_repeats": 1, "progress": False}
        leaky = cross_validate(adata[:, chosen_genes(adata)].copy(), "donor", "disease", **options)
        outside.append(mean_scores(leaky, "auc")["pseudobulk"])
        fair = cross_validate(adata, "donor", "disease", **options, preprocess=select_genes)
        inside.append(mean_scores(fair, "auc")["pseudobulk"])
        assert fair.settings["representation"] == "select_genes, fitted in each fold"
    assert np.mean(outside) > 0.8
    # Three cohorts, in each two folds of 10 against 10: a standard error of about .055 (Mann-Whitney).
    assert abs(np.mean(inside) - 0.5) < 0.2


@pytest.mark.parametrize("transductive", [False, True])
def test_hidden_labels_are_hidden(transductive, make_cohort):
    trained, scored = [], []

    class Spy:
        """Means, and a record of what it was shown."""

        def __init__(self, context):
            self.groupby = context.groupby

        def fit_transform(self, train):
            trained.append(train.obs)
            return train.to_df().groupby(train.obs[self.groupby]).mean()

        def transform(self, adata):
            scored.append(adata.obs)
            return adata.to_df().groupby(adata.obs[self.groupby]).mean()

    options = {"n_splits": 4, "n_repeats": 1, "label_fraction": 0.5, "progress": False}
    result = cross_validate(make_cohort(20, 5), "donor", "disease", [Spy], **options, transductive=transductive)
    tested = result.predictions[result.predictions["model"] == "Spy"].groupby("fold")["group_donor"].agg(set)
    assert len(trained) == len(scored) == 4
    for fold, (train, test) in enumerate(zip(trained, scored, strict=True)):
        labelled = set(train.loc[train["disease"].notna(), "donor"])
        assert len(labelled) == 8  # half of 15, rounded in each class
        assert (result.scores.query("fold == @fold")["n_labelled"] == 8).all()
        assert test["disease"].isna().all()
        assert set(test["donor"]) == tested[fold]
        assert not labelled & tested[fold]
        assert bool(set(train["donor"]) & tested[fold]) is transductive


def test_principal_components_of_all_cells_are_read_only_where_they_are_named(make_cohort):
    adata = wide(make_cohort)
    adata.obsm["X_pca"] = np.full((adata.n_obs, 3), np.nan, dtype=np.float32)
    result = cross_validate(adata, "donor", "disease", ["pseudobulk"], **QUICK)
    assert result.settings["representation"] == "principal components of adata.X, fitted in each fold"
    with pytest.raises(ValueError, match="X_pca.*NaN"):
        cross_validate(adata, "donor", "disease", ["pseudobulk"], **QUICK, use_rep="X_pca")
    adata.obsm["X_pca"] = adata.X[:, :3]
    named = cross_validate(adata, "donor", "disease", ["pseudobulk"], **QUICK, use_rep="X_pca")
    assert named.settings["representation"] == "adata.obsm['X_pca'] as given"


def test_a_transformer_is_fitted_in_each_fold(make_cohort):
    seen = []

    class Watched(StandardScaler):
        def fit(self, x, y=None):
            seen.append(len(x))
            return super().fit(x)

    adata = make_cohort(12, 5)
    cross_validate(adata, "donor", "disease", ["pseudobulk"], **QUICK, preprocess=Watched())
    assert seen == [30, 30]
