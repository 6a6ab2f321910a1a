"""Groups and cells to draw."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import PathCollection
from matplotlib.legend import Legend


@pytest.fixture(autouse=True)
def _figures():
    """Draw without a screen; every figure is drawn once, and matplotlib's settings must not have changed."""
    plt.switch_backend("Agg")
    before = mpl.rcParams.copy()
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")
    assert dict(mpl.rcParams) == dict(before)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def make_groups(rng):
    """Return a function that makes an AnnData of ``n`` groups of two cells with an embedding in ``.uns``."""

    def make(n: int, *, se: bool = False, prefix: str = "donor_") -> AnnData:
        names = [f"{prefix}{i}" for i in range(n)]
        groups = pd.DataFrame(
            {
                "donor": names,
                "disease": np.resize(np.array(["healthy", "mild", "critical"], dtype=object), n),
                "age": np.arange(n, dtype=float) + 20,
                "male": np.arange(n) % 2 == 0,
            }
        )
        obs = pd.DataFrame({"donor": np.repeat(names, 2), "site": np.repeat([f"s{i % 4}" for i in range(n)], 2)})
        obs["cell_type"] = ["T", "B"] * n
        adata = AnnData(np.zeros((2 * n, 1), dtype=np.float32), obs=obs.set_index(obs.index.astype(str)))
        adata.uns["gde"] = {
            "embedding": rng.normal(size=(n, 6)).astype(np.float32) * np.arange(6, 0, -1, dtype=np.float32),
            "groups": groups,
            "settings": {"groupby": "donor"},
        }
        if se:
            adata.uns["gde"]["se"] = np.full((n, 6), 0.1, dtype=np.float32)
            groups["n_effective"] = np.geomspace(20, 2000, n)
        return adata

    return make


@pytest.fixture
def make_cells(rng):
    """Return a function that makes ``n`` cells of four types in ``d`` dimensions, displaced by ``shift``."""

    def make(n: int, *, d: int = 5, shift: float = 0.0) -> AnnData:
        kind = np.arange(n) % 4
        x = 5 * np.eye(4, d)[kind] + rng.normal(size=(n, d)) + shift
        names = ["T cell", "B cell", "a monocyte with an exceedingly long name", "NK"]
        obs = pd.DataFrame({"cell_type": pd.Categorical.from_codes(kind, names), "score": rng.normal(size=n)})
        return AnnData(x.astype(np.float32), obs=obs.set_index(obs.index.astype(str)))

    return make


@pytest.fixture
def points():
    """Return a function that counts the scattered points of some axes."""
    return lambda ax: sum(len(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection))


@pytest.fixture
def legend():
    """Return a function that lists the entries of a legend."""
    return lambda ax: [text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else []


@pytest.fixture
def assert_inside():
    """Return a function that asserts that nothing drawn lies outside the figure."""

    def check(figure) -> None:
        figure.canvas.draw()
        boxes = [figure.get_tightbbox().transformed(figure.dpi_scale_trans)]
        boxes += [legend.get_window_extent() for legend in figure.findobj(Legend)]
        for box in boxes:
            assert min(box.x0, box.y0) > -1
            assert box.x1 < figure.bbox.x1 + 1
            assert box.y1 < figure.bbox.y1 + 1
        assert not any(legend.get_clip_on() and legend.get_clip_path() for legend in figure.findobj(Legend))

    return check
