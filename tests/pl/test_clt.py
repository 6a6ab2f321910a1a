"""The central limit theorem, drawn."""

import numpy as np
import pytest

from scgde import pl


@pytest.fixture
def sets(rng):
    """Sets of 10 to 1000 cells whose embeddings have standard deviation n^(-0.25), which is not what they should."""
    n = np.repeat([10, 100, 1000], 400)
    return rng.normal(size=(1200, 3)) * n[:, None] ** -0.25, n


def _labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_slope_is_fitted_not_assumed(sets):
    z, n = sets
    ax = pl.clt(z, n)
    x, y = next(line for line in ax.lines if line.get_label().startswith("median")).get_data()
    np.testing.assert_array_equal(x, [10, 100, 1000])
    spread = [z[n == size].std(axis=0, ddof=1) for size in x]
    np.testing.assert_allclose(y, np.median(spread, axis=1))
    # 1,200 values in all: the slope is known to about 0.01
    slope = float(_labels(ax)[0].split()[-1].replace("−", "-"))
    assert slope == pytest.approx(-0.25, abs=0.03)
    assert "slope −1/2" in _labels(ax)
    assert len(ax.lines) == 3 + 2


def test_coverage_counts_the_intervals_that_hold_the_truth(rng):
    z = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    ax = pl.clt(z, [1000] * 4, kind="coverage", truth=[0, 0], se=np.ones((4, 2)))
    mean = next(line for line in ax.lines if line.get_label().startswith("mean"))
    assert mean.get_ydata() == [0.875]
    assert "mean 87.5%" in _labels(ax)
    # 3 standard errors are outside of 95% and inside of 99.9%
    inside = pl.clt(z, [1000] * 4, kind="coverage", truth=[0, 0], se=np.ones((4, 2)), level=0.999)
    assert "mean 100.0%" in _labels(inside)
    # of four sets, three or four intervals of 95% hold the truth in 95% of cases
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0.75, 1.0)


def test_ticks_are_sizes_that_there_are(rng):
    n = np.repeat(np.arange(10, 1000, 10), 2)
    ticks = pl.clt(rng.normal(size=(len(n), 2)), n).get_xticks()
    assert set(ticks) <= set(n)
    assert 3 <= len(ticks) <= 7


def test_many_dimensions_are_a_band(rng):
    n = np.repeat([10, 100], 5)
    ax = pl.clt(rng.normal(size=(10, 300)), n)
    assert len(ax.lines) == 2
    assert len(ax.collections) == 1


def test_bad_input(sets):
    z, n = sets
    with pytest.raises(ValueError, match="at least two sets of each size"):
        pl.clt(z[:3], [10, 10, 20])
    with pytest.raises(ValueError, match=r"sizes \(n_sets,\)"):
        pl.clt(z, n[:5])
    with pytest.raises(ValueError, match="Coverage needs `truth`"):
        pl.clt(z, n, kind="coverage")
    with pytest.raises(ValueError, match="do not fit"):
        pl.clt(z, n, kind="coverage", truth=[0], se=z)
    with pytest.raises(ValueError, match="`kind` 'slope'"):
        pl.clt(z, n, kind="slope")
