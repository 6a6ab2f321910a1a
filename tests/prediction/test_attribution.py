"""Influence of cells is a derivative, finds what was planted, and is summed up by type; genes follow the label."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score

from scgde import GDE
from scgde.datasets import simulate_cohort
from scgde.prediction import attribute_cells, attribute_genes, influence_by_type

TRAIN = {"max_steps": 20, "validation_size": 0.0, "accelerator": "cpu", "enable_progress_bar": False}
TINY = {"n_latent": 8, "n_components": 2, "encoder_kwargs": {"width": 16}, "generator_kwargs": {"width": 32}}


@pytest.fixture(scope="module")
def model(make_cohort):
    """A model with labels of all kinds and weights of cells. Shared: tests change nothing but columns of obs."""
    adata = make_cohort(16, 20, effect="mean")
    adata.obs["mass"] = 1.0
    donor = adata.obs["donor"].cat.codes
    adata.obs["smokes"], adata.obs["drinks"] = donor % 3 == 0, donor % 4 > 1
    labels = {"disease": "disease", "dose": "dose", "stage": "stage", "habits": ["smokes", "drinks"]}
    GDE.setup_anndata(adata, "donor", labels=labels, weight_key="mass", drop_ungrouped=True)
    model = GDE(adata, **TINY)
    model.train(**TRAIN)
    return model


def weights_of(n):
    return np.random.default_rng(0).standard_normal(n)


def test_influence_is_the_derivative_by_the_weight_of_a_cell(model):
    adata, c, h = model.adata, weights_of(8), 0.02
    influence = attribute_cells(model, c, key_added=None)
    changed = adata.copy()
    donors = adata.obs["donor"].astype(str)
    names = donors.drop_duplicates().index[:6]
    scores = []
    for sign in (1, -1):
        # The mass of one cell in each of six groups, as a share of the group's 20 cells.
        changed.obs["mass"] = 1.0
        changed.obs.loc[names, "mass"] += sign * h * 20
        z = model.get_group_embedding(changed, key_added=None)
        scores.append((z @ c).set_axis(z.index.astype(str)).loc[donors[names]].to_numpy() / (h / (1 + sign * h)))
    base = (model.get_group_embedding(key_added=None) @ c).loc[donors[names].tolist()].to_numpy()
    # One-sided slopes on both sides; their mean has an error of second order.
    up = scores[0] - base * (1 + h) / h
    down = base * (1 - h) / h - scores[1]
    np.testing.assert_allclose((up + down) / 2, influence[names], rtol=0.03, atol=0.03 * influence.std())


def test_mean_over_a_group_is_zero_and_parts_of_the_data_agree(model):
    influence = attribute_cells(model, "disease", key_added="why")
    pd.testing.assert_series_equal(model.adata.obs["why"], influence)
    means = influence.groupby(model.adata.obs["donor"], observed=True).mean()
    assert means.abs().max() < 1e-5 * influence.abs().max()
    part = model.adata[model.adata.obs["donor"].isin(["d03", "d07"])].copy()
    some = attribute_cells(model, "disease", part, batch_size=7)
    np.testing.assert_allclose(some, influence[part.obs_names], rtol=1e-4, atol=1e-4 * influence.std())
    assert "gde_influence" in part.obs


def test_outcomes_of_all_kinds_of_labels(model):
    ill, healthy = (attribute_cells(model, "disease", outcome=o, key_added=None) for o in ("ill", "healthy"))
    np.testing.assert_allclose(ill, -healthy)
    pd.testing.assert_series_equal(attribute_cells(model, "disease", key_added=None), ill)
    for label in ("dose", "stage", "habits"):
        assert np.isfinite(attribute_cells(model, label, key_added=None)).all()
    one, other = (attribute_cells(model, "habits", outcome=o, key_added=None) for o in ("smokes", "drinks"))
    assert not np.allclose(one, other)


def test_cells_without_a_group_have_no_influence(model):
    adata = model.adata.copy()
    adata.obs["donor"] = adata.obs["donor"].where(np.arange(adata.n_obs) % 5 > 0)
    influence = attribute_cells(model, "disease", adata)
    np.testing.assert_array_equal(influence.isna(), adata.obs["donor"].isna())


def test_summary_by_type():
    obs = pd.DataFrame(
        {"type": ["a", "a", "b", "b"], "donor": ["x", "y", "y", "y"], "gde_influence": [1.0, -3.0, 0.5, np.nan]},
        index=list("1234"),
    )
    table = influence_by_type(AnnData(obs=obs), "type")
    assert table.index.tolist() == ["a", "b"]
    np.testing.assert_allclose(table.loc["a"], [2 / 3, -1, 2, 4 / 4.5])
    np.testing.assert_allclose(table.loc["b"], [1 / 3, 0.5, 0.5, 0.5 / 4.5])
    # Donor y has two cells with an influence, which count one half each.
    equal = influence_by_type(AnnData(obs=obs), "type", groupby="donor")
    np.testing.assert_allclose(equal.loc["a", "mean"], (1 - 3 / 2) / 1.5)


def test_errors_say_what_to_do(model):
    with pytest.raises(KeyError, match="il.*ill"):
        attribute_cells(model, "disease", outcome="il")
    with pytest.raises(KeyError, match="diseas"):
        attribute_cells(model, "diseas")
    with pytest.raises(ValueError, match=r"shape \(3,\): expected \(8,\)"):
        attribute_cells(model, np.zeros(3))
    with pytest.raises(ValueError, match="space='gene'"):
        attribute_genes(model, "disease", space="gene")
    with pytest.raises(KeyError, match="cell_typ"):
        influence_by_type(model.adata, "cell_typ")
    with pytest.raises(RuntimeError, match="not trained"):
        attribute_cells(GDE(model.adata), "disease")


def test_genes_that_the_label_shifts_come_first(model):
    # The label moves the mean of gene0 by 3, and nothing else.
    change = attribute_genes(model, "disease", n_cells=500)
    assert change.index[0] == "gene0"
    assert change.iloc[0] > 2 * change.iloc[1:].abs().max()
    again = attribute_genes(model, "disease", n_cells=500, outcome="healthy", space="rep")
    np.testing.assert_allclose(again[change.index], -change, rtol=0.05, atol=0.05)


def cohort(channel, seed):
    """Labelled donors, a model of them without training to speak of, and loadings."""
    adata = simulate_cohort(100, (100, 150), n_genes=200, channel=channel, n_batches=1, seed=seed)
    pca = PCA(20, svd_solver="arpack", random_state=0)
    adata.obsm["X_pca"] = pca.fit_transform(adata.X).astype(np.float32)
    adata.varm["PCs"] = pca.components_.T
    GDE.setup_anndata(adata, "donor", labels=["disease"])
    model = GDE(adata, labels_weight=0.0, **{**TINY, "n_components": 10, "n_latent": 64})
    model.train(**TRAIN)
    return adata, model


@pytest.mark.slow
def test_cells_of_a_planted_rare_state_have_the_most_influence():
    adata, model = cohort("rare", seed=0)
    influence = attribute_cells(model, "disease", outcome="disease")
    rare = adata.obs["rare_state"].to_numpy()
    assert 0.003 < rare.mean() < 0.01
    assert average_precision_score(rare, influence.abs()) > 10 * rare.mean()
    # They speak for the disease.
    assert (influence[rare] > 0).mean() > 0.9


@pytest.mark.slow
def test_shifted_cells_and_genes_are_found():
    adata, model = cohort("shift", seed=0)
    attribute_cells(model, "disease", outcome="disease")
    assert influence_by_type(adata, "cell_type").index[0] == "CD4 T"
    genes = attribute_genes(model, "disease", outcome="disease", n_cells=500)
    top = genes.iloc[:10]
    assert (adata.var.loc[top.index, "gene_set"] == "interferon").sum() >= 8
    assert (top > 0).sum() >= 8
