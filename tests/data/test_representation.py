"""Which numbers of a cell are read, and how other data are read the same way."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scgde.data import Representation


@pytest.fixture
def wide():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 5)) @ rng.normal(size=(5, 60)) + 0.01 * rng.normal(size=(90, 60)) + 3
    return AnnData(x.astype(np.float32), var=pd.DataFrame(index=[f"g{i}" for i in range(60)]))


def test_choice_without_arguments(wide):
    assert Representation.choose(wide[:, :50], None, None) == Representation("X")
    assert Representation.choose(wide, None, None) == Representation("X", project=True)
    wide.obsm["X_pca"] = wide.X[:, :3].copy()
    assert Representation.choose(wide, None, None) == Representation("obsm", "X_pca")
    assert Representation.choose(wide, "X", None) == Representation("X")
    wide.layers["log"] = wide.X.copy()
    assert Representation.choose(wide, None, "log") == Representation("layer", "log", project=True)


@pytest.mark.parametrize(("use_rep", "layer", "name"), [("X_pcs", None, "X_pca"), (None, "lg", "log")])
def test_unknown_names_say_what_there_is(wide, use_rep, layer, name):
    wide.obsm["X_pca"], wide.layers["log"] = wide.X[:, :3].copy(), wide.X.copy()
    with pytest.raises(KeyError, match=f"Did you mean '{name}'") as error:
        Representation.choose(wide, use_rep, layer)
    assert "None" not in str(error.value)


def test_two_names_at_once(wide):
    with pytest.raises(ValueError, match="use_rep='X' and layer='log' both name.*Pass one"):
        Representation.choose(wide, "X", "log")


def test_no_x_names_the_remedy():
    adata = AnnData(obs=pd.DataFrame(index=list("ab")), obsm={"emb": np.ones((2, 2))})
    with pytest.raises(ValueError, match="adata.X is empty.*use_rep"):
        Representation.choose(adata, None, None)


@pytest.mark.parametrize("matrix", [np.array, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_own_pca_sees_the_given_rows_only(wide, matrix):
    rows = np.arange(40)
    wide.X = matrix(wide.X)
    fitted = Representation.choose(wide, None, None).fit(wide, rows, seed=0)
    dense = wide.X.toarray() if sparse.issparse(wide.X) else wide.X
    centred = dense[rows] - dense[rows].mean(0)
    np.testing.assert_allclose(fitted.mean, dense[rows].mean(0), rtol=1e-5)
    top = np.linalg.svd(centred, full_matrices=False)[2][:5]
    np.testing.assert_allclose(np.abs(np.diag(top @ fitted.loadings[:5].T)), 1, atol=1e-3)
    assert fitted.n_features == 39
    np.testing.assert_allclose(fitted.read(wide), (dense - fitted.mean) @ fitted.loadings.T, atol=1e-3)
    dense[40:] = 7
    wide.X = matrix(dense)
    again = Representation.choose(wide, None, None).fit(wide, rows, seed=0)
    assert again.loadings.tobytes() == fitted.loadings.tobytes()


@pytest.mark.parametrize("project", [False, True])
def test_variables_are_found_by_name(wide, project):
    fitted = Representation("X", project=project).fit(wide, np.arange(90), seed=0)
    expected = fitted.read(wide)
    shuffled = wide[:, ::-1]
    shuffled = AnnData(
        np.hstack([shuffled.X, np.ones((90, 1), np.float32)]),
        var=pd.DataFrame(index=[*shuffled.var_names, "extra"]),
    )
    fitted.check(shuffled)
    np.testing.assert_allclose(fitted.read(shuffled), expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"2 of the 60 variables .*'g3', 'g7'. Pass data with the variables"):
        fitted.check(wide[:, ~wide.var_names.isin(["g3", "g7"])])


def test_names_that_occur_twice_are_refused(wide):
    fitted = Representation("X").fit(wide, np.arange(90), seed=0)
    twice = wide[:, [0, *range(60)]].copy()
    with pytest.raises(ValueError, match=r"'g0'.*var_names_make_unique"):
        fitted.check(twice)


@pytest.mark.parametrize("form", [np.array, pd.DataFrame, sparse.csr_matrix])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_obsm_of_any_form(wide, form, dtype):
    values = wide.X[:, :3].astype(dtype)
    stored = form(values)
    wide.obsm["emb"] = stored.set_index(wide.obs_names) if isinstance(stored, pd.DataFrame) else stored
    fitted = Representation.choose(wide, "emb", None).fit(wide, np.arange(90), seed=0)
    read = fitted.read(wide)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, values)
    assert fitted.feature_names == ["emb_1", "emb_2", "emb_3"]


def test_wrong_number_of_features(wide):
    wide.obsm["X_pca"] = wide.X[:, :3].copy()
    fitted = Representation.choose(wide, "X_pca", None).fit(wide, np.arange(90), seed=0)
    wide.obsm["X_pca"] = wide.X[:, :4].copy()
    with pytest.raises(ValueError, match=r"X_pca'\] has 4 features, the model was trained on 3. Pass the same"):
        fitted.check(wide)
    del wide.obsm["X_pca"]
    with pytest.raises(KeyError, match="X_pca.*lacks.*projection on the same"):
        fitted.check(wide)


def test_more_than_two_dimensions(wide):
    wide.obsm["image"] = np.zeros((90, 4, 4), np.float32)
    with pytest.raises(ValueError, match=r"image'\] has 3 dimension\(s\), expected \(n_cells, n_features\)"):
        Representation.choose(wide, "image", None).check(wide)


def test_layer_that_new_data_lack(wide):
    wide.layers["log"] = wide.X.copy()
    fitted = Representation.choose(wide, None, "log").fit(wide, np.arange(90), seed=0)
    del wide.layers["log"]
    with pytest.raises(KeyError, match="'log' is not in adata.layers"):
        fitted.check(wide)


def test_names_of_features(wide):
    assert Representation("X").fit(wide, np.arange(90), 0).feature_names == wide.var_names.tolist()
    projected = Representation("X", project=True).fit(wide, np.arange(3), 0)
    assert projected.feature_names == ["PC_1", "PC_2"]
    assert projected.obsm_key == "X_pca"


@pytest.mark.parametrize("n_cells", [1, 7, 50])
def test_projection_of_a_cell_does_not_depend_on_the_others(wide, n_cells):
    fitted = Representation("X", project=True).fit(wide, np.arange(wide.n_obs), seed=0)
    np.testing.assert_array_equal(fitted.read(wide[:n_cells].copy()), fitted.read(wide)[:n_cells])
