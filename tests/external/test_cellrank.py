"""The kernel within CellRank."""

import importlib
import sys

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scgde.external import time_course, transition_matrix
from scgde.models._fates import neighbor_fates, neighbor_graph

DAYS = np.array([2, 4, 10])


@pytest.fixture
def cellrank():
    """Our module; CellRank itself is an optional extra."""
    pytest.importorskip("cellrank")
    return importlib.import_module("scgde.external.cellrank")


@pytest.fixture
def course():
    """Cells of three days whose two branches come from one cloud, with the forecast of each cell."""
    rng = np.random.default_rng(0)
    code = rng.permutation(np.repeat(np.arange(3), 60))
    sign = np.where(rng.integers(0, 2, 180), 1, -1)
    x = np.stack([3 * code, sign * code], axis=1) + 0.5 * rng.standard_normal((180, 2))
    fate = pd.Categorical(np.where(code == 0, "root", np.where(sign > 0, "up", "down")))
    obs = pd.DataFrame({"day": DAYS[code], "fate": fate}, index=[f"cell{i}" for i in range(180)])
    adata = AnnData(x.astype(np.float32), obs=obs, obsm={"X_rep": x.astype(np.float32)})
    ahead = x + np.stack([np.full(180, 3), sign], axis=1)
    return adata, code, [(np.flatnonzero(code == t), ahead[code == t]) for t in range(2)]


def test_without_cellrank_the_error_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "scgde.external.cellrank", raising=False)
    monkeypatch.setitem(sys.modules, "cellrank", None)
    monkeypatch.setitem(sys.modules, "cellrank.kernels", None)
    with pytest.raises(ImportError, match=r"scgde\[cellrank\]"):
        importlib.import_module("scgde.external.cellrank")


@pytest.mark.parametrize("as_text", [False, True])
def test_kernel_holds_the_matrix(cellrank, course, as_text):
    adata, code, forecasts = course
    if as_text:  # in alphabetical order, day 10 would be the first
        adata.obs["day"] = pd.Categorical(adata.obs["day"].astype(str))
    rows, positions = forecasts[0]
    partial = [(rows[:20], positions[:20]), forecasts[1]]
    kernel = cellrank.kernel(adata, partial, time_key="day", use_rep="X_rep", n_neighbors=7, weighting="uniform")
    expected = transition_matrix(adata.obsm["X_rep"], code, partial, n_neighbors=7, weighting="uniform")
    np.testing.assert_allclose(kernel.transition_matrix.toarray(), expected.toarray(), rtol=1e-12)
    assert kernel.params["n_not_forecast"] == 40
    assert kernel.adata is adata
    for use_rep in (None, "X", adata.obsm["X_rep"]):
        other = cellrank.kernel(
            adata, partial, time_key="day", use_rep=use_rep, n_neighbors=7, weighting="uniform", batch_size=9
        )
        np.testing.assert_allclose(other.transition_matrix.toarray(), expected.toarray(), rtol=1e-5)


def test_fate_probabilities(cellrank, course):
    from cellrank.estimators import GPCCA

    adata, code, forecasts = course
    kernel = cellrank.kernel(adata, forecasts, time_key="day", use_rep="X_rep", n_neighbors=10)
    estimator = GPCCA(kernel)
    estimator.set_terminal_states(adata.obs["fate"].where(adata.obs["day"] == 10).cat.remove_unused_categories())
    estimator.compute_fate_probabilities(solver="direct", use_petsc=False, show_progress_bar=False)
    fates = pd.DataFrame(np.asarray(estimator.fate_probabilities), columns=list(estimator.fate_probabilities.names))
    last, labels = code == 2, adata.obs["fate"].cat.remove_categories("root")
    # From the day before the last there is one step to go: the shares of the labels among the neighbours.
    rows, positions = forecasts[1]
    shares = neighbor_fates(
        positions, adata.obsm["X_rep"][last], labels.cat.codes[last].to_numpy(), 2, n_neighbors=10, weighting="gaussian"
    )
    np.testing.assert_allclose(fates.loc[rows, list(labels.cat.categories)], shares, atol=1e-5)
    np.testing.assert_allclose(fates.sum(axis=1), 1, atol=1e-6)
    # From the first day there are two: the mean of these over the neighbours of the first forecast.
    two_steps = neighbor_graph(forecasts[0][1], adata.X[rows], 10) @ shares
    np.testing.assert_allclose(fates.loc[forecasts[0][0], list(labels.cat.categories)], two_steps, atol=1e-5)


def test_combined_with_another_kernel_it_finds_macrostates(cellrank, course):
    from cellrank.estimators import GPCCA
    from cellrank.kernels import PrecomputedKernel

    adata, code, forecasts = course
    kernel = cellrank.kernel(adata, forecasts, time_key="day", n_neighbors=10).copy()
    diffusion = PrecomputedKernel(transition_matrix(adata.X, np.zeros(180, int), [], n_neighbors=10), adata=adata)
    combined = (0.8 * kernel + 0.2 * diffusion).compute_transition_matrix()
    estimator = GPCCA(combined).compute_schur(n_components=5, method="brandts")
    estimator.compute_macrostates(n_states=2, cluster_key="fate")
    assert sorted(estimator.macrostates.cat.categories) == ["down", "up"]


def test_bad_input(cellrank, course):
    adata, _, forecasts = course
    with pytest.raises(KeyError, match=r"'dya' is not in adata.obs.*'day'"):
        cellrank.kernel(adata, forecasts, time_key="dya")
    with pytest.raises(ValueError, match=r"use_rep has shape \(3, 2\)"):
        cellrank.kernel(adata, forecasts, time_key="day", use_rep=np.zeros((3, 2)))
    wide = AnnData(np.zeros((180, 60), dtype=np.float32), obs=adata.obs)
    with pytest.raises(ValueError, match="no adata.obsm"):
        cellrank.kernel(wide, forecasts, time_key="day")
    with pytest.raises(ValueError, match="no order"):
        cellrank.kernel(adata, forecasts, time_key="fate")
    adata.obs["day"] = adata.obs["day"].where(adata.obs["day"] < 10)
    with pytest.raises(ValueError, match="60 of 180 cells have no time"):
        cellrank.kernel(adata, forecasts, time_key="day")


def test_kernel_of_a_model(cellrank, model):
    kernel = cellrank.kernel_from_model(model, n_neighbors=8, batch_size=64)
    expected = transition_matrix(*time_course(model), n_neighbors=8)
    np.testing.assert_allclose(kernel.transition_matrix.toarray(), expected.toarray(), atol=1e-3)
    np.testing.assert_allclose(np.asarray(kernel.transition_matrix.sum(axis=1)).ravel(), 1, rtol=1e-12)
    assert kernel.adata is model.adata
    assert kernel.params["time_key"] == "day"
    assert kernel.params["n_not_forecast"] == 0


def test_fates_of_a_model(cellrank, model):
    """Fates at the day before the last are the labels near the forecast, and mostly those that the cells have."""
    from cellrank.estimators import GPCCA

    adata, course = model.adata, time_course(model)
    types = adata.obs["cell_type"].astype("category").where(lambda t: t != "progenitor").cat.remove_unused_categories()
    estimator = GPCCA(cellrank.kernel_from_model(model))
    estimator.set_terminal_states(types.where(course.time_codes == 2))
    estimator.compute_fate_probabilities(solver="direct", use_petsc=False, show_progress_bar=False)
    fates = pd.DataFrame(np.asarray(estimator.fate_probabilities), columns=list(estimator.fate_probabilities.names))
    np.testing.assert_allclose(fates.sum(axis=1), 1, atol=1e-6)
    committed = (course.time_codes == 1) & types.notna().to_numpy()
    likely = fates[committed].idxmax(axis=1).to_numpy()
    # The most frequent fate has less than half of these cells.
    assert types[committed].value_counts(normalize=True).max() < 0.5
    assert (likely == types[committed].to_numpy(dtype=object)).mean() > 0.6
