"""Overlapping, weighted groups: a matrix of memberships in place of a column of groups."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse
from scipy.stats import truncnorm

from scgde import GDE, TDE
from scgde.data import GroupedCells, kernel_groups
from scgde.uncertainty import compare

N_TIMES = 9


def one_hot(adata, *, kind="sparse", scale=1.0):
    """The donors as a matrix of memberships, a partition."""
    donors = pd.Categorical(adata.obs["donor"])
    frame = pd.DataFrame(
        scale * np.eye(len(donors.categories))[donors.codes], index=adata.obs_names, columns=donors.categories
    )
    if kind == "frame":
        return frame
    adata.uns["member"] = {"names": np.array(donors.categories, dtype=object)}
    return sparse.csr_matrix(frame.to_numpy()) if kind == "sparse" else frame.to_numpy()


@pytest.fixture(scope="module")
def course():
    """Cells along time t in [0, 1], whose mean moves linearly: x ~ N((4 t, 0), I)."""
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(size=6000))
    x = np.c_[4 * t, 0 * t] + rng.normal(size=(len(t), 2))
    obs = pd.DataFrame({"t": t, "library": np.array(["a", "b"])[rng.integers(0, 2, len(t))]})
    adata = AnnData(x.astype(np.float32), obs=obs.set_axis([f"cell{i}" for i in range(len(t))]))
    kernel_groups(adata, "t", n_groups=N_TIMES, bandwidth=0.06, key_added="window")
    return adata


@pytest.fixture(scope="module")
def model(course, make_model):
    return make_model(course, groupby=None, membership_key="window", steps=20)


@pytest.mark.filterwarnings("ignore:.*effective cells")
def test_a_partition_gives_what_groupby_gives(make_adata, make_model):
    adata, other = (make_adata(n_groups=30, n_cells=12) for _ in range(2))
    other.obsm["member"] = one_hot(other)
    expected = make_model(adata, weight_key="mass", batch_key="library")
    found = make_model(other, groupby=None, membership_key="member", weight_key="mass", batch_key="library")
    assert found.fitted_["validation_size"] == expected.fitted_["validation_size"] > 0
    for left, right in zip(
        expected.get_group_embedding(return_se=True), found.get_group_embedding(return_se=True), strict=True
    ):
        assert np.array_equal(left.to_numpy(), right.to_numpy())
        assert list(left.index) == list(right.index)
    assert "X_gde" not in other.obsm
    assert other.uns["gde"]["groups"]["member"].tolist() == adata.uns["gde"]["groups"]["donor"].tolist()
    assert np.array_equal(expected.sample("donor_3", 20).X, found.sample("donor_3", 20).X)
    moved = [each.transport("donor_3", "donor_4") for each in (expected, found)]
    assert np.array_equal(moved[0].X, moved[1].X)
    assert list(moved[0].obs_names) == list(moved[1].obs_names)


def test_all_kinds_of_matrices_say_the_same(make_adata):
    adata, found = make_adata(), []
    for kind in ("sparse", "dense", "frame"):
        adata.obsm["member"] = one_hot(adata, kind=kind)
        found.append(GDE.setup_anndata(adata, membership_key="member")._read(None)[1])
    for each in found[1:]:
        assert each.index.names == found[0].index.names
        assert np.array_equal(each.index.codes, found[0].index.codes)
        assert np.array_equal(each.index.rows, found[0].index.rows)


def test_equal_memberships_of_any_size_are_a_partition_too(make_adata, make_model):
    adata, other = make_adata(), make_adata()
    other.obsm["member"] = one_hot(other, scale=0.3)
    expected, found = make_model(adata), make_model(other, groupby=None, membership_key="member")
    assert np.array_equal(expected.get_group_embedding().to_numpy(), found.get_group_embedding().to_numpy())


def test_an_overlapping_group_is_that_of_its_weighted_cells(course, model):
    """Each group's embedding, error and effective cells are those of an AnnData with its cells and weights alone."""
    z, se = model.get_group_embedding(return_se=True)
    weights = course.obsm["window"].toarray()
    parts = []
    for j in (0, 4):
        own = course[weights[:, j] > 0].copy()
        own.obsm["window"] = np.c_[weights[weights[:, j] > 0, j], np.ones(own.n_obs)]
        own.uns.clear()
        parts.append(own)
        other, error = model.get_group_embedding(own, return_se=True, key_added=None)
        np.testing.assert_allclose(other.iloc[0], z.iloc[j], atol=1e-5 * z.to_numpy().std(0).max())
        np.testing.assert_allclose(error.iloc[0], se.iloc[j], rtol=1e-4, atol=1e-6)
        n = weights[:, j].sum() ** 2 / (weights[:, j] ** 2).sum()
        assert model.effective_cells().iloc[j] == pytest.approx(n)
    assert course.uns["gde"]["groups"]["n_effective"].iloc[4] == pytest.approx(n)
    assert "X_gde" not in course.obsm


def test_statistics_at_a_centre_have_their_closed_form(course, make_model):
    """With x ~ N(4 t, 1) and t uniform, mean and variance at a centre are 4 E[t] and 1 + 16 Var[t], t truncated normal.

    The weighted mean of n effective cells has variance of at most V / n, with the variance V, and the weighted variance
    one of about 2 V^2 / n. Four of these standard errors are exceeded with probability 6e-5 for each of 18 numbers.
    """
    model = make_model(course, groupby=None, membership_key="window", options={"n_components": 1})
    mixtures = model._populations(None, None, True, None).mixtures
    found = model.module.restore(mixtures.mean)[:, 0, 0].numpy()
    centres, h, n = course.uns["window"]["centres"][:, 0], 0.06, model.effective_cells().to_numpy()
    ends = [(np.clip(end, 0, 1) - centres) / h for end in (centres - 3 * h, centres + 3 * h)]
    mean, variance = truncnorm.stats(*ends, loc=centres, scale=h)
    variance = 1 + 16 * variance
    assert (np.abs(found - 4 * mean) < 4 * np.sqrt(variance / n)).all()
    own = mixtures.covariance()[:, 0, 0, 0].numpy() * model.module.scale[0].item() ** 2
    # The prior mass draws variances a little towards the pooled one.
    assert (np.abs(own - variance) < 4 * np.sqrt(2 / n) * variance + 0.05).all()


def test_the_embedding_is_smooth_along_the_kernel_s_centre(course, model):
    """Four times as many centres: neighbours are 1/4 as far, and new centres lie between the old ones."""
    fine = course.copy()
    kernel_groups(fine, "t", n_groups=4 * N_TIMES - 3, bandwidth=0.06, key_added="window")
    coarse, z = (model.get_group_embedding(data, key_added=None).to_numpy() for data in (course, fine))
    np.testing.assert_allclose(z[::4], coarse, atol=1e-4 * coarse.std(0).max())
    steps, long = (np.linalg.norm(np.diff(each, axis=0), axis=1) for each in (z, coarse))
    assert steps.max() < 0.5 * long.max()
    assert np.corrcoef(z[:, 0], np.arange(len(z)))[0, 1] ** 2 > 0.95


def test_new_data_sampling_interpolation_and_transport(course, model):
    new = course[::3].copy()
    new.obsm["window"] = new.obsm["window"][:, [1, 7]]
    del new.uns["window"]
    z = model.get_group_embedding(new)
    assert list(z.index) == ["0", "1"]
    whole = model.get_group_embedding(key_added=None).iloc[[1, 7]].to_numpy()
    assert np.linalg.norm(z.to_numpy() - whole) < 0.3 * np.linalg.norm(whole[0] - whole[1])
    assert {"n_cells", "p_value"} <= set(new.uns["gde"]["groups"])

    drawn = model.sample(["1", "7"], 500)
    means = drawn.to_df().iloc[:, 0].groupby(drawn.obs["window"].astype(str)).mean()
    np.testing.assert_allclose(means, [0.5, 3.5], atol=0.4)
    path = model.interpolate("1", "7", 3, n_cells=50)
    assert path.n_obs == 150

    moved = model.transport("1", "7")
    weights = course.obsm["window"].toarray()[:, 1]
    assert list(moved.obs_names) == list(course.obs_names[weights > 0])
    np.testing.assert_allclose(moved.obs["window"], weights[weights > 0])
    # The moved measure is the weighted one.
    assert np.average(moved.X[:, 0], weights=moved.obs["window"]) == pytest.approx(3.5, abs=0.4)
    both = model.transport(["1", "2"], "7")
    assert both.obs_names.is_unique
    assert both.n_obs > moved.n_obs
    distances = model.group_distances(metric="energy", max_cells=200).to_numpy()
    assert (np.diff(distances[0, 1:]) > 0).all()
    groups = model.to_group_adata()
    assert groups.n_obs == N_TIMES
    assert "t" not in groups.obs


def test_features_are_kept_once_and_memory_follows_the_non_zeros(course, model):
    _, obs = model._read(None)
    cells = GroupedCells.from_arrays(course.X, obs.index.codes, N_TIMES, obs.weight, None, seed=0, cells=obs.index.rows)
    assert cells.x.shape == course.shape
    assert len(cells.cell) == course.obsm["window"].nnz < 0.6 * course.n_obs * N_TIMES
    # A cell that several groups share has one place in the order of all.
    for g in range(N_TIMES - 1):
        first, second = (cells.cell[cells.offsets[i] : cells.offsets[i + 1]].numpy() for i in (g, g + 1))
        shared = np.intersect1d(first, second)
        assert np.array_equal(first[np.isin(first, shared)], second[np.isin(second, shared)])


def test_save_and_load(course, model, tmp_path):
    model.save(tmp_path / "model")
    expected = model.get_group_embedding(key_added=None)
    loaded = GDE.load(tmp_path / "model", adata=course)
    pd.testing.assert_frame_equal(loaded.get_group_embedding(key_added=None), expected, check_exact=True)
    course.write_h5ad(tmp_path / "course.h5ad")
    read = read_h5ad(tmp_path / "course.h5ad")
    again = GDE.load(tmp_path / "model", adata=False).get_group_embedding(read, key_added=None)
    pd.testing.assert_frame_equal(again, expected, check_exact=True)


def test_what_needs_one_group_per_cell_is_refused(course, model):
    with pytest.raises(ValueError, match="one result per cell"):
        model.get_latent_representation()
    with pytest.raises(ValueError, match="share .* cells"):
        compare(model, "1", "2")
    assert compare(model, "0", "8")["p_value"].iloc[0] < 1e-6
    for name in ("labels", "split_key"):
        with pytest.raises(ValueError, match=f"{name}=.* is for groupby=.*update_labels"):
            GDE.setup_anndata(course, membership_key="window", **{name: "library"})
    with pytest.raises(ValueError, match="time_key=.* is for groupby="):
        TDE.setup_anndata(course, membership_key="window", time_key="t")
    with pytest.raises(ValueError, match="table with one row per group"):
        model.update_labels(course, labels=["library"])


def test_labels_come_as_a_table(make_adata, make_model):
    """Donors of two overlapping groups each: what shares cells is one unit, so folds keep donors apart."""
    adata = make_adata(n_groups=16, n_cells=20)
    donors, rng = np.array(one_hot(adata, kind="dense")), np.random.default_rng(0)
    names = [f"{name}-{half}" for name in adata.uns["member"]["names"] for half in "ab"]
    weights = np.repeat(donors, 2, axis=1) * rng.uniform(0.1, 1, (adata.n_obs, 2 * donors.shape[1]))
    adata.obsm["member"] = pd.DataFrame(weights, index=adata.obs_names, columns=names)
    model = make_model(adata, groupby=None, membership_key="member", steps=5)
    assert model._read(None)[1].unit.tolist() == np.repeat(range(16), 2).tolist()
    y = model.get_group_embedding(key_added=None)["z1"]
    learned = model.update_labels(pd.DataFrame({"score": y}))
    assert learned.loc["score", "status"] == "fitted"
    assert np.corrcoef(model.predict("score")["mean"], y)[0, 1] > 0.9


def test_groups_that_share_cells_are_held_out_together_or_not_at_all(course, make_adata, make_model, tiny):
    GDE.setup_anndata(course, membership_key="window")
    with pytest.raises(ValueError, match="validation_size=0.3 holds out no group.* 9 groups make up 1 such"):
        GDE(course, **tiny.options).train(max_steps=1, validation_size=0.3, **tiny.train)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda m: -m, ValueError, "negative, missing or infinite"),
        (lambda m: m * np.nan, ValueError, "negative, missing or infinite"),
        (lambda m: m * [1, 0, 1, 1, 1, 1], ValueError, "1 of 6 groups .* have no cell .*donor_1"),
        (lambda m: m.astype(str), TypeError, "expected numbers"),
        (lambda m: m[:, :1], ValueError, "names 6 groups"),
        (lambda m: pd.DataFrame(m, columns=list("aabcde")), ValueError, "'a' several times"),
    ],
)
def test_bad_memberships_are_refused_before_anything_changes(make_adata, unchanged, change, error, match):
    adata = make_adata()
    found = change(one_hot(adata, kind="dense"))
    adata.obsm["member"] = found.set_index(adata.obs_names) if isinstance(found, pd.DataFrame) else found
    with unchanged(adata, setup_keys=False), pytest.raises(error, match=match):
        GDE.setup_anndata(adata, membership_key="member")


def test_the_grouping_is_named_once(make_adata):
    adata = make_adata()
    adata.obsm["member"] = one_hot(adata)
    with pytest.raises(ValueError, match="neither of groupby= and membership_key="):
        GDE.setup_anndata(adata)
    with pytest.raises(ValueError, match="both of groupby= and membership_key="):
        GDE.setup_anndata(adata, "donor", membership_key="member")
    with pytest.raises(KeyError, match="Did you mean 'member'"):
        GDE.setup_anndata(adata, membership_key="membr")
    model = GDE.setup_anndata(adata, membership_key="member")
    assert "6 groups by member (180 cells)" in repr(model)
    adata.obsm["member"] = adata.obsm["member"] * 0.5 + sparse.csr_matrix(np.eye(180, 6))
    with pytest.raises(ValueError, match="changed since setup"):
        model.train(max_steps=1)
