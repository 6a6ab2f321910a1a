"""What is refused, before any work."""

import numpy as np
import pandas as pd
import pytest

from scgde.prediction import cross_validate
from scgde.prediction._cohort import label_kind


def no_work(context):
    raise AssertionError


@pytest.fixture
def adata(make_cohort):
    return make_cohort(12, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"label": "diseas"}, KeyError, "Did you mean 'disease'"),
        ({"label": "cell_type"}, ValueError, "not constant within"),
        ({"label": "constant"}, ValueError, "All labelled groups have the value 'x'"),
        ({"label": "empty"}, ValueError, "No group has a value"),
        ({"label": "single"}, ValueError, "1 of 2 classes.*'yes: 1'"),
        ({"label": "disease", "n_splits": 7}, ValueError, "pass n_splits=6"),
        ({"label": "dose", "n_splits": 7}, ValueError, "fewer than two"),
        ({"label": "disease", "n_splits": 1}, ValueError, "n_splits=1"),
        ({"label": "disease", "n_repeats": 0}, ValueError, "n_repeats=0"),
        ({"label": "disease", "label_fraction": 0}, ValueError, "label_fraction=0"),
        ({"label": "disease", "label_kind": "binary"}, ValueError, "label_kind='binary'"),
        ({"label": "disease", "label_kind": "numeric"}, ValueError, "expected finite numbers"),
        ({"label": "disease", "label_kind": "ordered"}, ValueError, "text without an order"),
        ({"label": "infinite"}, ValueError, "expected finite numbers"),
        ({"label": "disease", "group_unit": "cell_type"}, ValueError, "group_unit=.*not constant"),
        ({"label": "disease", "group_unit": "partial"}, ValueError, "1 of 12 groups have no value"),
        ({"label": "disease", "group_unit": "half"}, ValueError, "fewer groups .or units. than"),
        ({"label": "disease", "group_unit": "site"}, KeyError, "site"),
        ({"label": "disease", "cell_type_key": "types"}, KeyError, "Did you mean 'cell_type'"),
        ({"label": "disease", "models": ["pseudobulks"]}, KeyError, "Did you mean 'pseudobulk'"),
        ({"label": "disease", "models": [3]}, TypeError, "int"),
        ({"label": "disease", "models": ["gde", "gde"]}, ValueError, "twice"),
        ({"label": "disease", "models": {"majority": "gde"}}, ValueError, "name of a baseline"),
        ({"label": "disease", "groupby": "donors"}, KeyError, "Did you mean 'donor'"),
        ({"label": "disease", "use_rep": "X_pca"}, KeyError, "X_pca"),
        ({"label": "disease", "preprocess": 5}, TypeError, "preprocess=5"),
        ({"label": "disease", "preprocess": len, "use_rep": "X"}, ValueError, "not used"),
    ],
)
def test_clear_errors(adata, arguments, error, match):
    donor = adata.obs["donor"].cat.codes
    adata.obs["constant"], adata.obs["empty"] = "x", np.nan
    adata.obs["single"] = np.where(donor == 3, "yes", "no")
    adata.obs["infinite"] = np.where(donor == 3, np.inf, donor.astype(float))
    adata.obs["partial"] = np.where(donor == 3, None, donor.astype(str))
    adata.obs["half"] = np.where(donor < 6, "left", "right")
    with pytest.raises(error, match=match):
        cross_validate(adata, **{"groupby": "donor", "models": {"spy": no_work}, "n_splits": 3, **arguments})


def test_wrong_objects_and_empty_x(adata):
    with pytest.raises(TypeError, match="to be an AnnData"):
        cross_validate(adata.obs, "donor", "disease")
    adata = adata[:, :0].copy()
    adata.obsm["X_pca"] = np.zeros((adata.n_obs, 2))
    with pytest.raises(ValueError, match="test groups included"):
        cross_validate(adata, "donor", "disease")


def test_a_failing_model_is_named(adata):
    with pytest.raises(AssertionError) as info:
        cross_validate(adata, "donor", "disease", {"mine": no_work}, n_splits=3, progress=False)
    assert "the model 'mine', repeat 0, fold 0" in info.value.__notes__[0]


@pytest.mark.parametrize(
    "features",
    [np.zeros((3, 2)), np.full((8, 2), np.nan), pd.DataFrame(np.zeros((8, 2)), index=[f"other{i}" for i in range(8)])],
)
def test_features_that_do_not_fit_are_refused(adata, features):
    class Broken:
        def __init__(self, context):
            pass

        def fit_transform(self, train):
            return features

    with pytest.raises(ValueError, match="The model 'Broken' returned features"):
        cross_validate(adata, "donor", "disease", [Broken], n_splits=3, progress=False)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False, None], "categorical"),
        ([0, 1, 1], "categorical"),
        ([0, 1, 2], "numeric"),
        ([0.5, np.nan, 2, 3], "numeric"),
        (["a", "b", None], "categorical"),
        (pd.Categorical(["a", "b", "c"]), "categorical"),
        (pd.Categorical(["a", "b", "c"], ordered=True), "ordered"),
        (pd.Categorical(["a", "b"], ["a", "b", "c"], ordered=True), "categorical"),
    ],
)
def test_kinds(values, kind):
    assert label_kind(pd.Series(values)) == kind
