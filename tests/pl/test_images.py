"""Every figure at small and large inputs, with missing labels, of one group and with long names: is it legible?

With the environment variable SCGDE_PLOTS, the figures are written to the folder that it names, to be looked at.
"""

import inspect
import os
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axis import Axis
from matplotlib.text import Text

from scgde import pl
from scgde.prediction import CrossValidation
from scgde.prediction._baselines import ALWAYS, BASELINES
from scgde.prediction._summary import compare, summarize

LONG = "a_name_of_great_length_that_goes_on_and_on_"


def _rng(n=0):
    return np.random.default_rng(n)


def _obs(**columns) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    return frame.set_index("c" + frame.index.astype(str))


def _names(n, prefix="donor_"):
    return [f"{prefix}{i}" for i in range(n)]


def _labels(n, missing=False):
    labels = np.resize(np.array(["healthy", "mild", "critical"], dtype=object), n)
    labels[: n // 3] = None if missing else labels[: n // 3]
    return labels


def _groups(n, prefix="donor_", missing=False) -> AnnData:
    names = _names(n, prefix)
    groups = pd.DataFrame({"donor": names, "disease": _labels(n, missing), "age": np.arange(n) + 20.0})
    groups["n_effective"] = np.geomspace(20, 2000, n)
    z = _rng().normal(size=(n, 6)) * np.arange(6, 0, -1)
    se = np.repeat(np.sqrt(2 / groups["n_effective"].to_numpy())[:, None], 6, axis=1)
    adata = AnnData(np.zeros((n, 1), dtype=np.float32), obs=_obs(donor=names))
    adata.uns["gde"] = {"embedding": z, "se": se, "groups": groups, "settings": {"groupby": "donor"}}
    return adata


def _cells(n, shift=0.0, prefix="type ", missing=False, n_types=4) -> AnnData:
    kind = np.arange(n) % n_types
    x = 5 * np.eye(4, 5)[kind % 4] + _rng(n).normal(size=(n, 5)) + shift
    labels = pd.Series([f"{prefix}{k}" for k in kind], dtype=object)
    labels[: n // 3] = None if missing else labels[: n // 3]
    return AnnData(x.astype(np.float32), obs=_obs(cell_type=labels.to_numpy(), t=np.arange(n) % 5 / 4.0))


def _moved(n_cells, n_groups=1, n_steps=2, prefix="donor_", missing=False, n_types=4) -> AnnData:
    """A trajectory along arcs: the cells of each group turn by a quarter."""
    start = _cells(n_cells, missing=missing, n_types=n_types, prefix=prefix if n_types > 4 else "type ")
    group = np.sort(np.arange(n_cells) % n_groups)
    centre = 12 * _rng(1).normal(size=(n_groups, 5))
    x, parts = np.asarray(start.X) + centre[group], []
    for t in np.linspace(0, 1, n_steps):
        turn = np.eye(5)
        c, s = np.cos(t * np.pi / 2), np.sin(t * np.pi / 2)
        turn[:2, :2] = [[c, -s], [s, c]]
        obs = start.obs.assign(t=t, cell=start.obs_names, source=[f"{prefix}{g}" for g in group])
        obs["target"] = [f"{prefix}{g + n_groups}" for g in group]
        parts.append((x @ turn.T, obs))
    obs = pd.concat([obs for _, obs in parts])
    obs.index = [f"{name}-{i // n_cells}" for i, name in enumerate(obs.index)]
    return AnnData(np.vstack([x for x, _ in parts]).astype(np.float32), obs=obs)


def _forecast(n, *, n_draws=20, prefix="clone_", missing=False) -> tuple[AnnData, AnnData]:
    """Forecast from day 4 to day 6 of n clones of three cells, every second of which is seen on day 6."""
    clones, rng = _names(n, prefix), _rng()
    z4 = rng.normal(size=(n, 6)) * np.arange(6, 0, -1)
    z6 = z4 + [4, 1, 0, 0, 0, 0] + 0.5 * rng.normal(size=(n, 6))
    table = pd.DataFrame({"clone": clones, "day": "4", "log_growth": np.linspace(-1, 1, n)})
    table.loc[: n // 3 if missing else -1, "log_growth"] = np.nan
    obs = _obs(clone=np.repeat(clones, 3), source=np.repeat([f"{c}, 4" for c in clones], 3), target="6")
    obs["cell_type"] = np.tile(["a", "b", "c"], n)
    cells = AnnData(rng.normal(size=(3 * n, 5)).astype(np.float32) + 2, obs=obs)
    draws = z4 + [4, 1, 0, 0, 0, 0] + 0.5 * rng.normal(size=(n_draws, n, 6))
    cells.uns["forecast"] = {"embedding": draws.mean(axis=0), "draws": draws, "groups": table}
    seen = clones[::2]
    groups = pd.DataFrame({"clone": clones + seen, "day": ["4"] * n + ["6"] * len(seen)})
    truth = AnnData(
        rng.normal(size=(3 * len(groups), 5)).astype(np.float32),
        obs=_obs(clone=np.repeat(groups["clone"].to_numpy(), 3), day=np.repeat(groups["day"].to_numpy(), 3)),
    )
    settings = {"groupby": "clone", "time_key": "day"}
    truth.uns["tde"] = {"embedding": np.vstack([z4, z6[::2]]), "groups": groups, "settings": settings}
    return cells, truth


def _fates(n, *, prefix="clone_", n_labels=3, label="fate ", missing=False) -> AnnData:
    cells = _forecast(n, prefix=prefix)[0]
    groups = _rng().dirichlet(np.ones(n_labels), size=n)
    groups[: n // 3 if missing else 0] = np.nan
    cells.obsm["fates"] = np.repeat(groups, 3, axis=0)
    cells.uns["fates"] = {"labels": np.array([f"{label}{i}" for i in range(n_labels)]), "groups": groups}
    return cells


def _cross_validation(n_models=3, *, prefix="own_", n_folds=10, missing=False) -> CrossValidation:
    rng, rows = _rng(), []
    names = [*BASELINES, *_names(n_models, prefix)]
    level = {name: 0.5 if name in ALWAYS else 0.6 + 0.3 * i / len(names) for i, name in enumerate(names)}
    for fold in range(n_folds):
        ease = 0.05 * rng.normal()
        for name in names:
            auc = min(level[name] + ease + 0.03 * rng.normal(), 1)
            for metric, value in (("auc", auc), ("log_loss", 1.5 - auc)):
                rows.append({"repeat": 0, "fold": fold, "model": name, "metric": metric, "value": value})
    scores = pd.DataFrame(rows)
    if missing:
        scores.loc[scores["model"] == f"{prefix}0", "value"] = np.nan
    table = compare(scores, list(BASELINES), {"auc": True, "log_loss": False}, 0.25)
    return CrossValidation(scores, summarize(scores, 0.25), table, pd.DataFrame(), {})


def _influence(n, prefix="type ", missing=False) -> pd.DataFrame:
    mean = _rng().normal(size=n) * np.geomspace(1, 0.01, n)
    mean[1 : 1 + n // 3 if missing else 1] = np.nan
    return pd.DataFrame({"share": _rng(1).dirichlet(np.ones(n)), "mean": mean}, index=_names(n, prefix))


def _sets(n_latent, sizes=(10, 30, 100, 300, 1000), n_sets=40) -> dict:
    n = np.repeat(sizes, n_sets)
    scale = np.linspace(0.5, 2, n_latent)
    z = _rng().normal(size=(len(n), n_latent)) * scale / np.sqrt(n)[:, None]
    return {"z": z, "n_cells": n, "truth": np.zeros(n_latent), "se": scale / np.sqrt(n)[:, None]}


def _distances(n, prefix="g"):
    z = _rng().normal(size=n)
    return pd.DataFrame(np.abs(z[:, None] - z), _names(n, prefix), _names(n, prefix))


def _curves(n_epochs, prefix=""):
    curves = {
        f"{prefix}{k}_loss": pd.DataFrame({"x": 2 + np.exp(-np.arange(n_epochs))}) for k in ("train", "validation")
    }
    return {"model": curves, "keys": list(curves)}


def _path(n):
    cells = _cells(n)
    return AnnData(np.asarray(cells.X) + 3 * cells.obs[["t"]].to_numpy(), obs=cells.obs)


CASES = {
    "embedding": {
        "small": lambda: pl.embedding(_groups(3), color="disease"),
        "large": lambda: pl.embedding(_groups(3000), color="disease"),
        "missing": lambda: pl.embedding(_groups(12, missing=True), color="disease"),
        "one": lambda: pl.embedding(_groups(1), color="age"),
        "long": lambda: pl.embedding(_groups(20, LONG), color="donor"),
        "number": lambda: pl.embedding(_groups(100), color="age"),
    },
    "enough_cells": {
        "small": lambda: pl.enough_cells(_groups(3), annotate=True),
        "large": lambda: pl.enough_cells(_groups(3000)),
        "long": lambda: pl.enough_cells(_groups(20, LONG), annotate=True),
    },
    "generated_vs_real": {
        "small": lambda: pl.generated_vs_real(_cells(3), _cells(3, 0.5)),
        "large": lambda: pl.generated_vs_real(_cells(3000), _cells(3001)),
        "missing": lambda: pl.generated_vs_real(_cells(300, missing=True), _cells(301), color="cell_type"),
        "long": lambda: pl.generated_vs_real(_cells(300, prefix=LONG), _cells(301, prefix=LONG), color="cell_type"),
    },
    "group_distances": {
        "small": lambda: pl.group_distances(_distances(3)),
        "large": lambda: pl.group_distances(_distances(600), color=_labels(600)),
        "missing": lambda: pl.group_distances(_distances(12), color=_labels(12, missing=True)),
        "one": lambda: pl.group_distances(_distances(1)),
        "long": lambda: pl.group_distances(_distances(25, LONG), color=_names(25, LONG)),
    },
    "history": {
        "small": lambda: pl.history(**_curves(2)),
        "large": lambda: pl.history(**_curves(3000)),
        "one": lambda: pl.history(**_curves(1)),
        "long": lambda: pl.history(**_curves(20, LONG)),
    },
    "interpolation": {
        "small": lambda: pl.interpolation(_path(15)),
        "large": lambda: pl.interpolation(_path(3000)),
        "single": lambda: pl.interpolation(_path(300), n_panels=1),
    },
    "transport": {
        "small": lambda: pl.transport(_moved(90, 3)),
        "large": lambda: pl.transport(_moved(6000, 3000), max_cells=6000),
        "missing": lambda: pl.transport(_moved(90, 3, missing=True), color="cell_type"),
        "one": lambda: pl.transport(_moved(1)),
        "long": lambda: pl.transport(_moved(500, 10, prefix=LONG, n_types=30), color="cell_type"),
        "cells": lambda: pl.transport(_moved(200), kind="cells"),
        "cells_large": lambda: pl.transport(_moved(3000), kind="cells", color="cell_type"),
        "streamlines": lambda: pl.transport(_moved(300, n_steps=11), kind="streamlines"),
        "streamlines_large": lambda: pl.transport(_moved(3000, 5), kind="streamlines", color="cell_type"),
    },
    "trajectories": {
        "small": lambda: pl.trajectories(_moved(3, n_steps=11)),
        "large": lambda: pl.trajectories(_moved(3000, n_steps=11), max_cells=3000),
        "missing": lambda: pl.trajectories(_moved(90, n_steps=11, missing=True), color="cell_type"),
        "one": lambda: pl.trajectories(_moved(1, n_steps=11)),
        "long": lambda: pl.trajectories(_moved(300, n_steps=5, prefix=LONG, n_types=30), color="cell_type"),
        "background": lambda: pl.trajectories(_moved(100, n_steps=11), background=_cells(2000)),
        "background_types": lambda: pl.trajectories(
            _moved(100, n_steps=11, missing=True), color="cell_type", background=_cells(2000)
        ),
    },
    "forecast": {
        "small": lambda: pl.forecast(*_forecast(3)),
        "large": lambda: pl.forecast(*_forecast(3000)),
        "missing": lambda: pl.forecast(*_forecast(12, missing=True), color="log_growth"),
        "one": lambda: pl.forecast(*_forecast(1)),
        "long": lambda: pl.forecast(*_forecast(20, prefix=LONG), color=_names(20, LONG)),
        "alone": lambda: pl.forecast(_forecast(20)[0]),
        "cells": lambda: pl.forecast(*_forecast(30), kind="cells"),
        "cells_large": lambda: pl.forecast(*_forecast(3000), kind="cells", color="cell_type"),
    },
    "fates": {
        "small": lambda: pl.fates(_fates(3)),
        "large": lambda: pl.fates(_fates(3000, n_labels=9)),
        "missing": lambda: pl.fates(_fates(12, missing=True)),
        "one": lambda: pl.fates(_fates(1)),
        "long": lambda: pl.fates(_fates(25, prefix=LONG, n_labels=25, label=LONG)),
        "color": lambda: pl.fates(_fates(10), color="fate 1"),
        "color_large": lambda: pl.fates(_fates(3000, missing=True), color="fate 1"),
        "cells": lambda: pl.fates(_fates(30, missing=True), kind="cells"),
        "cells_large": lambda: pl.fates(_fates(3000), kind="cells", color="fate 1"),
    },
    "cross_validation": {
        "small": lambda: pl.cross_validation(_cross_validation(1)),
        "large": lambda: pl.cross_validation(_cross_validation(50), metric="log_loss"),
        "missing": lambda: pl.cross_validation(_cross_validation(2, missing=True)),
        "one": lambda: pl.cross_validation(_cross_validation(1, n_folds=1), models="own_0"),
        "long": lambda: pl.cross_validation(_cross_validation(15, prefix=LONG)),
        "differences": lambda: pl.cross_validation(_cross_validation(1), kind="differences"),
        "differences_many": lambda: pl.cross_validation(
            _cross_validation(20, prefix=LONG), kind="differences", metric="log_loss"
        ),
    },
    "attribution": {
        "small": lambda: pl.attribution(_influence(3)),
        "large": lambda: pl.attribution(_influence(3000)),
        "missing": lambda: pl.attribution(_influence(12, missing=True)),
        "one": lambda: pl.attribution(_influence(1)),
        "long": lambda: pl.attribution(_influence(20, LONG)),
        "genes": lambda: pl.attribution(_influence(3000, "GENE")["mean"].rename("change")),
    },
    "clt": {
        "small": lambda: pl.clt(**_sets(3)),
        "large": lambda: pl.clt(**_sets(300)),
        "one": lambda: pl.clt(**_sets(1, sizes=(100,))),
        "coverage": lambda: pl.clt(**_sets(5), kind="coverage"),
        "coverage_large": lambda: pl.clt(**_sets(300, sizes=range(10, 400, 10)), kind="coverage"),
    },
}


def _draw(monkeypatch, function, case, **options):
    """Draw a case with further options."""
    own = getattr(pl, function)
    with monkeypatch.context() as patch:
        patch.setattr(pl, function, lambda *args, **kwargs: own(*args, **kwargs, **options))
        return CASES[function][case]()


def _write(figure, name):
    if folder := os.environ.get("SCGDE_PLOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        figure.savefig(Path(folder) / f"{name}.png", dpi=200)


@pytest.mark.parametrize("name", [f"{name}-{case}" for name, cases in CASES.items() for case in cases])
def test_legible_in_one_column(name, monkeypatch):
    function, case = name.split("-")
    figure = np.ravel(np.asarray(CASES[function][case](), dtype=object))[0].figure
    _write(figure, name)
    assert figure.get_figwidth() == pytest.approx(3.5)
    assert_legible(figure)


@pytest.mark.parametrize("name", pl.__all__)
def test_legible_in_given_axes(name, monkeypatch):
    figure, (ax, _) = plt.subplots(1, 2, figsize=(7.1, 2.6), layout="constrained")
    assert _draw(monkeypatch, name, "small", ax=ax) is ax
    assert ax.has_data()
    assert plt.get_fignums() == [figure.number]
    _write(figure, f"{name}-given")
    assert_legible(figure)


@pytest.mark.parametrize("name", pl.__all__)
def test_ax_show_and_save_as_in_scanpy(name, monkeypatch, tmp_path):
    options = inspect.signature(getattr(pl, name)).parameters
    assert all(options[key].kind is inspect.Parameter.KEYWORD_ONLY for key in ("ax", "show", "save"))
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    _draw(monkeypatch, name, "small", save=tmp_path / "figure.png", show=False)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert not shown
    assert _draw(monkeypatch, name, "small", show=True) is None
    assert shown == [True]
    assert len(plt.get_fignums()) == 2


def assert_legible(figure) -> None:
    """Nothing lies outside the figure, no text is below 6 points, and no two texts overlap."""
    figure.canvas.draw()
    boxes, hidden = [], _beyond_limits(figure)
    for text in figure.findobj(Text):
        box = text.get_window_extent()
        if not text.get_text().strip() or not text.get_visible() or id(text) in hidden:
            continue
        assert text.get_fontsize() >= 6, text
        assert box.x0 > -1 and box.y0 > -1, f"{text} lies outside: {box}"  # noqa: PT018
        assert box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1, f"{text} lies outside: {box}"  # noqa: PT018
        boxes.append((text, box))
    for (one, a), (other, b) in combinations(boxes, 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(width, height) < 2, f"{one} and {other} overlap"
    tight = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert min(tight.x0, tight.y0) > -1
    assert tight.x1 < figure.bbox.x1 + 1
    assert tight.y1 < figure.bbox.y1 + 1
    plt.close(figure)  # drawn already


def _beyond_limits(figure) -> set[int]:
    """Labels of ticks that matplotlib keeps, but does not draw."""
    found = set()
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        pad = 1e-9 * (high - low)
        for tick in [*axis.majorTicks, *axis.minorTicks]:
            if not low - pad <= tick.get_loc() <= high + pad or not axis.axes.axison:
                found |= {id(tick.label1), id(tick.label2)}
    return found


@pytest.mark.parametrize("name", pl.__all__)
def test_every_function_is_looked_at_small_and_large(name):
    assert {"small", "large"} <= CASES[name].keys()
    assert "one" in CASES[name] or name in {"generated_vs_real", "enough_cells", "interpolation"}
    if "color" in inspect.signature(getattr(pl, name)).parameters and name not in {"clt"}:
        assert "missing" in CASES[name]
