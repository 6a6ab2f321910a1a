"""A held-out time of the EMT time course, reached from its neighbours: TDE beside linear optimal transport."""

from __future__ import annotations

import logging
import os
import time
import warnings
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

POOL, HOURS = "multiplex_pool", "hours"
Pools = dict[str, tuple[np.ndarray, np.ndarray]]


def joined(adata: AnnData) -> AnnData:
    """The same cells as one pool."""
    return AnnData(adata.X, obs=adata.obs.assign(**{POOL: "all pools"}), var=adata.var)


def cells_at(adata: AnnData, pool: str, hours: float) -> np.ndarray:
    """Cells of a pool at a time, (cells, features)."""
    return np.asarray(adata.X[((adata.obs[POOL] == pool) & (adata.obs[HOURS] == hours)).to_numpy()])


def linear_ot(first: np.ndarray, last: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """McCann's interpolation: as many points as the larger side has, drawn from the exact coupling."""
    plan = ot.emd([], [], ot.dist(first, last), numItermax=10_000_000)
    pairs = rng.choice(plan.size, max(plan.shape), p=plan.ravel() / plan.sum())
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


def methods(model: TDE, adata: AnnData, pool: str, times: tuple[float, ...], share: float) -> dict[str, np.ndarray]:
    """Forecast cells of one pool, by method."""
    rng = np.random.default_rng(0)
    first, _, last = times
    early, late = (cells_at(adata, pool, t) for t in (first, last))
    ends = (first, last)
    forward, back = (moved(model, adata, pool, start, ends, share) for start in ends)
    n = min(len(forward), len(back))
    n_back = round(share * n)
    both = [x[rng.choice(len(x), m, replace=False)] for x, m in ((forward, n - n_back), (back, n_back))]
    return {
        "TDE from the earlier time": forward,
        "TDE from the later time": back,
        "TDE from both": np.concatenate(both),
        "linear OT": linear_ot(early, late, share, rng),
        "earlier neighbour": early,
        "later neighbour": late,
    }


def measure(adata: AnnData, name: str, steps: int, seed: int) -> Record:
    """Train without the held-out time, and score the forecasts of it."""
    first, middle, last = HELD_OUT[name]
    seen = adata[(adata.obs[HOURS] != middle).to_numpy()].copy()
    start = time.perf_counter()
    TDE.setup_anndata(seen, POOL, time_key=HOURS, use_rep="X")
    model = TDE(seen, seed=seed)
    model.train(max_steps=steps, accelerator="cpu", enable_progress_bar=False)
    record = {"training (s)": time.perf_counter() - start, "mixture components": model.module.statistics.n_components}
    counts = pd.crosstab(adata.obs[POOL], adata.obs[HOURS])
    complete = counts.index[(counts[[first, middle, last]] > 0).all(axis=1)]
    proportional = (middle - first) / (last - first)
    for label, data, pools in (
        ("within pools", adata, list(complete)),
        ("all pools as one", joined(adata), ["all pools"]),
    ):
        visible = data[(data.obs[HOURS] != middle).to_numpy()].copy()
        truth = np.concatenate([cells_at(data, pool, middle) for pool in pools])
        for fraction, share in (("by hours", proportional), ("halfway", 0.5)):
            parts = [methods(model, visible, pool, HELD_OUT[name], share) for pool in pools]
            for method in parts[0]:
                cells = np.concatenate([part[method] for part in parts])
                where = label if "neighbour" in method else f"{label}, {fraction}"
                record[f"{method}, {where}"] = excess(cells, truth, seed=0)
    return record


def main() -> None:
    """Hold out each time in turn, and print the table."""
    options = parser(__doc__.splitlines()[0], steps=400).parse_args()
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
    for name in HELD_OUT:
        path = options.json and options.json.with_stem(f"{options.json.stem}_{name}")
        report = Report(f"EMT time course, {name} held out", settings, path)
        for seed in seeds:
            report.measure(f"seed {seed}", lambda name=name, seed=seed: measure(adata, name, steps, seed))
        report.show()
        print()


if __name__ == "__main__":
    main()
