"""What comes back, what is written, and what an embedding does not depend on."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scgde import GDE

#: Largest difference in units of the standard deviation between groups that is float order and nothing else.
FLOAT_ORDER = 1e-5


def gap(z, expected):
    """Largest difference of two embeddings in units of each dimension's standard deviation between groups."""
    return ((z.loc[expected.index] - expected).abs() / expected.std(ddof=0)).max(axis=None)


def test_embedding_and_what_is_written(make_adata, make_model, unchanged):
    adata = make_adata()
    model = make_model(adata, labels=["disease", "age"])
    with unchanged(adata):
        z = model.get_group_embedding(key_added=None)
    assert z.index.equals(pd.Index([f"donor_{i}" for i in range(6)], name="donor"))
    assert z.columns.tolist() == [f"z{i}" for i in range(1, 7)]
    assert (z.dtypes == np.float32).all()
    pd.testing.assert_frame_equal(model.get_group_embedding(key_added="two"), z)
    entry = adata.uns["two"]
    assert set(entry) == {"embedding", "groups", "settings"}
    np.testing.assert_array_equal(entry["embedding"], z)
    assert entry["embedding"].dtype == np.float32
    assert entry["groups"].columns.tolist() == ["donor", "disease", "age", "n_cells"]
    assert entry["groups"]["age"].tolist() == [20.0, 23, 26, 29, 32, 35]
    assert entry["groups"]["n_cells"].tolist() == [30] * 6
    assert entry["settings"]["groupby"] == "donor"
    assert entry["settings"]["n_latent"] == 6
    np.testing.assert_array_equal(adata.obsm["X_two"], z.loc[adata.obs["donor"]])
    model.get_group_embedding(write_obsm=False)
    assert "gde" in adata.uns
    assert "X_gde" not in adata.obsm


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_labels_with_missing_values_survive_a_file(make_adata, make_model, tmp_path, suffix):
    adata = make_adata()
    one = adata.obs["donor"] == "donor_1"
    adata.obs["disease"] = adata.obs["disease"].mask(one)
    adata.obs["age"] = adata.obs["age"].mask(one)
    adata.obs["stage"] = pd.Categorical(adata.obs["disease"], ["ill", "healthy"], ordered=True)
    make_model(adata, labels={"disease": "disease", "years": "age", "stage": "stage"}).get_group_embedding()
    path = tmp_path / f"labels.{suffix}"
    getattr(adata, {"h5ad": "write_h5ad", "zarr": "write_zarr"}[suffix])(path)
    groups = {"h5ad": ad.read_h5ad, "zarr": ad.read_zarr}[suffix](path).uns["gde"]["groups"]
    for column, value in (("disease", "healthy"), ("years", 20), ("stage", "healthy")):
        assert groups[column].isna().tolist() == [False, True, False, False, False, False]
        assert groups[column].iloc[0] == value
    assert groups["stage"].cat.ordered


def test_per_cell_and_distances(make_adata, model):
    z = model.get_group_embedding(key_added=None)
    np.testing.assert_array_equal(model.get_latent_representation(), z.loc[model.adata.obs["donor"]])
    distances = model.group_distances()
    assert distances.index.equals(z.index)
    assert distances.columns.equals(z.index)
    np.testing.assert_allclose(
        distances.loc["donor_1", "donor_4"], np.linalg.norm(z.loc["donor_1"] - z.loc["donor_4"]), rtol=1e-5
    )
    np.testing.assert_array_equal(np.diag(distances), 0)
    assert not {"gde", "X_gde"} & {*model.adata.uns, *model.adata.obsm}


def test_group_adata(make_adata, make_model, tmp_path):
    adata = make_adata()
    adata.obs["sex"] = pd.Categorical(np.where(adata.obs["age"] < 30, "f", "m"), ["x", "m", "f"])
    adata.obs["note"] = np.where(adata.obs["donor"] == "donor_3", None, "seen")
    adata.obs.loc[adata.obs_names[0], "age"] = np.nan  # missing in one cell is no second value
    model = make_model(adata)
    groups = model.to_group_adata()
    assert groups.obs_names.tolist() == [f"donor_{i}" for i in range(6)]
    assert groups.var_names.tolist() == [f"z{i}" for i in range(1, 7)]
    np.testing.assert_array_equal(groups.X, model.get_group_embedding(key_added=None))
    np.testing.assert_array_equal(groups.obsm["X_gde"], groups.X)
    assert set(groups.obs.columns) == {"donor", "disease", "age", "split", "sex", "note", "n_cells"}
    assert groups.obs["age"].tolist() == [20.0, 23, 26, 29, 32, 35]
    assert groups.obs["sex"].dtype == adata.obs["sex"].dtype
    assert groups.obs["note"].isna().tolist() == [False] * 3 + [True] + [False] * 2
    groups.write_h5ad(tmp_path / "groups.h5ad")
    assert ad.read_h5ad(tmp_path / "groups.h5ad").obs["n_cells"].tolist() == [30] * 6


# --- invariances -----------------------------------------------------------------------------------------------------


def check_invariances(model, adata, *, chunk):
    expected = model.get_group_embedding(adata, key_added=None)
    n, rng = adata.n_obs, np.random.default_rng(0)
    permuted = adata[rng.permutation(n)]
    assert gap(model.get_group_embedding(permuted, key_added=None), expected) < FLOAT_ORDER
    tripled = adata[np.tile(np.arange(n), 3)]
    assert gap(model.get_group_embedding(tripled, key_added=None), expected) < FLOAT_ORDER
    chunked = model.get_group_embedding(adata, batch_size=chunk, key_added=None)
    assert gap(chunked, expected) < FLOAT_ORDER
    # Alone or with others, a group gets the same embedding.
    column = model.setup.columns[0]
    few = expected.index[:3]
    alone = model.get_group_embedding(adata[adata.obs[column].isin(few)], key_added=None)
    assert gap(pd.concat([alone, expected.drop(few)]), expected) < FLOAT_ORDER


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize("encoder", ["resnet", "deepsets"])
def test_embedding_is_a_function_of_the_distribution(make_adata, make_model, encoder):
    model = make_model(make_adata(), steps=30, options={"encoder": encoder})
    check_invariances(model, model.adata, chunk=7)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize(("file", "groupby"), [("covid_pbmc_20donors", "donor"), ("larry_clones_subset", "clone")])
def test_invariances_on_real_data(data_dir, make_model, file, groupby):
    adata = ad.read_h5ad(data_dir / f"{file}.h5ad")
    model = make_model(adata, groupby, steps=20, options={"n_latent": 16, "n_components": 4})
    check_invariances(model, adata, chunk=600)


def test_weights_are_masses(make_adata, make_model):
    adata = make_adata()
    weight = np.random.default_rng(0).integers(0, 4, adata.n_obs)
    adata.obs["mass"] = weight
    model = make_model(adata, weight_key="mass", steps=30)
    expected = model.get_group_embedding(key_added=None)

    repeated = adata[np.repeat(np.arange(adata.n_obs), weight)].copy()
    repeated.obs_names_make_unique()
    repeated.obs["mass"] = 1
    assert gap(model.get_group_embedding(repeated, key_added=None), expected) < FLOAT_ORDER

    scaled = adata.copy()
    scaled.obs["mass"] = 0.37 * weight
    assert gap(model.get_group_embedding(scaled, key_added=None), expected) < FLOAT_ORDER

    extreme = adata.copy()
    extreme.X[weight == 0] = 1e4
    assert gap(model.get_group_embedding(extreme, key_added=None), expected) < FLOAT_ORDER
    assert gap(model.get_group_embedding(adata[weight > 0], key_added=None), expected) < FLOAT_ORDER

    extreme.obs["mass"] = 1
    assert gap(model.get_group_embedding(extreme, key_added=None), expected) > 1  # a weight does make a difference


def test_cells_without_weight_take_no_part_in_training(make_adata, make_model):
    adata = make_adata()
    adata.obs["mass"] = np.random.default_rng(0).integers(0, 2, adata.n_obs)
    expected = make_model(adata, weight_key="mass").get_group_embedding(key_added=None)
    adata.X[(adata.obs["mass"] == 0).to_numpy()] = 1e4
    z = make_model(adata, weight_key="mass").get_group_embedding(key_added=None)
    pd.testing.assert_frame_equal(z, expected, check_exact=True)


# --- new data --------------------------------------------------------------------------------------------------------


def test_new_groups_are_embedded_and_decoded_without_training(make_adata, model, unchanged):
    new = make_adata(n_groups=3, seed=5, prefix="new")
    with unchanged(new, setup_keys=False), unchanged(model.adata):
        z = model.get_group_embedding(new, key_added=None)
        assert z.index.tolist() == ["new_0", "new_1", "new_2"]
        generated = model.sample("new_1", 400, adata=new)
        moved = model.transport("new_0", "new_2", new)
        model.interpolate("new_0", "new_2", adata=new)
    own = new.X[(new.obs["donor"] == "new_1").to_numpy()]
    np.testing.assert_allclose(generated.X.mean(0), own.mean(0), atol=0.75)
    target = new.X[(new.obs["donor"] == "new_2").to_numpy()]
    np.testing.assert_allclose(moved.X.mean(0), target.mean(0), atol=0.75)


def test_results_are_written_to_new_data(make_adata, model):
    new = make_adata(n_groups=3, seed=5, prefix="new")
    z = model.get_group_embedding(new)
    np.testing.assert_array_equal(new.uns["gde"]["embedding"], z)
    assert not [key for key in new.uns if key.startswith("_scvi")]
    assert "gde" not in model.adata.uns


def test_views_and_copies(make_adata, model, unchanged):
    new = make_adata(n_groups=3, seed=5, prefix="new")
    view = new[new.obs["donor"] != "new_0"]
    with unchanged(new, setup_keys=False):
        copy = view.copy()
        z = model.get_group_embedding(view)
        np.testing.assert_array_equal(view.obsm["X_gde"], z.loc[view.obs["donor"]])
    pd.testing.assert_frame_equal(model.get_group_embedding(copy), z)
    part = model.adata[model.adata.obs["donor"] != "donor_0"]
    assert gap(model.get_group_embedding(part, key_added=None), model.get_group_embedding(key_added=None)[1:]) < 1e-4


@pytest.mark.parametrize("form", [np.array, sparse.csr_matrix])
def test_backed_data(make_adata, model, tmp_path, form):
    new = make_adata(seed=5, prefix="new")
    expected = model.get_group_embedding(new, key_added=None)
    new.X = form(new.X)
    new.write_h5ad(tmp_path / "new.h5ad")
    backed = ad.read_h5ad(tmp_path / "new.h5ad", backed="r")
    z = model.get_group_embedding(backed)
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_array_equal(backed.obsm["X_gde"], expected.loc[backed.obs["donor"]])
    assert model.transport("new_0", "new_1", backed).n_obs == 30
    part = backed[:, ["gene3", "gene1", "gene0", "gene2"]]
    np.testing.assert_array_equal(model.get_group_embedding(part, key_added=None), expected)
    backed.file.close()


def test_backed_data_can_be_trained_on(make_adata, make_model, tmp_path):
    adata = make_adata()
    expected = make_model(adata.copy()).get_group_embedding()
    adata.write_h5ad(tmp_path / "train.h5ad")
    backed = ad.read_h5ad(tmp_path / "train.h5ad", backed="r")
    np.testing.assert_array_equal(make_model(backed).get_group_embedding(), expected)
    backed.file.close()


def test_variables_in_another_order(make_adata, model):
    new = make_adata(seed=5, prefix="new")
    expected = model.get_group_embedding(new, key_added=None)
    other = ad.concat(
        [new[:, ::-1], ad.AnnData(np.ones((new.n_obs, 1), np.float32), obs=new.obs, var=pd.DataFrame(index=["extra"]))],
        axis=1,
        merge="first",
    )
    assert other.var_names.tolist() == ["gene3", "gene2", "gene1", "gene0", "extra"]
    pd.testing.assert_frame_equal(model.get_group_embedding(other, key_added=None), expected)


def test_labels_need_not_be_in_new_data(make_adata, make_model):
    model = make_model(make_adata(), labels=["disease", "age"], split_key="split")
    new = make_adata(seed=5, prefix="new")
    new.obs = new.obs[["donor", "age"]]
    model.get_group_embedding(new)
    assert new.uns["gde"]["groups"].columns.tolist() == ["donor", "age", "n_cells", "p_value"]


def test_groups_of_another_dtype(make_adata, make_model):
    adata = make_adata()
    adata.obs["g"] = adata.obs["donor"].str.removeprefix("donor_").astype(int)
    model = make_model(adata, "g")
    new = adata.copy()
    new.obs["g"] = new.obs["g"].astype(str).astype("category")
    z = model.get_group_embedding(new, key_added=None)
    assert z.index.tolist() == list("012345")
    np.testing.assert_array_equal(z, model.get_group_embedding(key_added=None))


# --- what is held out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("genes", [False, True])
@pytest.mark.parametrize("change", ["values", "number"])
def test_test_groups_have_no_influence(make_adata, make_model, genes, change):
    def data(changed):
        adata = make_adata(n_groups=7, n_vars=60 if genes else 4)
        adata.obs["library"] = "a"
        held = (adata.obs["split"] == "test").to_numpy()
        if changed and change == "values":
            adata.X[held] = 50 * adata.X[held] + 1000
        if changed and change == "number":
            adata = adata[~held | (np.arange(adata.n_obs) % 3 > 0)].copy()
        return adata

    embeddings = []
    for changed in (False, True):
        model = make_model(data(changed), split_key="split", batch_key="library")
        embeddings.append(model.get_group_embedding(data(False), key_added=None))
    pd.testing.assert_frame_equal(*embeddings, check_exact=True)


def test_validation_groups_stop_and_do_not_train(make_adata, make_model):
    adata = make_adata()
    model = make_model(adata, split_key="split")
    assert "validation_loss_new_groups" in model.history
    expected = model.get_group_embedding(key_added=None)
    adata.X[(adata.obs["split"] == "validation").to_numpy()] += 3
    z = make_model(adata, split_key="split", train={"early_stopping": False}).get_group_embedding(key_added=None)
    pd.testing.assert_frame_equal(z.drop("donor_3"), expected.drop("donor_3"), check_exact=True)


def test_groups_are_held_out_where_there_are_many(make_adata, make_model):
    model = make_model(make_adata(n_groups=30, n_cells=12))
    assert "validation_loss_new_groups" in model.history
    assert "validation_loss_new_groups" not in make_model(make_adata(n_groups=29, n_cells=12)).history


def test_seed(make_adata, make_model):
    one, two, other = (make_model(make_adata(), options={"seed": seed}).get_group_embedding() for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert gap(other, one) > 1e-3


def test_embedding_follows_the_groups(make_adata, make_model):
    """Two halves of a group are nearer to each other than halves of different groups are, on average."""
    adata = make_adata(n_groups=4, n_cells=400)
    adata.obs["half"] = adata.obs["donor"] + np.where(np.arange(adata.n_obs) % 2, "-x", "-y")
    distances = make_model(adata, "half", steps=30).group_distances().to_numpy()
    same = np.equal.outer(np.arange(8) // 2, np.arange(8) // 2)
    assert distances[same & ~np.eye(8, dtype=bool)].mean() < 0.7 * distances[~same].mean()


def test_model_without_data_needs_some(make_adata, model, tmp_path):
    model.save(tmp_path / "model")
    loaded = GDE.load(tmp_path / "model", adata=False)
    for use in (loaded.get_group_embedding, loaded.train, loaded.sample):
        with pytest.raises(ValueError, match=r"loaded without data. Pass adata=, or load it with"):
            use()
