"""Simulated populations against their own parameters and against closed forms."""

import anndata
import numpy as np
import pytest

from scgde.datasets import KINDS, draw_cells, population_moments, simulate_populations

kinds = pytest.mark.parametrize("kind", KINDS)
mixtures = ["cells50", "mixture2", "mixture2_centred"]


def assert_zero_in_expectation(values, n_errors=4.5):
    """Check means over the first axis (independent groups) against their own standard errors."""
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    np.testing.assert_array_less(np.abs(values.mean(axis=0)), n_errors * error)


@kinds
def test_shape_of_the_result(kind):
    adata = simulate_populations(kind, 12, 7, 0)
    d = {"cells50": 50, "gaussian5": 5}.get(kind, 2)
    assert adata.shape == (84, d)
    assert adata.X.dtype == np.float32
    assert list(adata.obs["group"].cat.categories) == [f"group_{i:02d}" for i in range(12)]
    assert (adata.obs["group"].value_counts() == 7).all()
    assert ("cell_type" in adata.obs) == (kind in mixtures)
    np.testing.assert_allclose(adata.uns["populations"]["weights"].sum(axis=1), 1)


@kinds
def test_cells_are_a_function_of_the_seed_and_parameters_of_the_seed_only(kind):
    adata, again, longer, other = (
        simulate_populations(kind, 5, n_cells, seed) for n_cells, seed in [(6, 3), (6, 3), (9, 3), (6, 4)]
    )
    np.testing.assert_array_equal(adata.X, again.X)
    assert not np.array_equal(adata.X, other.X)
    for name in ("weights", "means"):
        np.testing.assert_array_equal(adata.uns["populations"][name], longer.uns["populations"][name])
    assert not np.array_equal(adata.uns["populations"]["means"], other.uns["populations"]["means"]) or "centred" in kind


@kinds
def test_cells_have_the_moments_of_their_group(kind):
    parameters = simulate_populations(kind, 400, 1, 1).uns["populations"]
    mean, cov = population_moments(parameters)
    cells = draw_cells(parameters, 100, 2).astype(float)
    assert cells.shape == (400, 100, mean.shape[1])
    # In coordinates in which each group has mean 0 and covariance I.
    white = np.linalg.solve(np.linalg.cholesky(cov), (cells - mean[:, None]).transpose(0, 2, 1))
    assert_zero_in_expectation(white.mean(axis=2), 5)
    # Deviations in single groups would cancel above; here they add up.
    assert_zero_in_expectation(100 * np.square(white.mean(axis=2)).sum(axis=1) - mean.shape[1])
    assert_zero_in_expectation(np.einsum("gdc,gec->gde", white, white) / 100 - np.eye(mean.shape[1]), 5)


@kinds
def test_further_cells_are_new_cells_of_the_same_groups(kind):
    adata = simulate_populations(kind, 30, 50, 1)
    parameters = adata.uns["populations"]
    further, component = draw_cells(parameters, 50, 1, return_component=True)
    assert further.dtype == np.float32
    assert component.shape == (30, 50)
    assert not np.isin(further[..., 0].ravel(), adata.X[:, 0]).any()
    np.testing.assert_array_equal(further, draw_cells(parameters, 50, 1))
    assert not np.array_equal(further, draw_cells(parameters, 50, 2))


@pytest.mark.parametrize(("kind", "d", "df"), [("gaussian2", 2, 10), ("gaussian5", 5, 40), ("mixture2", 2, 10)])
def test_covariances_are_inverse_wishart(kind, d, df):
    covs = simulate_populations(kind, 3000, 1, 0).uns["populations"]["covs"]
    assert_zero_in_expectation(covs[:, 0] - np.eye(d) / (df - d - 1))
    # The inverse is Wishart, whose diagonal is chi-squared with df degrees of freedom: mean df, variance 2 df.
    diagonal = np.diagonal(np.linalg.inv(covs[:, -1]), axis1=1, axis2=2)
    assert_zero_in_expectation(diagonal - df)
    assert_zero_in_expectation((diagonal - df) ** 2 - 2 * df)


@pytest.mark.parametrize("kind", ["gaussian2", "gaussian5", "mixture2"])
def test_means_are_uniform(kind):
    means = simulate_populations(kind, 3000, 1, 0).uns["populations"]["means"].reshape(3000, -1)
    assert means.min() >= 0
    assert means.max() <= 5
    assert_zero_in_expectation(means - 2.5)
    assert_zero_in_expectation((means - 2.5) ** 2 - 25 / 12)


@pytest.mark.parametrize("kind", ["gaussian2_centred", "mixture2_centred"])
def test_centred_groups_differ_from_the_others_by_a_shift(kind):
    centred, plain = (simulate_populations(name, 50, 1, 0).uns["populations"] for name in (kind, kind[:-8]))
    mean, cov = population_moments(centred)
    np.testing.assert_allclose(mean, 0, atol=1e-14)
    np.testing.assert_allclose(cov, population_moments(plain)[1])


@pytest.mark.parametrize("kind", mixtures)
def test_components_follow_the_weights(kind):
    adata = simulate_populations(kind, 300, 200, 5)
    weights = adata.uns["populations"]["weights"]
    counts = adata.obs.groupby(["group", "cell_type"], observed=False).size().to_numpy().reshape(weights.shape)
    assert_zero_in_expectation(counts / 200 - weights)
    expected_variance = 200 * weights * (1 - weights)
    assert_zero_in_expectation((counts - 200 * weights) ** 2 - expected_variance)


def test_mixture_weights_are_uniform_on_the_simplex():
    weights = simulate_populations("mixture2", 3000, 1, 0).uns["populations"]["weights"]
    assert_zero_in_expectation(weights - 1 / 3)
    assert_zero_in_expectation((weights - 1 / 3) ** 2 - 1 / 18)


def test_cells50_types_lie_around_their_own_means():
    parameters = simulate_populations("cells50", 200, 1, 0).uns["populations"]
    cells, component = draw_cells(parameters, 50, 0, return_component=True)
    means, scale = parameters["means"], parameters["scale"]
    group = np.arange(200)[:, None]
    residual = (cells - means[group, component]) / scale[group, component][..., None]
    for k in range(5):
        variance = parameters["sd"][k] ** 2 + (parameters["low_rank"][k] ** 2).sum(axis=1)
        assert_zero_in_expectation(residual[component == k] ** 2 - variance, 5)
    assert_zero_in_expectation(np.log(scale))
    assert_zero_in_expectation(np.log(scale) ** 2 - 0.15**2)


def test_cells50_constants_have_the_scale_of_the_protocol_and_do_not_depend_on_the_seed():
    first, second = (simulate_populations("cells50", 500, 1, seed).uns["populations"] for seed in (0, 1))
    s = 3 / np.sqrt(np.arange(1, 51))
    np.testing.assert_array_equal(first["sd"], second["sd"])
    np.testing.assert_array_equal(first["low_rank"], second["low_rank"])
    assert ((first["sd"] > 0.35 * 0.7 * s + 0.15) & (first["sd"] < 0.35 * 1.4 * s + 0.15)).all()
    # Average over 250 (750) squared normals: relative standard errors 9% and 5%.
    type_means = (first["means"].mean(axis=0) + second["means"].mean(axis=0)) / 2
    assert np.square(type_means / s).mean() == pytest.approx(1, abs=0.4)
    assert np.square(first["low_rank"] / s[:, None]).mean() == pytest.approx(0.15**2, rel=0.25)
    # Six factors of sd 0.12 s move the type means between groups.
    assert (first["means"].var(axis=0) / s**2).mean() == pytest.approx(6 * 0.12**2, rel=0.25)
    first["sd"][:] = 0
    assert second["sd"].min() > 0


@pytest.mark.parametrize("kind", ["mixture2", "cells50"])
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_file_round_trip_keeps_what_draw_cells_needs(kind, suffix, tmp_path):
    adata = simulate_populations(kind, 4, 3, 0)
    path = tmp_path / f"populations.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    again = getattr(anndata, f"read_{suffix}")(path).uns["populations"]
    np.testing.assert_array_equal(draw_cells(again, 5, 1), draw_cells(adata.uns["populations"], 5, 1))


def test_bad_requests_are_named():
    with pytest.raises(ValueError, match=r"kind='gaussian3' is unknown: choose from \['cells50'"):
        simulate_populations("gaussian3", 1, 1, 0)
    with pytest.raises(ValueError, match="n_groups=0 and n_cells=5"):
        simulate_populations("gaussian2", 0, 5, 0)
