"""Forecasting toys: who is seen when, and cells that have the stated moments at both times."""

import anndata
import numpy as np
import pytest

from scgde.datasets import SHIFTS, draw_shift_cells, simulate_populations, simulate_shifts

kinds = pytest.mark.parametrize("kind", SHIFTS)
TRUTH = ["means", "covs", "observed", "inside"]


def assert_zero_in_expectation(values, n_errors=5):
    """Check means over the first axis (independent draws) against their own standard errors."""
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    np.testing.assert_array_less(np.abs(values.mean(axis=0)), n_errors * error)


def whiten(x, mean, cov):
    return np.linalg.solve(np.linalg.cholesky(cov), (x - mean)[..., None])[..., 0]


@kinds
def test_form(kind):
    adata = simulate_shifts(kind, 40, 7, 0)
    truth = adata.uns["shifts"]
    assert adata.X.dtype == np.float32
    assert adata.shape == (7 * truth["observed"].sum(), 2)
    assert list(adata.obs["time"].cat.categories) == ["0", "1"]
    assert adata.obs["time"].cat.ordered
    assert list(adata.obs["group"].cat.categories[:2]) == ["group_00", "group_01"]
    assert adata.obs_names.is_unique
    counts = adata.obs.groupby(["group", "time"], observed=False).size().to_numpy().reshape(40, 2)
    np.testing.assert_array_equal(counts, 7 * truth["observed"])
    inside = (adata.obs["region"] == "inside").to_numpy()
    np.testing.assert_array_equal(inside, truth["inside"][adata.obs["group"].cat.codes])


def test_pairs_lie_inside_the_region_and_orphans_outside():
    truth = simulate_shifts("shift", 4000, 1, 0).uns["shifts"]
    observed, inside = truth["observed"], truth["inside"]
    np.testing.assert_array_equal(inside, (truth["means"][:, 0] <= 2.5).all(axis=1))
    assert observed[inside].all()
    assert (observed[~inside].sum(axis=1) == 1).all()
    assert abs(np.diff(observed[~inside].sum(axis=0))[0]) <= 1
    # A quarter of the area, within 5 standard errors; and which orphans are seen early has nothing to do with place.
    assert abs(inside.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)
    early, late = (truth["means"][~inside & observed[:, time], 0] for time in (0, 1))
    assert_zero_in_expectation(early[: len(late)] - late[: len(early)])


def test_region_decides_who_is_seen_and_nothing_else():
    nowhere, somewhere, everywhere = (
        simulate_shifts("shape", 60, 2, 0, paired_region=region).uns["shifts"] for region in (0, 2.5, 5)
    )
    assert (nowhere["observed"].sum(axis=1) == 1).all()
    assert everywhere["observed"].all()
    for name in ("means", "covs"):
        np.testing.assert_array_equal(nowhere[name], everywhere[name])
        np.testing.assert_array_equal(nowhere[name], somewhere[name])


@kinds
def test_source_is_gaussian2_and_the_mean_moves_by_one(kind):
    truth = simulate_shifts(kind, 50, 1, 3).uns["shifts"]
    source = simulate_populations("gaussian2", 50, 1, 3).uns["populations"]
    np.testing.assert_array_equal(truth["means"][:, 0], source["means"][:, 0])
    np.testing.assert_array_equal(truth["covs"][:, 0], source["covs"][:, 0])
    np.testing.assert_allclose(truth["means"][:, 1] - truth["means"][:, 0], 1, atol=1e-12)


def test_shape_follows_the_location_as_documented():
    truth = simulate_shifts("shape", 200, 1, 0).uns["shifts"]
    for (m1, m2), (before, after) in zip(truth["means"][:, 0], truth["covs"], strict=True):
        a = np.array([[1 + m1 / 5, m2 / 5 - 1 / 2], [m2 / 5 - 1 / 2, 1]])
        np.testing.assert_allclose(after, a @ before @ a.T)
    plain = simulate_shifts("shift", 200, 1, 0).uns["shifts"]
    np.testing.assert_allclose(plain["covs"][:, 1], plain["covs"][:, 0])


def test_change_of_shape_is_invertible_everywhere_and_substantial():
    corners = np.array([[x, y] for x in (0, 5) for y in (0, 5)], dtype=float)
    # The smallest eigenvalue of a matrix that is linear in the location is concave: smallest at a corner.
    assert np.linalg.eigvalsh(SHIFTS["shape"](corners)).min() > 0.45
    covs = simulate_shifts("shape", 2000, 1, 0).uns["shifts"]["covs"]
    ratio = np.linalg.eigvals(np.linalg.solve(covs[:, 0], covs[:, 1])).real
    assert np.median(ratio.max(axis=1)) > 2
    assert np.median(ratio.min(axis=1)) < 0.9


@kinds
@pytest.mark.parametrize("time", [0, 1])
def test_cells_have_the_moments_of_their_group_and_time(kind, time):
    adata = simulate_shifts(kind, 600, 50, 1)
    truth = adata.uns["shifts"]
    seen = truth["observed"][:, time]
    rows = (adata.obs["time"] == str(time)).to_numpy()
    cells = adata.X[rows].astype(float).reshape(seen.sum(), 50, 2)
    further = draw_shift_cells(truth, str(time), 50, 1).astype(float)
    assert further.shape == (600, 50, 2)
    for x, groups in ((cells, seen), (further, slice(None))):
        white = whiten(x, truth["means"][groups, time][:, None], truth["covs"][groups, time][:, None])
        mean = white.mean(axis=1)
        assert_zero_in_expectation(mean)
        # Errors in single groups would cancel above; here they add up.
        assert_zero_in_expectation(50 * np.square(mean).sum(axis=1) - 2)
        assert_zero_in_expectation(np.einsum("gcd,gce->gde", white, white) / 50 - np.eye(2))
    together = np.concatenate([further.reshape(-1, 2), adata.X])
    assert len(np.unique(together, axis=0)) == len(together)


@kinds
def test_cells_are_a_function_of_the_seed_and_parameters_of_the_seed_only(kind):
    adata, again, longer, other = (
        simulate_shifts(kind, 20, n_cells, seed) for n_cells, seed in [(6, 3), (6, 3), (9, 3), (6, 4)]
    )
    np.testing.assert_array_equal(adata.X, again.X)
    assert not np.array_equal(adata.X[:6], other.X[:6])
    for name in TRUTH:
        np.testing.assert_array_equal(adata.uns["shifts"][name], longer.uns["shifts"][name])
    truth = adata.uns["shifts"]
    first = draw_shift_cells(truth, "0", 5, 1)
    np.testing.assert_array_equal(first, draw_shift_cells(truth, "0", 5, 1))
    assert not np.array_equal(first, draw_shift_cells(truth, "0", 5, 2))
    # Other times have other noise, not the moved cells.
    noise = [
        whiten(draw_shift_cells(truth, str(t), 5, 1), truth["means"][:, t, None], truth["covs"][:, t, None])
        for t in (0, 1)
    ]
    assert np.abs(noise[0] - noise[1]).max() > 0.1


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_file_round_trip_keeps_what_draw_shift_cells_needs(suffix, tmp_path):
    adata = simulate_shifts("shape", 8, 3, 0)
    path = tmp_path / f"shifts.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    again = getattr(anndata, f"read_{suffix}")(path)
    np.testing.assert_array_equal(again.X, adata.X)
    assert again.obs["time"].cat.ordered
    for name in TRUTH:
        np.testing.assert_array_equal(again.uns["shifts"][name], adata.uns["shifts"][name])
    cells = [draw_shift_cells(truth, "1", 5, 1) for truth in (again.uns["shifts"], adata.uns["shifts"])]
    np.testing.assert_array_equal(*cells)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "turn"}, r"kind='turn' is unknown: choose from \['shape', 'shift'\]"),
        ({"n_groups": 0}, "n_groups=0 and n_cells=5: both must be at least 1"),
        ({"n_cells": 0}, "n_groups=4 and n_cells=0"),
        ({"paired_region": 6}, "paired_region=6 must be between 0"),
        ({"paired_region": np.nan}, "paired_region=nan must be between 0"),
    ],
)
def test_bad_requests_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        simulate_shifts(**{"kind": "shift", "n_groups": 4, "n_cells": 5, "seed": 0} | change)


def test_unknown_time_is_named():
    truth = simulate_shifts("shift", 4, 1, 0).uns["shifts"]
    with pytest.raises(ValueError, match=r"time='2' is unknown: choose from \['0', '1'\]"):
        draw_shift_cells(truth, "2", 5, 0)
