"""The chain over cells, without CellRank."""

import numpy as np
import pytest

from scgde.external import transition_matrix
from scgde.models._fates import neighbor_graph

STEP = np.array([10.0, 0.0])


def timecourse(n_times, n_cells=40, seed=0):
    """Two branches that move along the first axis, in random order of cells, and the forecast of each cell."""
    rng = np.random.default_rng(seed)
    code = rng.permutation(np.repeat(np.arange(n_times), n_cells))
    branch = rng.integers(0, 2, len(code))
    x = STEP * code[:, None] + np.array([0.0, 50.0]) * branch[:, None] + rng.standard_normal((len(code), 2))
    forecasts = [(np.flatnonzero(code == t), (x + STEP)[code == t]) for t in range(n_times - 1)]
    return x.astype(np.float32), code, branch, forecasts


@pytest.mark.parametrize("n_times", [1, 2, 5])
@pytest.mark.parametrize("weighting", ["gaussian", "uniform"])
def test_cells_go_to_the_next_time_and_end_in_the_last(n_times, weighting):
    x, code, branch, forecasts = timecourse(n_times)
    matrix = transition_matrix(x, code, forecasts, n_neighbors=5, weighting=weighting)
    assert matrix.shape == (len(x), len(x))
    np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)).ravel(), 1, rtol=1e-12)
    source, target = matrix.nonzero()
    np.testing.assert_array_equal(code[target], np.minimum(code[source] + 1, n_times - 1))
    np.testing.assert_array_equal(branch[target], branch[source])
    assert (np.diff(matrix.indptr)[code < n_times - 1] == 5).all()
    assert matrix.nnz <= 2 * 5 * len(x)
    assert (matrix.data > 0).all()


def test_a_forecast_is_followed_wherever_the_cell_lies():
    x, code, branch, forecasts = timecourse(2)
    rows, positions = forecasts[0]
    swapped = positions + np.where(branch[rows] == 0, 50, -50)[:, None] * np.array([0, 1])
    order = np.random.default_rng(1).permutation(len(rows))
    matrix = transition_matrix(x, code, [(rows[order], swapped[order])], n_neighbors=5)
    source, target = matrix[rows].nonzero()
    np.testing.assert_array_equal(branch[target], 1 - branch[rows[source]])
    expected = neighbor_graph(swapped.astype(np.float32), x[code == 1], 5)
    np.testing.assert_allclose(matrix[rows][:, code == 1].toarray(), expected.toarray())


def test_cells_without_a_forecast_go_to_the_nearest_of_the_next_time():
    x, code, _, forecasts = timecourse(3)
    rows, positions = forecasts[1]
    partial = [forecasts[0], (rows[:15], positions[:15])]
    matrix, whole = (transition_matrix(x, code, f, n_neighbors=4) for f in (partial, forecasts))
    left_out = rows[15:]
    expected = neighbor_graph(x[left_out], x[code == 2], 4)
    np.testing.assert_allclose(matrix[left_out][:, code == 2].toarray(), expected.toarray())
    others = np.setdiff1d(np.arange(len(x)), left_out)
    np.testing.assert_allclose(matrix[others].toarray(), whole[others].toarray())


def test_cells_of_the_last_time_walk_reversibly():
    x, code, _, forecasts = timecourse(2)
    last = transition_matrix(x, code, forecasts, n_neighbors=6)[code == 1][:, code == 1].toarray()
    graph = neighbor_graph(x[code == 1], x[code == 1], 6).toarray()
    symmetric = graph + graph.T
    np.testing.assert_allclose(last, symmetric / symmetric.sum(axis=1, keepdims=True))
    flow = symmetric.sum(axis=1)[:, None] * last
    np.testing.assert_allclose(flow, flow.T)
    assert (np.diag(last) > 0).all()


def test_input_stays_as_it_is_and_batches_do_not_matter():
    x, code, _, forecasts = timecourse(3)
    before = x.copy()
    whole = transition_matrix(x, code, forecasts)
    parts = transition_matrix(x, code, forecasts, batch_size=11)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(parts.toarray(), whole.toarray(), rtol=1e-5)


def test_one_cell_at_the_last_time_is_absorbing():
    x = np.array([[0], [1], [5]])
    forecasts = [(np.array([0]), np.array([[5.5]]))]
    matrix = transition_matrix(x, np.array([0, 0, 1]), forecasts).toarray()
    np.testing.assert_array_equal(matrix, [[0, 0, 1]] * 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[:1], "1 forecasts and 3 times"),
        (lambda f: [f[1], f[0]], "rows of other times"),
        (lambda f: [f[0], (np.repeat(f[1][0], 2), np.repeat(f[1][1], 2, axis=0))], "Forecast 1 holds some rows more"),
        (lambda f: [f[0], (f[1][0], f[1][1][:, :1])], r"Forecast 1 has 40 rows and positions of shape \(40, 1\)"),
        (lambda f: [f[0], (f[1][0][:3], f[1][1])], "Forecast 1 has 3 rows"),
        (lambda f: [f[0], (f[1][0][:0], f[1][1][:0])], "at least one row"),
        (lambda f: [f[0], (f[1][0], np.full_like(f[1][1], np.nan))], "40 of 40 transported cells hold NaN"),
    ],
)
def test_bad_forecasts(change, message):
    x, code, _, forecasts = timecourse(3)
    with pytest.raises(ValueError, match=message):
        transition_matrix(x, code, change(forecasts))


@pytest.mark.parametrize("change", [lambda c: 2 * c, lambda c: c - 1, lambda c: c[:-1], lambda c: c.astype(float)])
def test_bad_times(change):
    x, code, _, forecasts = timecourse(2)
    with pytest.raises(ValueError, match="time_codes has shape"):
        transition_matrix(x, change(code), forecasts)
