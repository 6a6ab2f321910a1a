"""The curve of errors against cells."""

import numpy as np
import pytest

from scgde import pl
from scgde.uncertainty import relative_error


def test_points_are_groups_and_the_line_falls_as_the_root(make_groups):
    adata = make_groups(30, se=True)
    stored = adata.uns["gde"]
    stored["se"] = stored["se"] * (10 / np.sqrt(stored["groups"]["n_effective"].to_numpy()))[:, None]
    ax = pl.enough_cells(adata, precision=0.2, annotate=True)
    n = stored["groups"]["n_effective"]
    error = relative_error(stored["embedding"], stored["se"], n.to_numpy())
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), np.c_[n, error])
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(y * np.sqrt(x), np.median(error * np.sqrt(n)))
    needed = np.ceil((np.median(error * np.sqrt(n)) / 0.2) ** 2)
    assert ax.get_title(loc="left") == f"20%: {needed:,.0f} cells (median group)"
    assert not pl.enough_cells(adata, precision=None).get_title(loc="left")


def test_groups_of_one_cell_have_no_point(make_groups):
    adata = make_groups(6, se=True)
    adata.uns["gde"]["se"][2] = np.nan
    adata.uns["gde"]["groups"].loc[2, "n_effective"] = 1.0
    assert len(pl.enough_cells(adata).collections[-1].get_offsets()) == 5


def test_standard_errors_are_asked_for(make_groups):
    with pytest.raises(KeyError, match="return_se=True"):
        pl.enough_cells(make_groups(5))
    with pytest.raises(KeyError, match="'other' not found"):
        pl.enough_cells(make_groups(5, se=True), key="other")
