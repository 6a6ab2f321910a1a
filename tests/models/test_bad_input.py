"""Each bad input gets a message with what was received, what was expected and what to do, and changes nothing."""

import re
from types import SimpleNamespace

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scgde import GDE


def _missing(adata):
    adata.obs.loc[adata.obs_names[[3, 8]], "donor"] = None


def _all_missing(adata):
    adata.obs["donor"] = pd.Series([None] * adata.n_obs, index=adata.obs_names, dtype=object)


def _not_constant(adata):
    adata.obs.loc[adata.obs_names[adata.obs["donor"] == "donor_2"][0], "disease"] = "unsure"


def _nan(adata):
    adata.X[[4, 9], 1] = np.nan


def _sparse_inf(adata):
    adata.X = sparse.csr_matrix(adata.X)
    adata.X[4, 1] = np.inf


def _obsm_nan(adata):
    adata.obsm["emb"] = adata.X.copy()
    adata.obsm["emb"][4, 0] = np.inf


def _obsm_text(adata):
    adata.obsm["emb"] = pd.DataFrame({"a": adata.obs["disease"], "b": adata.obs["donor"]})


def _one_group(adata):
    adata.obs["donor"] = "only"


def _small(adata):
    cells = adata.obs_names[adata.obs["donor"] == "donor_4"]
    adata.obs.loc[cells[:-2], "donor"] = "donor_0"


def _layers(adata):
    adata.layers["lognorm"] = adata.X.copy()
    adata.obsm["X_pca"] = adata.X.copy()


def _negative_mass(adata):
    adata.obs.loc[adata.obs_names[:2], "mass"] = [-1, np.nan]


def _massless(adata):
    adata.obs.loc[adata.obs["donor"] == "donor_3", "mass"] = 0


def _text_mass(adata):
    adata.obs["mass"] = "much"


def _other_split(adata):
    adata.obs["split"] = adata.obs["split"].replace("test", "holdout")


def _one_in_training(adata):
    adata.obs["split"] = np.where(adata.obs["donor"] == "donor_0", "train", "test")


def _split_by_cell(adata):
    adata.obs["split"] = np.where(np.arange(adata.n_obs) % 2, "train", "test")


def _no_batch(adata):
    adata.obs.loc[adata.obs_names[5], "library"] = None


def _nothing(adata):
    pass


# name: (what is done to the AnnData, arguments of setup, error, parts of the message)
BAD = {
    "unknown groupby": (_nothing, {"groupby": "doner"}, KeyError, ["'doner'", "groupby", "Did you mean 'donor'"]),
    "unknown second groupby": (_nothing, {"groupby": ["donor", "libary"]}, KeyError, ["'libary'", "Did you mean 'library'"]),
    "no groupby": (_nothing, {"groupby": []}, ValueError, ["groupby=", "at least one column"]),
    "groupby twice": (_nothing, {"groupby": ["donor", "donor"]}, ValueError, ["groupby=", "'donor'", "once"]),
    "unknown labels": (_nothing, {"labels": ["diseas"]}, KeyError, ["'diseas'", "labels", "Did you mean 'disease'"]),
    "unknown labels of a dict": (_nothing, {"labels": {"d": ["agee"]}}, KeyError, ["'agee'", "Did you mean 'age'"]),
    "unknown batch_key": (_nothing, {"batch_key": "batch"}, KeyError, ["'batch'", "batch_key", "There are:", "'library'"]),
    "unknown weight_key": (_nothing, {"weight_key": "masss"}, KeyError, ["'masss'", "weight_key", "Did you mean 'mass'"]),
    "unknown split_key": (_nothing, {"split_key": "splits"}, KeyError, ["'splits'", "split_key", "Did you mean 'split'"]),
    "unknown use_rep": (_layers, {"use_rep": "X_pcs"}, KeyError, ["'X_pcs'", "adata.obsm", "Did you mean 'X_pca'"]),
    "unknown layer": (_layers, {"layer": "log_norm"}, KeyError, ["'log_norm'", "adata.layers", "Did you mean 'lognorm'"]),
    "two representations": (_layers, {"use_rep": "X", "layer": "lognorm"}, ValueError, ["Pass one of them"]),
    "missing groups": (_missing, {}, ValueError, ["2 of 180 cells", "'donor'", "'donor-cell3', 'donor-cell8'", "drop_ungrouped=True"]),
    "no group at all": (_all_missing, {"drop_ungrouped": True}, ValueError, ["No cell has a value", "another column"]),
    "one group": (_one_group, {}, ValueError, ["one group only ('only')", "at least two values"]),
    "small groups": (_small, {"min_cells": 5}, ValueError, ["1 of 6 groups", "min_cells=5", "donor_4: 2 cells", "Lower min_cells"]),
    "labels vary": (_not_constant, {"labels": ["disease"]}, ValueError, ["not constant within 1 of 6 groups", "'donor_2'", "'unsure'", "leave the column out"]),
    "splits vary": (_split_by_cell, {"split_key": "split"}, ValueError, ["split_key", "not constant within 6 of 6 groups"]),
    "unknown splits": (_other_split, {"split_key": "split"}, ValueError, ["'holdout'", "'train', 'validation', 'test'"]),
    "one training group": (_one_in_training, {"split_key": "split"}, ValueError, ["fewer than two groups as 'train'"]),
    "NaN": (_nan, {}, ValueError, ["adata.X holds NaN or infinity in 2 of 180 cells", "'donor-cell4', 'donor-cell9'", "Remove these cells"]),
    "inf in sparse": (_sparse_inf, {}, ValueError, ["1 of 180 cells", "'donor-cell4'"]),
    "inf in obsm": (_obsm_nan, {"use_rep": "emb"}, ValueError, ["adata.obsm['emb']", "1 of 180 cells"]),
    "text": (_obsm_text, {"use_rep": "emb"}, TypeError, ["adata.obsm['emb'] holds values of type", "expected numbers"]),
    "negative weights": (_negative_mass, {"weight_key": "mass"}, ValueError, ["'mass'", "2 negative, missing or infinite", "numbers of at least 0"]),
    "groups without weight": (_massless, {"weight_key": "mass"}, ValueError, ["'donor_3'", "weight 0", "remove these groups"]),
    "text as weights": (_text_mass, {"weight_key": "mass"}, TypeError, ["'mass'", "expected numbers"]),
    "missing batch": (_no_batch, {"batch_key": "library"}, ValueError, ["1 of 180 cells", "'library'", "'donor-cell5'"]),
    "unknown argument": (_nothing, {"label": ["disease"]}, TypeError, ["unexpected argument", "'label'"]),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "arguments", "error", "parts"), BAD.values(), ids=BAD.keys())
def test_setup(make_adata, unchanged, spoil, arguments, error, parts):
    adata = make_adata()
    spoil(adata)
    with unchanged(adata, setup_keys=False), pytest.raises(error) as raised:
        GDE.setup_anndata(adata, **{"groupby": "donor", **arguments})
    message = str(raised.value)
    assert not [part for part in parts if part not in message], message


def test_view(make_adata, unchanged):
    adata = make_adata()
    view = adata[:100]
    with unchanged(adata, setup_keys=False), pytest.raises(ValueError, match=r"is a view.*adata = adata\.copy\(\)"):
        GDE.setup_anndata(view, "donor")
    assert view.is_view


def test_no_cells(make_adata):
    with pytest.raises(ValueError, match="holds no cells. Pass one with at least one cell"):
        GDE.setup_anndata(make_adata()[:0].copy(), "donor")


class SpatialData(SimpleNamespace):
    """Stands for the class of that name, which is not a dependency."""


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda adata: mudata.MuData({"rna": adata}), r"received MuData. Pass one modality, e.g. mdata\['rna'\]"),
        (lambda adata: SpatialData(), r"received SpatialData. Pass one of its tables, e.g. sdata.tables\['table'\]"),
        (lambda adata: adata.to_df(), "received DataFrame. Pass an anndata.AnnData"),
        (lambda adata: "file.h5ad", "received str. Pass an anndata.AnnData"),
    ],
    ids=["MuData", "SpatialData", "DataFrame", "path"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_not_an_anndata(make_adata, model, make, remedy):
    data = make(make_adata())
    with pytest.raises(TypeError, match=remedy):
        GDE.setup_anndata(data, "donor")
    with pytest.raises(TypeError, match=remedy):
        model.get_group_embedding(data)


def test_raw_counts_are_warned_about_where_the_user_calls(make_adata, make_model):
    adata = make_adata()
    adata.X = np.random.default_rng(0).poisson(15, adata.shape).astype(np.float32)
    remedy = r"adata.X looks like raw counts \(integers up to \d+\).*normalize_total.*log1p.*pca"
    with pytest.warns(UserWarning, match=remedy) as caught:
        GDE.setup_anndata(adata, "donor")
    assert [w.filename for w in caught if re.match(remedy, str(w.message))] == [__file__]
    trained = make_model(make_adata())
    for use in (trained.get_group_embedding, lambda data: trained.sample("donor_1", 3, adata=data)):
        with pytest.warns(UserWarning, match=remedy) as caught:
            use(adata)
        assert {w.filename for w in caught if re.match(remedy, str(w.message))} == {__file__}


@pytest.mark.parametrize("values", [[0, 1, 1, 0], [0.5, 30, 2, 1], [-3, 40, 2, 1], [0, 3, 20, 5]])
def test_no_warning_about_what_is_no_counts(make_adata, recwarn, values):
    adata = make_adata()
    adata.X = np.resize(values, adata.shape).astype(np.float32)
    GDE.setup_anndata(adata, "donor")
    assert not [w for w in recwarn if "raw counts" in str(w.message)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "resnett"}, "'resnett'.*encoder.*Did you mean 'resnet'"),
        ({"generator": "flw"}, "'flw'.*generator.*Did you mean 'flow'"),
        ({"generator_kwargs": {"widht": 8}}, "'widht' is not in the options of 'flow'.*Did you mean 'width'"),
        ({"generator": "diffusion", "generator_kwargs": {"n_stpes": 8}}, "Did you mean 'n_steps'"),
        (
            {"generator": "vae", "generator_kwargs": {"likelihood": "poisson"}},
            "likelihood='poisson' is unknown: choose from",
        ),
        ({"generator": "mmd", "generator_kwargs": {"n_generated": 5}}, "n_generated=5: expected an even number"),
        ({"n_latent": 1}, "n_latent=1 is too small.*2 or more"),
        ({"n_components": 0}, "n_components=0: expected an integer of at least 1"),
    ],
)
def test_options(make_adata, options, message):
    adata = make_adata()
    GDE.setup_anndata(adata, "donor")
    with pytest.raises(ValueError, match=message):
        GDE(adata, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_steps": 0}, "max_steps=0: expected an integer of at least 1"),
        ({"max_epochs": -1}, "max_epochs=-1: expected an integer of at least 1"),
        ({"max_seconds": 0.0}, "max_seconds=0.0: expected a positive number"),
        ({"batch_size": 0}, "batch_size=0: expected an integer of at least 1"),
        ({"cells_per_group": 0}, "cells_per_group=0: expected an integer of at least 1"),
        ({"validation_size": 0.8}, "validation_size=0.8 leaves 1 of 6 groups.*at least two"),
        ({"validation_size": 1.5}, "validation_size=1.5.*from 0 to below 1"),
    ],
)
def test_training_arguments(make_adata, arguments, message):
    model = GDE.setup_anndata(make_adata(), "donor")
    with pytest.raises(ValueError, match=message):
        model.train(**arguments)
    assert not model.is_trained_


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.get_group_embedding(),
        lambda model: model.get_latent_representation(),
        lambda model: model.group_distances(),
        lambda model: model.to_group_adata(),
        lambda model: model.sample(),
        lambda model: model.interpolate("donor_0", "donor_1"),
        lambda model: model.transport("donor_0", "donor_1"),
    ],
    ids=["embedding", "latent", "distances", "group_adata", "sample", "interpolate", "transport"],
)
def test_untrained_model(make_adata, unchanged, use):
    adata = make_adata()
    model = GDE.setup_anndata(adata, "donor")
    with unchanged(adata), pytest.raises(RuntimeError, match=r"not trained. Call model.train\(\) first"):
        use(model)


def _reversed_groups(adata):
    adata.obs["donor"] = adata.obs["donor"].to_numpy()[::-1]


def _merged_groups(adata):
    adata.obs["donor"] = adata.obs["donor"].replace("donor_1", "donor_0")


def _one_value(adata):
    adata.X[3, 0] = 100


def _all_values(adata):
    adata.X = adata.X + 1


CHANGES = {
    "groups": _reversed_groups,
    "fewer groups": _merged_groups,
    "no groups": lambda adata: adata.obs.pop("donor"),
    "a value": _one_value,
    "X": _all_values,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_training_data_that_changed(make_adata, make_model, change):
    adata = make_adata()
    model = make_model(adata)
    change(adata)
    for use in (model.get_group_embedding, model.train, model.sample):
        with pytest.raises((ValueError, KeyError), match=r"'donor'"):
            use()
    if "donor" in adata.obs:
        with pytest.raises(
            ValueError, match="changed since setup. Run setup_anndata again and train, or pass .* as adata="
        ):
            model.get_group_embedding()
        assert len(model.get_group_embedding(adata, key_added=None)) == adata.obs["donor"].nunique()


def test_changed_obsm_is_noticed_and_new_results_are_not(make_adata, make_model):
    adata = make_adata()
    adata.obsm["emb"] = adata.X.copy()
    model = make_model(adata, use_rep="emb")
    adata.X = adata.X * 0
    adata.obs["new"], adata.obsm["X_umap"] = 1, adata.X[:, :2]
    model.get_group_embedding()
    model.get_group_embedding()
    adata.obsm["emb"] = adata.obsm["emb"][:, :3]
    with pytest.raises(ValueError, match="changed since setup"):
        model.get_group_embedding()
    del adata.obsm["emb"]
    with pytest.raises(ValueError, match="changed since setup"):
        model.get_group_embedding()


def test_principal_components_added_later_change_nothing(make_model):
    """The model keeps to what it chose at setup: ``sc.pp.pca`` afterwards is no change of what it reads."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"donor": np.repeat(list("abcd"), 20)}, index=[str(i) for i in range(80)])
    adata = AnnData(rng.normal(size=(80, 60)).astype(np.float32), obs=obs)
    model = make_model(adata)
    before = model.get_group_embedding()
    adata.obsm["X_pca"] = adata.X[:, :5].copy()
    pd.testing.assert_frame_equal(model.get_group_embedding(), before)


# --- new data --------------------------------------------------------------------------------------------------------


def _drop_gene(adata):
    return adata[:, adata.var_names != "gene2"].copy()


def _other_genes(adata):
    adata.var_names = [f"ENSG{i}" for i in range(adata.n_vars)]
    return adata


def _without_donor(adata):
    adata.obs = adata.obs.drop(columns="donor")
    return adata


def _with(spoil):
    def change(adata):
        spoil(adata)
        return adata

    return change


NEW = {
    "fewer genes": (_drop_gene, ValueError, "1 of the 4 variables .*: 'gene2'. Pass data with the variables"),
    "other genes": (_other_genes, ValueError, "4 of the 4 variables .* not in adata.var_names"),
    "no group column": (_without_donor, KeyError, "'donor' is not in adata.obs"),
    "missing groups": (_with(_missing), ValueError, "2 of 180 cells.*drop_ungrouped=True"),
    "NaN": (_with(_nan), ValueError, "adata.X holds NaN or infinity in 2 of 180 cells"),
    "no cells": (lambda adata: adata[:0], ValueError, "holds no cells"),
}


@pytest.mark.parametrize(("change", "error", "message"), NEW.values(), ids=NEW.keys())
def test_new_data(make_adata, model, unchanged, change, error, message):
    adata = change(make_adata(seed=1, prefix="new"))
    uses = (
        lambda: model.get_group_embedding(adata),
        lambda: model.get_latent_representation(adata),
        lambda: model.sample("new_0", adata=adata),
        lambda: model.transport("new_0", "new_1", adata),
        lambda: model.interpolate("new_0", "new_1", adata=adata),
        lambda: model.to_group_adata(adata),
    )
    with unchanged(adata, setup_keys=False):
        for use in uses:
            with pytest.raises(error, match=message):
                use()


def test_new_data_with_another_number_of_features(make_adata, make_model, unchanged):
    adata = make_adata()
    adata.obsm["emb"] = adata.X.copy()
    model = make_model(adata, use_rep="emb")
    new = make_adata(seed=1)
    with unchanged(new), pytest.raises(KeyError, match=r"reads adata.obsm\['emb'\], which this AnnData lacks"):
        model.get_group_embedding(new)
    new.obsm["emb"] = new.X[:, :3].copy()
    with unchanged(new), pytest.raises(ValueError, match=r"has 3 features, the model was trained on 4. Pass the same"):
        model.get_group_embedding(new)


def test_batch_unseen_in_training(make_adata, batch_model, unchanged):
    new = make_adata(seed=1)
    new.obs.loc[new.obs_names[0], "library"] = "bb"
    with unchanged(new), pytest.raises(ValueError, match=r"'bb' is not in the batches of training.*Did you mean 'b'"):
        batch_model.get_group_embedding(new)
    with pytest.raises(KeyError, match=r"'c' is not in the batches of training \(batch=\)"):
        batch_model.sample("donor_0", batch="c")
    del new.obs["library"]
    with unchanged(new), pytest.raises(KeyError, match=r"'library' is not in adata.obs \(batch_key=\)"):
        batch_model.get_group_embedding(new)


# --- what is asked of a trained model --------------------------------------------------------------------------------

ASKED = {
    "unknown group": (lambda m: m.sample("donr_1"), KeyError, r"'donr_1' is not in the groups \(donor\). Did you mean 'donor_1'"),
    "unknown source": (lambda m: m.transport("donor1", "donor_2"), KeyError, "Did you mean 'donor_1'"),
    "unknown target": (lambda m: m.interpolate("donor_1", "x"), KeyError, "'x' is not in the groups.*There are: 'donor_0'"),
    "several sources": (lambda m: m.transport(["donor_1", "donor_2"], ["donor_3"] * 3), ValueError, "source= names 2 populations and target= 3"),
    "several targets": (lambda m: m.interpolate("donor_1", ["donor_1", "donor_2"]), ValueError, "target= names 2 groups"),
    "no group": (lambda m: m.sample([]), ValueError, "groups=.*no group"),
    "no cell": (lambda m: m.sample("donor_1", 0), ValueError, "n_cells=0: expected"),
    "no cell on the way": (lambda m: m.interpolate("donor_1", "donor_2", n_cells=0), ValueError, "n_cells=0: expected"),
    "one step": (lambda m: m.interpolate("donor_1", "donor_2", 1), ValueError, "n_steps=1: expected an integer of at least 2"),
    "embedding of another size": (lambda m: m.sample(np.zeros((2, 5))), ValueError, "embedding of 5 columns, expected 6"),
    "embedding with NaN": (lambda m: m.sample(np.full((2, 6), np.nan)), ValueError, "expected 6 finite"),
    "source is target": (lambda m: m.transport("donor_1", "donor_1"), ValueError, "same population .'donor_1'"),
    "unknown space": (lambda m: m.transport("donor_1", "donor_2", space="gene"), ValueError, "space='gene' is unknown: choose"),
    "one position": (lambda m: m.transport("donor_1", "donor_2", return_trajectory=True, n_steps=1), ValueError, "n_steps=1"),
    "sample without batches": (lambda m: m.sample("donor_1", batch="a"), ValueError, "batch='a', but the model knows no batches"),
    "transport without batches": (lambda m: m.transport("donor_1", "donor_2", batch="a"), ValueError, "batch='a'.*batch_key="),
    "interpolate without batches": (lambda m: m.interpolate("donor_1", "donor_2", batch="a"), ValueError, "batch='a'.*batch_key="),
}  # fmt: skip


@pytest.mark.parametrize(("use", "error", "message"), ASKED.values(), ids=ASKED.keys())
def test_requests(model, unchanged, use, error, message):
    with unchanged(model.adata), pytest.raises(error, match=message):
        use(model)
