"""From a trained model to the arrays of a chain, without CellRank."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scgde import GDE, TDE
from scgde.external import time_course, transition_matrix

DAYS = np.array([2, 4, 6])


def day_codes(adata):
    return np.searchsorted(DAYS, adata.obs["day"].to_numpy(dtype=float))


def test_all_cells_before_the_last_day_are_forecast(model):
    adata = model.adata
    course = time_course(model)
    np.testing.assert_array_equal(course.x, adata.X)
    np.testing.assert_array_equal(course.time_codes, day_codes(adata))
    assert len(course.forecasts) == 2
    for code, (rows, positions) in enumerate(course.forecasts):
        np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(course.time_codes == code))
        expected = model.forecast(DAYS[code], DAYS[code + 1], groups="all")
        assert adata.obs_names[rows].tolist() == expected.obs_names.tolist()
        np.testing.assert_array_equal(positions, expected.X)


def test_forecasts_lead_to_the_next_day(model):
    """Clones that are seen on both days are there to compare with: their forecast lies nearer than where they were."""
    x, codes, forecasts = time_course(model)
    clone = model.adata.obs["clone"].to_numpy(dtype=object)
    rows, positions = forecasts[0]
    here = pd.DataFrame(x[rows]).groupby(clone[rows]).mean()
    ahead = pd.DataFrame(positions).groupby(clone[rows]).mean()
    there = pd.DataFrame(x[codes == 1]).groupby(clone[codes == 1]).mean()
    paired = here.index.intersection(there.index)
    assert len(paired) > 8
    gone, off = (np.square(there - each).loc[paired].to_numpy().mean() for each in (here, ahead))
    assert off < 0.5 * gone


def test_the_chain_is_sparse_and_stochastic(model):
    course = time_course(model)
    matrix = transition_matrix(*course, n_neighbors=5)
    assert sparse.issparse(matrix)
    np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)).ravel(), 1, rtol=1e-12)
    source, target = matrix.nonzero()
    np.testing.assert_array_equal(course.time_codes[target], np.minimum(course.time_codes[source] + 1, 2))


def test_new_data_in_another_order(model):
    order = np.random.default_rng(1).permutation(model.adata.n_obs)
    matrix = transition_matrix(*time_course(model), n_neighbors=5)
    new = model.adata[order]
    shuffled = transition_matrix(*time_course(model, new, batch_size=100), n_neighbors=5)
    np.testing.assert_allclose(shuffled.toarray(), matrix[order][:, order].toarray(), atol=1e-3)


def test_two_days_of_three(model):
    late = model.adata[(model.adata.obs["day"].to_numpy(dtype=float) > 2)]
    x, codes, forecasts = time_course(model, late)
    assert len(forecasts) == 1
    assert len(x) == late.n_obs
    np.testing.assert_array_equal(codes, day_codes(late) - 1)


def test_cells_without_a_clone_are_not_forecast(model):
    adata = model.adata.copy()
    adata.obs["clone"] = adata.obs["clone"].astype(object)
    lost = np.flatnonzero(day_codes(adata) == 0)[:7]
    adata.obs.iloc[lost, adata.obs.columns.get_loc("clone")] = np.nan
    TDE.setup_anndata(adata, "clone", time_key="day", drop_ungrouped=True)
    partial = TDE(adata, n_latent=6, n_components=1, encoder_kwargs={"width": 16}, generator_kwargs={"width": 16})
    partial.train(max_steps=1, validation_size=0.0, accelerator="cpu", enable_progress_bar=False)
    partial.fit_forecaster(2, 4)
    days = adata[day_codes(adata) < 2]
    x, codes, [(rows, _)] = time_course(partial, days)
    assert len(x) == days.n_obs
    left_out = np.setdiff1d(np.flatnonzero(codes == 0), rows)
    assert set(days.obs_names[left_out]) == set(adata.obs_names[lost])


def test_a_step_without_a_forecaster(model):
    ends = model.adata[np.isin(day_codes(model.adata), [0, 2])]
    with pytest.raises(RuntimeError, match="No forecaster was fitted for 2 -> 6 .*fit_forecaster"):
        time_course(model, ends)


def test_cells_need_names_of_their_own(model):
    twice = model.adata.copy()
    twice.obs_names = [twice.obs_names[0], *twice.obs_names[:-1]]
    with pytest.raises(ValueError, match=f"same name .*{twice.obs_names[0]}.*obs_names_make_unique"):
        time_course(model, twice)


def test_times_are_needed(model):
    with pytest.raises(ValueError, match="knows no times.*time_key="):
        time_course(TDE.setup_anndata(model.adata.copy(), "clone"))
    with pytest.raises(TypeError, match="Received GDE, which does not forecast"):
        time_course(GDE.setup_anndata(model.adata.copy(), "clone"))
    with pytest.raises(ValueError, match="All cells are of time .*at least two times"):
        time_course(model, model.adata[day_codes(model.adata) == 0])
