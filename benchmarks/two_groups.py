"""Level and power of the test of two groups (`scgde.uncertainty.compare`) on half-splits of real donors.

Null splits cut the cells of a donor into two random halves. For power, a share of the cells of one half is replaced by
cells of the next donor, or all of its cells are shifted along the first feature, in units of that feature's standard
deviation in the donor. Without real data, donors are simulated.
"""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _report import Record, Report, parser
from scipy.stats import kstest

from scgde import GDE
from scgde.datasets import simulate_populations
from scgde.uncertainty import compare

#: Null splits across all donors; splits per point of the power curve, its cells per half, shares and shifts.
N_SPLITS, N_POWER, CELLS, SHARES, SHIFTS = 5000, 200, (50, 100, 250), (0.1, 0.2, 0.4), (0.2, 0.4)

#: Splits in memory at a time.
N_AT_ONCE = 250


def donors(quick: bool) -> tuple[ad.AnnData, str]:
    """Donors of the COVID data set, where the folder `SCGDE_DATA` is known, else simulated ones."""
    path = Path(os.environ.get("SCGDE_DATA", "")) / "covid_pbmc_20donors.h5ad"
    if path.exists() and not quick:
        adata = ad.read_h5ad(path)
        return ad.AnnData(np.asarray(adata.obsm["X_pca"]), obs=adata.obs[["donor"]]), "COVID"
    adata = simulate_populations("cells50", 20, 200 if quick else 500, seed=0)
    adata.obs = adata.obs[["group"]].rename(columns={"group": "donor"})
    return adata, "cells50"


def splits(
    adata: ad.AnnData, n_splits: int, rng: np.random.Generator, *, n_cells: int | None, share: float, shift: float
) -> ad.AnnData:
    """Pairs of random parts of donors, each donor in turn; parts are halves, or have ``n_cells``."""
    names = adata.obs["donor"].cat.categories
    of = [np.flatnonzero(adata.obs["donor"] == name) for name in names]
    rows, labels, moved = [], [], []
    for i in range(n_splits):
        own, next_one = rng.permutation(of[i % len(of)]), rng.permutation(of[(i + 1) % len(of)])
        size = min(n_cells or len(own), len(own) // 2)
        b = own[size : 2 * size]
        b[: round(share * size)] = next_one[: round(share * size)]
        rows += [own[:size], b]
        labels += [f"{i}a"] * size + [f"{i}b"] * size
        moved += [np.zeros(size), np.full(size, shift * adata.X[own, 0].std())]
    x = adata.X[np.concatenate(rows)].copy()
    x[:, 0] += np.concatenate(moved)
    return ad.AnnData(x, obs=pd.DataFrame({"donor": labels}, index=np.arange(len(x)).astype(str)), var=adata.var)


def p_values(
    model: GDE,
    n_splits: int,
    n_components: int,
    rng: np.random.Generator,
    *,
    n_cells: int | None = None,
    share: float = 0.0,
    shift: float = 0.0,
) -> np.ndarray:
    """p-values of the comparisons of ``n_splits`` pairs."""
    found = []
    for start in range(0, n_splits, N_AT_ONCE):
        n = min(N_AT_ONCE, n_splits - start)
        pairs = splits(model.adata, n, rng, n_cells=n_cells, share=share, shift=shift)
        a, b = ([f"{i}{side}" for i in range(n)] for side in "ab")
        found.append(compare(model, a, b, adata=pairs, n_components=n_components)["p_value"].to_numpy())
    return np.concatenate(found)


def measure(adata: ad.AnnData, seed: int, steps: int, n_splits: int, n_power: int, n_components: int) -> Record:
    """Level under null splits, the distribution of their p-values, and power."""
    model = GDE(adata, seed=seed)
    model.train(max_steps=steps, accelerator="cpu", enable_progress_bar=False)
    rng = np.random.default_rng([seed, 3])
    p = p_values(model, n_splits, n_components, rng)
    record = {
        "null splits": float(len(p)),
        "rejected at 5% (%)": 100 * float((p < 0.05).mean()),
        "rejected at 1% (%)": 100 * float((p < 0.01).mean()),
        "p of a Kolmogorov-Smirnov test of uniformity": float(kstest(p, "uniform").pvalue),
    }
    for cells in CELLS:
        for share in SHARES:
            p = p_values(model, n_power, n_components, rng, n_cells=cells, share=share)
            record[f"power, {cells} cells, {share:.0%} replaced (%)"] = 100 * float((p < 0.05).mean())
        for shift in SHIFTS:
            p = p_values(model, n_power, n_components, rng, n_cells=cells, shift=shift)
            record[f"power, {cells} cells, shift {shift} (%)"] = 100 * float((p < 0.05).mean())
    return record


def main() -> None:
    """Measure every seed and print the table."""
    options = parser(__doc__.splitlines()[0], steps=300)
    options.add_argument("--components", type=int, default=5, help="leading entries to compare (default: 5)")
    options.set_defaults(seeds=[0])
    arguments = options.parse_args()
    n_splits, n_power = (N_SPLITS, N_POWER) if not arguments.quick else (40, 20)
    steps, seeds = (arguments.steps, arguments.seeds) if not arguments.quick else (20, arguments.seeds[:1])
    # Lightning's remarks on the machine are not results, and small groups are among what is measured.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    adata, data = donors(arguments.quick)
    GDE.setup_anndata(adata, groupby="donor", use_rep="X")
    settings = {"data": data, "donors": 20, "steps": steps, "components": arguments.components}
    report = Report("Test of two groups on half-splits of donors", settings, arguments.json)
    for seed in seeds:
        report.measure(
            f"seed {seed}",
            lambda seed=seed: measure(adata, seed, steps, n_splits, n_power, arguments.components),
        )
    report.show()


if __name__ == "__main__":
    main()
