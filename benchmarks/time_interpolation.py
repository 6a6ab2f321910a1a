"""A held-out time of the EMT time course, reached from its neighbours: TDE beside linear optimal transport."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import ot
import pandas as pd
from _report import Record, Report, parser
from anndata import AnnData

from scgde import TDE
from scgde.metrics import w2_empirical

#: Held-out time and its neighbours, in hours.
HELD_OUT = {"8h": (0.0, 8.0, 24.0), "1d": (8.0, 24.0, 72.0)}

#: Cells that are compared, at most, and random halvings of the held-out cells.
N_CELLS, N_SPLITS = 500, 10

#: Models; the first is the default. Of a composition the target embedding is interpolated, of a flow the cells' paths
#: are cut off where the fraction of the time has passed. The steps and the other two models were tried on these times.
MODELS: dict[str, dict[str, Any]] = {
    "TDE": {},
    "TDE of one component": {"n_components": 1},
    "TDE flow": {"method": "flow", "pairing": "forward"},
}

#: Positions on a path, which contain all fractions of time.
N_STEPS = 13

POOL, HOURS = "multiplex_pool", "hours"


def joined(adata: AnnData) -> AnnData:
    """The same cells as one pool."""
    return AnnData(adata.X, obs=adata.obs.assign(**{POOL: "all pools"}), var=adata.var)


def cells_at(adata: AnnData, pool: str, hours: float) -> np.ndarray:
    """Cells of a pool at a time, (cells, features)."""
    return np.asarray(adata.X[((adata.obs[POOL] == pool) & (adata.obs[HOURS] == hours)).to_numpy()])


def linear_ot(first: np.ndarray, last: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """McCann's interpolation: points drawn from the exact coupling, many times those that are compared at a time."""
    plan = ot.emd([], [], ot.dist(first, last), numItermax=10_000_000)
    pairs = rng.choice(plan.size, 20 * max(plan.shape), p=plan.ravel() / plan.sum())
    i, j = np.unravel_index(pairs, plan.shape)
    return (1 - share) * first[i] + share * last[j]


def moved(model: TDE, adata: AnnData, pool: str, start: float, ends: tuple[float, float], share: float) -> np.ndarray:
    """Cells of a pool at ``start``, moved to the interpolated embedding of its two neighbours."""
    at_ends = adata[((adata.obs[POOL] == pool) & adata.obs[HOURS].isin(ends)).to_numpy()].copy()
    # One row per time, in their order.
    z = model.get_group_embedding(at_ends, key_added=None).to_numpy()
    return np.asarray(model.transport((pool, start), (1 - share) * z[0] + share * z[1], at_ends).X)


def excess(cells: np.ndarray, truth: np.ndarray, seed: int) -> float:
    """W2 squared to half of the true cells, over that of the other half; mean over halvings, as many cells in each."""
    values = []
    for split in range(N_SPLITS):
        rng = np.random.default_rng([seed, split])
        order = rng.permutation(len(truth))
        n = min(N_CELLS, len(truth) // 2, len(cells))
        one, other = truth[order[:n]], truth[order[-n:]]
        some = cells[rng.choice(len(cells), n, replace=False)]
        values.append(w2_empirical(some, one) - w2_empirical(other, one))
    return float(np.mean(values))


def on_path(model: TDE, adata: AnnData, pool: str, times: tuple[float, float], share: float) -> np.ndarray:
    """Cells of a pool on their way from the first time to the last."""
    ends = [(pool, hours) for hours in times]
    path = model.transport(*ends, adata, return_trajectory=True, n_steps=N_STEPS)
    return np.asarray(path.X[np.isclose(path.obs["t"], share)])


def references(adata: AnnData, pool: str, times: tuple[float, float], share: float) -> dict[str, np.ndarray]:
    """Cells of one pool by what needs no training."""
    early, late = (cells_at(adata, pool, hours) for hours in times)
    between = linear_ot(early, late, share, np.random.default_rng(0))
    return {"linear OT": between, "earlier neighbour": early, "later neighbour": late}


def forecasts(model: TDE, adata: AnnData, pool: str, times: tuple[float, float], share: float) -> dict[str, np.ndarray]:
    """Cells of one pool by what a model can do."""
    if model.options["method"] == "flow":
        return {"path": on_path(model, adata, pool, times, share)}
    starts = zip(("earlier cells", "later cells"), times, strict=True)
    return {name: moved(model, adata, pool, start, times, share) for name, start in starts}


def scores(adata: AnnData, name: str, cells_of: Callable[..., dict[str, np.ndarray]]) -> Record:
    """Excess of each method, with the pools apart (those seen at all three times) and as one, for both fractions."""
    first, middle, last = HELD_OUT[name]
    counts = pd.crosstab(adata.obs[POOL], adata.obs[HOURS])
    complete = counts.index[(counts[[first, middle, last]] > 0).all(axis=1)]
    record: Record = {}
    for label, data, pools in (("pools apart", adata, list(complete)), ("as one", joined(adata), ["all pools"])):
        visible = data[(data.obs[HOURS] != middle).to_numpy()].copy()
        truth = np.concatenate([cells_at(data, pool, middle) for pool in pools])
        for fraction, share in (("by hours", (middle - first) / (last - first)), ("halfway", 0.5)):
            parts = [cells_of(visible, pool, (first, last), share) for pool in pools]
            for method in parts[0]:
                where = label if "neighbour" in method else f"{label}, {fraction}"
                record[f"{method}, {where}"] = excess(np.concatenate([part[method] for part in parts]), truth, seed=0)
    return record


def measure(adata: AnnData, name: str, options: dict[str, Any], steps: int, seed: int) -> Record:
    """Train without the held-out time, and score the forecasts of it."""
    seen = adata[(adata.obs[HOURS] != HELD_OUT[name][1]).to_numpy()].copy()
    start = time.perf_counter()
    TDE.setup_anndata(seen, POOL, time_key=HOURS, use_rep="X")
    model = TDE(seen, seed=seed, **options)
    model.train(max_steps=steps, accelerator="cpu", enable_progress_bar=False)
    seconds = time.perf_counter() - start
    return {"training (s)": seconds, **scores(adata, name, partial(forecasts, model))}


def show(name: str, references: Record, models: dict[str, list[Record]]) -> None:
    """Print one row per method, with all seeds and their difference to linear OT."""
    print(f"\n{name} held out: excess of W2 squared, by training seed; last, their mean less linear OT")
    for method, value in references.items():
        print(f"{method:58}  {value:.4f}")
    for model, records in models.items():
        print(f"{model + ', training (s)':58}  {np.mean([record['training (s)'] for record in records]):.0f}")
        for method in records[0]:
            if method != "training (s)":
                values = [record[method] for record in records]
                versus = np.mean(values) - references["linear OT," + method.split(",", 1)[1]]
                print(f"{model + ', ' + method:58}  {'  '.join(f'{v:.4f}' for v in values)}  {versus:+.4f}")


def main() -> None:
    """Hold out each time in turn, and print the table."""
    options = parser(__doc__.splitlines()[0], steps=200).parse_args()
    folder = os.environ.get("SCGDE_DATA")
    if not folder:
        msg = "The environment variable SCGDE_DATA names no folder: set it to the one with emt_timecourse.h5ad."
        raise SystemExit(msg)
    adata = ad.read_h5ad(Path(folder) / "emt_timecourse.h5ad")
    steps, seeds = options.steps, options.seeds
    if options.quick:
        steps, seeds = min(steps, 20), seeds[:1]
    # Lightning's remarks on the machine are not results.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    settings: dict[str, Any] = {
        "steps": steps,
        "score": f"W2 squared on at most {N_CELLS} cells, excess over the other half of the held-out cells",
        "halvings": N_SPLITS,
        "variance of a cell": f"{adata.X.var(axis=0).sum():.4f}",
    }
    report = Report("EMT time course", settings, options.json)
    print(f"# {report.head['title']}")
    for line in (report.head["settings"], report.head["environment"]):
        print("; ".join(f"{key} {value}" for key, value in line.items()))
    for name in HELD_OUT:
        known = report.measure(f"{name}, references", lambda name=name: scores(adata, name, references))
        results = {
            model: [
                report.measure(
                    f"{name}, {model}, seed {seed}", partial(measure, adata, name, MODELS[model], steps, seed)
                )
                for seed in seeds
            ]
            for model in MODELS
        }
        show(name, known, results)


if __name__ == "__main__":
    main()
