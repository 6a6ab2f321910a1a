"""``scgde demo``: a simulated cohort, a model of it, and how well that does against simple alternatives."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData

from scgde import pl
from scgde._files import write_atomically
from scgde.datasets import simulate_cohort
from scgde.metrics import energy_distance
from scgde.models import GDE


class Scale(NamedTuple):
    """Size of a demo."""

    n_donors: int
    n_cells: tuple[int, int]
    max_steps: int
    n_generated: int


FULL = Scale(n_donors=40, n_cells=(300, 1200), max_steps=600, n_generated=400)
QUICK = Scale(n_donors=6, n_cells=(60, 90), max_steps=20, n_generated=60)

#: A machine that is too slow for the steps stops here, at the price of a result that does not repeat.
MAX_SECONDS = 90

#: Share of each donor's cells that no model sees.
HELD_OUT = 0.3

#: What is compared with the held-out cells: the columns of :func:`distances`, in the order of the printed table.
ROWS = {
    "embedding": "generated from the donor's embedding alone",
    "embedding_base": "  the same without the learned part",
    "statistics": "generated with the donor's measured statistics",
    "statistics_base": "  the same without the learned part",
    "floor": "the donor's own other cells (as good as it gets)",
    "nearest": "cells of the donor that is nearest in the embedding",
    "other": "cells of another donor",
}


def run_demo(folder: Path, *, scale: Scale = FULL, seed: int = 0) -> pd.DataFrame:
    """Simulate, train, write ``demo.h5ad`` and three figures to ``folder``, and print what was found.

    Parameters
    ----------
    folder
        Made where it does not exist; files of an earlier demo are replaced.
    scale
        Size.
    seed
        Seed of the cohort, the split and the models.

    Returns
    -------
    Energy distances to the held-out cells, one row per donor; see :func:`distances`.
    """
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    cohort = simulate_cohort(scale.n_donors, scale.n_cells, seed=seed)
    train, held_out = hold_out(cohort, seed)
    print(
        f"Simulated {scale.n_donors} donors, half of them diseased: {train.n_obs:,} cells to train on, and "
        f"{held_out.n_obs:,} held out ({HELD_OUT:.0%} of each donor)."
    )
    print(f"Statistics of the donors are fitted, then networks are trained, for {MAX_SECONDS} s at most.")
    GDE.setup_anndata(train, groupby="donor", labels=["disease", "batch"])
    model, base = GDE(train, seed=seed), GDE(train, seed=seed)
    model.train(max_steps=scale.max_steps, max_seconds=MAX_SECONDS)
    print(f"Trained for {model.steps_} of at most {scale.max_steps} steps.")
    # At a learning rate of 0 all that is closed form is fitted, and the networks stay at their start: no correction.
    base.train(max_steps=1, plan_kwargs={"lr": 0.0}, enable_progress_bar=False)
    z = model.get_group_embedding()
    write_atomically(train, folder / "demo.h5ad")
    table = distances(model, base, held_out, scale.n_generated, seed)
    figures(model, train, held_out, folder, scale.n_generated)
    report(table, z, train, folder, time.monotonic() - started)
    return table


def hold_out(cohort: AnnData, seed: int) -> tuple[AnnData, AnnData]:
    """Set a random share of each donor's cells aside: cells to train on, and held-out ones."""
    rng = np.random.default_rng(seed)
    held = np.zeros(cohort.n_obs, dtype=bool)
    for rows in cohort.obs.groupby("donor", observed=True).indices.values():
        held[rng.choice(rows, round(HELD_OUT * len(rows)), replace=False)] = True
    return cohort[~held].copy(), cohort[held].copy()


def distances(model: GDE, base: GDE, held_out: AnnData, n_generated: int, seed: int) -> pd.DataFrame:
    """Energy distance of several sets of cells to each donor's held-out cells.

    Parameters
    ----------
    model, base
        A trained model, and one whose networks were not trained.
    held_out
        Cells that neither has seen.
    n_generated
        Cells to generate per donor.
    seed
        Seed of the generated cells.

    Returns
    -------
    One row per donor, one column per entry of :data:`ROWS`.
    """
    real, own = _by_donor(model, held_out), _by_donor(model, model.adata)
    donors = list(real)
    between = model.group_distances().loc[donors, donors]
    nearest = (between + np.diag(np.full(len(donors), np.inf))).idxmin(axis=1)
    sets = {
        "floor": own,
        "nearest": {donor: own[str(nearest[donor])] for donor in donors},
        "other": {donor: own[donors[i - 1]] for i, donor in enumerate(donors)},
    }
    for suffix, kind in (("", model), ("_base", base)):
        for name, exact in (("embedding", False), ("statistics", True)):
            cells = kind.sample(donors, n_generated, exact_moments=exact, seed=seed).X
            sets[name + suffix] = dict(zip(donors, cells.reshape(len(donors), n_generated, -1), strict=True))
    return pd.DataFrame(
        {name: {donor: energy_distance(real[donor], sets[name][donor]) for donor in donors} for name in ROWS}
    )


def _by_donor(model: GDE, adata: AnnData) -> dict[str, np.ndarray]:
    """Cells of each donor in the representation that the model reads."""
    x = model.representation.read(adata)
    return {donor: x[rows] for donor, rows in adata.obs.groupby("donor", observed=True).indices.items()}


def figures(model: GDE, train: AnnData, held_out: AnnData, folder: Path, n_generated: int) -> None:
    """Save the training curve, the map of the donors, and generated against held-out cells of the first donor."""
    real = _by_donor(model, held_out)
    donor = next(iter(real))
    generated = model.sample(donor, n_generated, exact_moments=False)
    before = set(plt.get_fignums())
    pl.history(model, save=folder / "training.png")
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.8), layout="constrained")
    for label, ax in zip(("disease", "batch"), axes, strict=True):
        pl.embedding(train, color=label, annotate=False, ax=ax)
    figure.savefig(folder / "donors.png", dpi=300)
    pl.generated_vs_real(generated.X, real[donor], save=folder / "cells.png")
    for number in set(plt.get_fignums()) - before:
        plt.close(number)


def report(table: pd.DataFrame, z: pd.DataFrame, train: AnnData, folder: Path, seconds: float) -> None:
    """Print the distances averaged over donors, whether the learned part helped, and what to do next."""
    width = max(map(len, ROWS.values()))
    print(f"\nEnergy distance to a donor's held-out cells (0: the same population), mean of {len(table)} donors")
    for name, text in ROWS.items():
        print(f"  {text:<{width}}  {table[name].mean():7.3f}")
    print()
    for name, text in (("embedding", "embedding alone"), ("statistics", "measured statistics")):
        print(f"With the {text}, the learned part {verdict(table[f'{name}_base'] - table[name])}.")
    print(
        f"\nFiles in {folder} (made in {seconds:.0f} s)\n"
        f"  demo.h5ad     the training cells; the embedding ({z.shape[0]} donors x {z.shape[1]}) is in .uns['gde'],\n"
        "                and per cell in .obsm['X_gde']\n"
        "  donors.png    map of the donors, coloured by disease and by batch\n"
        f"  cells.png     generated against held-out cells of {table.index[0]}\n"
        "  training.png  training curve\n"
        "\nNext, your own data:\n"
        "  scgde embed FILE.h5ad --groupby donor --out OUT.h5ad\n"
        "or in Python, to generate and transport cells as well:\n"
        "  model = scgde.GDE.setup_anndata(adata, groupby='donor'); model.train(); model.get_group_embedding()"
    )


def verdict(gain: pd.Series) -> str:
    """Say whether a gain, one value per donor, is clearly above, clearly below or about 0: two standard errors."""
    error = 2 * gain.std() / np.sqrt(len(gain))
    worse = "makes it worse" if gain.mean() < -error else "makes no clear difference"
    found = "helps" if gain.mean() > error else worse
    return f"{found}: {gain.mean():+.3f} ± {error:.3f}, better for {(gain > 0).sum()} of {len(gain)} donors"
