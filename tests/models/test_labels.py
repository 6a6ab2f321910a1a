"""Attributes of groups: what is learned from them, what is predicted, and what happens with labels that are unusual."""

import warnings
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from scgde import GDE, TDE

N_GROUPS, N_CELLS = 48, 20
LABELS = {"disease": "disease", "age": "age", "stage": "stage", "diagnosis": ["AD", "PD"], "smoker": "smoker"}


def cohort(seed=0, prefix="d", n_groups=N_GROUPS):
    """Donors whose first feature is shifted by ``y``, which all labels but "PD" follow; a third of some are missing."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n_groups)
    codes = np.repeat(np.arange(n_groups), N_CELLS)
    x = rng.normal(size=(len(codes), 4))
    x[:, 0] += 3 * y[codes]
    table = pd.DataFrame(
        {
            "donor": [f"{prefix}{i:03d}" for i in range(n_groups)],
            "disease": np.where(y > 0, "ill", "well"),
            "age": 50 + 10 * y + rng.normal(size=n_groups),
            "stage": pd.Categorical.from_codes(np.digitize(y, [-0.5, 0.5]), ["I", "II", "III"], ordered=True),
            "AD": y > 0.2,
            "PD": rng.integers(0, 2, n_groups).astype(float),
            "smoker": pd.array(y > 0.3, dtype="boolean"),
        }
    )
    for column in ("disease", "age", "PD", "smoker"):
        table[column] = table[column].where(np.arange(n_groups) % 3 != 0)
    obs = table.iloc[codes].set_axis([f"{prefix}-cell{i}" for i in range(len(codes))])
    return AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=list("abcd"))), y, table


@pytest.fixture(scope="module")
def fitted(make_model):
    adata, y, table = cohort()
    model = make_model(adata, labels=LABELS, steps=20, train={"validation_size": 0.0})
    return SimpleNamespace(model=model, adata=adata, y=y, table=table)


@pytest.fixture
def trained(fitted):
    """A trained model of the cohort. Tests may change what it has learned of labels."""
    before = fitted.model.predictors_
    yield fitted
    fitted.model.predictors_ = before


@pytest.fixture(scope="module")
def new():
    """Donors that no model has seen, without any label, and what they are."""
    adata, y, table = cohort(seed=1, prefix="new", n_groups=200)
    adata.obs = adata.obs[["donor"]]
    return SimpleNamespace(adata=adata, y=y, table=table)


@pytest.fixture
def training_alone(monkeypatch):
    """Training that fits no predictors afterwards, which takes longer than these few steps."""
    monkeypatch.setattr("scgde.models._fitting.fit_labels", lambda *_: {})


def test_probabilities_of_new_groups(trained, new):
    disease = trained.model.predict("disease", new.adata, key_added=None)
    assert disease.columns.tolist() == ["ill", "well", "p_value"]
    assert disease.index.tolist() == new.table["donor"].tolist()
    np.testing.assert_allclose(disease["ill"] + disease["well"], 1)
    assert ((disease["ill"] > 0.5) == (new.y > 0)).mean() > 0.85
    stage = trained.model.predict("stage", new.adata, key_added=None)[["I", "II", "III"]]
    np.testing.assert_allclose(stage.sum(axis=1), 1)
    assert (stage.to_numpy().argmax(axis=1) == np.digitize(new.y, [-0.5, 0.5])).mean() > 0.75
    smoker = trained.model.predict("smoker", new.adata, key_added=None)
    assert ((smoker[True] > 0.5) == (new.y > 0.3)).mean() > 0.85


def test_each_column_of_a_multilabel_attribute(trained, new):
    diagnosis = trained.model.predict("diagnosis", new.adata, key_added=None)
    assert diagnosis.columns.tolist() == ["AD", "PD", "p_value"]
    assert ((diagnosis["AD"] > 0.5) == (new.y > 0.2)).mean() > 0.85
    assert (diagnosis["PD"] - 0.5).abs().mean() < 0.2  # nothing tells it


def test_numbers(trained, new):
    age = trained.model.predict("age", new.adata, key_added=None)
    assert age.columns.tolist() == ["mean", "sd", "lower", "upper", "p_value"]
    assert np.corrcoef(age["mean"], 50 + 10 * new.y)[0, 1] > 0.95
    assert (age["lower"] < age["mean"]).all()
    assert (age["sd"] > 0).all()


def test_unlabelled_training_groups_are_predicted(trained):
    age = trained.model.predict("age", key_added=None)
    assert "p_value" not in age
    unknown = trained.table["age"].isna().to_numpy()
    assert np.corrcoef(age["mean"][unknown], trained.y[unknown])[0, 1] > 0.95


def test_predictions_survive_a_file(trained, tmp_path):
    adata = trained.adata.copy()
    for label in ("disease", "age", "disease"):
        trained.model.predict(label, adata)
    adata.write_h5ad(tmp_path / "predicted.h5ad")
    table = anndata.read_h5ad(tmp_path / "predicted.h5ad").uns["gde"]["predictions"]
    assert len(table) == N_GROUPS * (2 + 4)
    expected = trained.model.predict("disease", adata, key_added=None)
    rows = table[(table["label"] == "disease") & (table["outcome"] == "ill")]
    np.testing.assert_allclose(rows["value"], expected["ill"])
    np.testing.assert_allclose(rows["p_value"], expected["p_value"])
    assert rows["donor"].tolist() == expected.index.tolist()


def test_predictions_are_saved_with_the_model(trained, new, tmp_path):
    trained.model.save(tmp_path / "model")
    for adata in (False, trained.adata):
        loaded = GDE.load(tmp_path / "model", adata=adata)
        for label in LABELS:
            expected = trained.model.predict(label, new.adata, key_added=None)
            pd.testing.assert_frame_equal(loaded.predict(label, new.adata, key_added=None), expected, rtol=1e-5)


def test_without_weight_labels_leave_the_embedding_as_it_is(make_model, training_alone):
    adata = cohort()[0]
    expected = make_model(adata, steps=20).get_group_embedding(key_added=None)
    for options in ({"labels_weight": 0}, {}):  # by default, labels of fewer than 100 groups have no weight
        z = make_model(adata, steps=20, labels=LABELS, options=options).get_group_embedding(key_added=None)
        pd.testing.assert_frame_equal(z, expected, rtol=0, atol=0)


def test_labels_shape_the_code(make_model, training_alone):
    adata, _, _ = cohort()
    free = make_model(adata, steps=60)
    shaped = make_model(adata, steps=60, labels=LABELS, options={"labels_weight": 1.0})
    again = make_model(adata, steps=60, labels=LABELS, options={"labels_weight": 1.0})
    n = free.module.n_coordinates
    z = [m.get_group_embedding(key_added=None).to_numpy() for m in (free, shaped, again)]
    np.testing.assert_array_equal(z[0][:, :n], z[1][:, :n])
    assert np.abs(z[0][:, n:] - z[1][:, n:]).max() > 1e-3
    np.testing.assert_array_equal(z[1], z[2])
    loss = shaped.history_["train_loss_labels"].iloc[:, 0]
    assert np.isfinite(loss).all()
    assert len(shaped.module.heads) == len(LABELS)


def test_gradients_of_labels_reach_encoder_and_every_head(make_model, training_alone):
    adata = cohort()[0]
    model = make_model(
        adata, steps=3, labels=LABELS, options={"labels_weight": 1.0},
        train={"plan_kwargs": {"reconstruction_weight": 0.0, "weight_decay": 0.0}, "early_stopping": False},
    )  # fmt: skip
    start = make_model(adata, steps=1, labels=LABELS, options={"labels_weight": 1e-9}).module
    for name in ("encoder", "heads"):
        old, trained = (dict(getattr(module, name).named_parameters()) for module in (start, model.module))
        moved = [bool((old[key] - trained[key]).abs().max() > 1e-6) for key in old]
        assert np.mean(moved) > 0.9, name


def test_labels_of_test_and_validation_groups_never_train_a_head(make_model):
    adata, _, table = cohort()
    split = np.array(["train"] * 36 + ["validation"] * 6 + ["test"] * 6)
    adata.obs["split"] = np.repeat(split, N_CELLS)
    options = {"labels_weight": 1.0}
    model = make_model(adata, steps=20, labels=["disease", "age"], split_key="split", options=options)
    changed = adata.copy()
    held_out = (changed.obs["split"] != "train").to_numpy()
    changed.obs.loc[held_out, "disease"] = changed.obs.loc[held_out, "disease"].map({"ill": "well", "well": "ill"})
    changed.obs.loc[held_out, "age"] *= -1
    other = make_model(changed, steps=20, labels=["disease", "age"], split_key="split", options=options)
    for a, b in zip(model.module.state_dict().values(), other.module.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    for label in ("disease", "age"):  # maps are the same; validation labels set the law around them
        a, b = (m.predictors_[label]["parts"][0]["linear"] for m in (model, other))
        np.testing.assert_array_equal(a[0], b[0])
    changed = adata.copy()
    changed.obs.loc[changed.obs["split"] == "test", "age"] = 1e6
    other = make_model(changed, steps=20, labels=["disease", "age"], split_key="split", options=options)
    pd.testing.assert_frame_equal(other.predict("age", key_added=None), model.predict("age", key_added=None))
    model.update_labels(table.set_index("donor")[["age"]])
    pd.testing.assert_frame_equal(other.predict("age", key_added=None), model.predict("age", key_added=None))


def test_update_labels(trained, new, tiny):
    model = trained.model
    z = model.get_group_embedding(key_added=None)
    table = pd.DataFrame(
        {"score": 2 * trained.y, "side": np.where(trained.y > 0, "right", "left")}, trained.table["donor"]
    )
    summary = model.update_labels(table)
    assert summary["status"].tolist() == ["fitted", "fitted"]
    assert summary["kind"].tolist() == ["numeric", "categorical"]
    pd.testing.assert_frame_equal(model.get_group_embedding(key_added=None), z)
    assert np.corrcoef(model.predict("score", new.adata, key_added=None)["mean"], new.y)[0, 1] > 0.95
    assert {"disease", "score"} <= set(model.predictors_)
    other, y, _ = cohort(seed=3, prefix="other")
    other.obs["score"] = -np.repeat(y, N_CELLS)
    model.update_labels(other, ["score"])
    assert np.corrcoef(model.predict("score", new.adata, key_added=None)["mean"], new.y)[0, 1] < -0.95


@pytest.mark.parametrize(
    ("data", "labels", "error", "words"),
    [
        ("no table", None, TypeError, "DataFrame with one row per group"),
        (pd.DataFrame({"age": [1.0]}, index=["d1x"]), None, KeyError, "'d1x' is not in the groups"),
        (pd.DataFrame({"age": [1.0, 2.0]}, index=["d001", "d001"]), None, ValueError, "one row per group"),
        (pd.DataFrame({"age": [1.0]}, index=["d001"]), ["aeg"], KeyError, "Did you mean 'age'"),
    ],
)
def test_update_labels_refuses(trained, data, labels, error, words):
    with pytest.raises(error, match=words):
        trained.model.update_labels(data, labels)


def _set(table, column, values):
    return table.assign(**{column: values})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: _set(t, "disease", None), r"0 training group\(s\) have a value, at least 2"),
        (lambda t: _set(t, "disease", "ill"), "all 48 training groups .* same one, 'ill'"),
        (lambda t: _set(t, "age", 50.0), "same one"),
        (lambda t: _set(t, "disease", t["donor"]), "a value of its own"),
    ],
)
def test_labels_that_cannot_be_learned_say_why_when_they_are_asked_for(trained, make_model, change, words):
    """They do no harm: they are columns of the results, and other labels are predicted."""
    model = trained.model
    table = change(trained.table).set_index("donor")
    column = "age" if (table["age"] == 50).all() else "disease"
    summary = model.update_labels(table, [column, "stage"])
    assert summary.loc["stage", "status"] == "fitted"
    with pytest.raises(ValueError, match=f"'{column}' cannot be predicted: .*{words}.*update_labels"):
        model.predict(column)


def test_a_model_of_one_class_trains(make_model):
    adata = cohort(n_groups=8)[0]
    adata.obs["disease"] = "ill"
    model = make_model(adata, labels=["disease"], options={"labels_weight": 1.0})
    assert len(model.module.heads) == 0
    with pytest.raises(ValueError, match="same one, 'ill'"):
        model.predict("disease")


def test_a_class_with_one_group(trained, new):
    disease = np.where(trained.y > 0, "ill", "well").astype(object)
    disease[0] = "odd"
    trained.model.update_labels(pd.DataFrame({"disease": disease}, index=trained.table["donor"]))
    with pytest.warns(UserWarning, match="One group only is labelled 'odd'"):
        predicted = trained.model.predict("disease", new.adata, key_added=None)
    assert predicted[["ill", "odd", "well"]].sum(axis=1).to_numpy() == pytest.approx(1)
    assert predicted["odd"].mean() < 0.2


def test_outliers_do_not_lead(trained, new):
    age = trained.table["age"].to_numpy().copy()
    age[1], age[2] = 1e9, -1e6
    trained.model.update_labels(pd.DataFrame({"age": age}, index=trained.table["donor"]))
    predicted = trained.model.predict("age", new.adata, key_added=None)
    assert np.corrcoef(predicted["mean"], new.y)[0, 1] > 0.9
    assert (predicted["mean"] - (50 + 10 * new.y)).abs().median() < 5


def test_labels_of_new_data_are_not_read(trained, new):
    adata = new.adata.copy()
    adata.obs["disease"], adata.obs["age"] = "never seen", "old"
    expected = trained.model.predict("disease", new.adata, key_added=None)
    pd.testing.assert_frame_equal(trained.model.predict("disease", adata, key_added=None), expected)


def test_training_on_with_unseen_classes_is_refused(make_model, tiny, tmp_path):
    make_model(cohort()[0], labels=["disease"], options={"labels_weight": 1.0}).save(tmp_path / "model")
    other = cohort(seed=1)[0]
    other.obs["disease"] = other.obs["disease"].replace({"ill": "unwell"})
    model = GDE.load(tmp_path / "model", adata=other)
    with pytest.raises(ValueError, match=r"does not know: 'unwell'.*'ill', 'well'.*update_labels"):
        model.train(max_steps=2, **tiny.train)


@pytest.mark.parametrize(
    ("column", "labels", "error", "words"),
    [
        (pd.Timestamp("2020-01-01"), ["odd"], TypeError, "datetime.*Convert it"),
        (np.inf, ["odd"], ValueError, "infinity"),
        ("yes", {"diagnosis": ["AD", "odd"]}, ValueError, "'odd' of a label with several columns.*True and False"),
    ],
)
def test_labels_of_wrong_types(column, labels, error, words):
    adata = cohort(n_groups=8)[0]
    adata.obs["odd"] = column
    if column == np.inf:
        adata.obs["odd"] = np.repeat([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, np.inf], N_CELLS)
    with pytest.raises(error, match=words):
        GDE.setup_anndata(adata, "donor", labels=labels)


def test_unknown_labels_and_weights(trained, make_adata):
    with pytest.raises(KeyError, match="Did you mean 'disease'"):
        trained.model.predict("diseas")
    GDE.setup_anndata(trained.adata, "donor", labels=LABELS)
    with pytest.raises(RuntimeError, match="not trained"):
        GDE(trained.adata).predict("disease")
    with pytest.raises(ValueError, match="labels_weight=-1"):
        GDE(trained.adata, labels_weight=-1)


def test_populations_over_time(tiny):
    """A TDE predicts too; its embedding is unsupervised, and all times of a donor are in one fold."""
    adata, y, _ = cohort()
    late = adata.copy()
    late.obs_names = "late-" + late.obs_names
    both = anndata.concat({"1": adata, "2": late}, label="day")
    TDE.setup_anndata(both, "donor", time_key="day", labels=["disease"])
    model = TDE(both, **tiny.options)
    model.train(max_steps=5, **tiny.train)
    predicted = model.predict("disease")
    assert both.uns["tde"]["predictions"]["label"].unique().tolist() == ["disease"]
    assert ((predicted["ill"] > 0.5) == np.repeat(y > 0, 2)).mean() > 0.85
    assert len(model.module.heads) == 0


def test_far_groups_are_flagged(trained):
    adata, _, _ = cohort(seed=5, prefix="far", n_groups=4)
    adata.X[: 2 * N_CELLS] += 100
    model = trained.model
    scores = model.fitted_["novelty"]["scores"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # 48 groups are too few for p < 0.01
        p_value = model.predict("disease", adata)["p_value"].to_numpy()
    np.testing.assert_allclose(p_value[:2], 1 / (len(scores) + 1))
    assert (p_value[2:] > 0.05).all()
    model.get_group_embedding(adata)
    np.testing.assert_allclose(adata.uns["gde"]["groups"]["p_value"], p_value)
