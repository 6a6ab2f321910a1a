"""Cells generated for real groups: COVID donors, in training and not, and LARRY populations.

Half of each group's cells are learned from and embedded; generated cells are scored against the other half. Cells are
principal components in units of their pooled standard deviation. "unseen" donors, five chosen by the seed, take no part
in training: they are embedded from their half, and every method sees that half.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch
from _plain_generators import PlainGenerator
from _report import Record, Report, parser

from scgde import GDE, metrics
from scgde.nn.generators import GENERATORS

N_HELD_OUT = 5

#: Cells generated per group, and rivals trained beside ours.
N_GENERATED, PLAIN = 1000, "plain flow"

#: File and grouping of each data set.
DATA = {
    "covid": ("covid_pbmc_20donors.h5ad", ["donor"]),
    "larry": ("larry_clones_subset.h5ad", ["starting_population", "day"]),
}


@dataclass
class Halves:
    """Groups of real cells, in a random order that is the same for all seeds: half to learn from, half to score on."""

    names: list[str]
    learn: dict[str, np.ndarray]
    held: dict[str, np.ndarray]

    @classmethod
    def read(cls, folder: Path, name: str) -> Halves:
        """Read a data set of :data:`DATA`."""
        file, columns = DATA[name]
        adata = ad.read_h5ad(folder / file)
        x = (adata.obsm["X_pca"] / adata.obsm["X_pca"].std(0)).astype(np.float32)
        group = adata.obs[columns].astype(str).agg(" ".join, axis=1).to_numpy()
        order = np.random.default_rng(9000).permutation(len(x))
        names = sorted(set(group))
        cells = {each: x[order[group[order] == each]] for each in names}
        learn, held = ({g: c[half(len(c))] for g, c in cells.items()} for half in (_first, _second))
        return cls(names, learn, held)

    def adata(self, names: list[str]) -> ad.AnnData:
        """Cells to learn from, of some groups."""
        x = np.concatenate([self.learn[name] for name in names])
        group = np.repeat(names, [len(self.learn[name]) for name in names])
        return ad.AnnData(x, obs={"group": group})

    def scores(self, made: dict[str, np.ndarray]) -> Record:
        """Means over groups, and the upper end of the 95% interval of the first."""
        energy = [metrics.energy_distance(x, self.held[name]) for name, x in made.items()]
        sliced = [metrics.sliced_w2(x, self.held[name]) for name, x in made.items()]
        upper = float(np.mean(energy) + 1.96 * np.std(energy, ddof=1) / len(energy) ** 0.5)
        return {"energy": float(np.mean(energy)), "energy, upper": upper, "sliced W2": float(np.mean(sliced))}


def _first(n: int) -> slice:
    return slice(n // 2)


def _second(n: int) -> slice:
    return slice(n // 2, None)


def own_gaussian(cells: np.ndarray) -> np.ndarray:
    """Draw from the Gaussian with the cells' moments."""
    x = cells.astype(float)
    values, axes = np.linalg.eigh(np.cov(x.T, ddof=0))
    noise = np.random.default_rng(0).standard_normal((N_GENERATED, x.shape[1]))
    return (x.mean(0) + (noise * np.sqrt(np.maximum(values, 0))) @ axes.T).astype(np.float32)


def trained(data: Halves, names: list[str], method: str, seed: int, steps: int, options: dict) -> tuple[Any, float]:
    """A model trained on the groups ``names``, and the seconds that it took."""
    start = time.monotonic()
    if method == PLAIN:
        smallest = min(len(data.learn[name]) for name in names)
        x = torch.from_numpy(np.stack([data.learn[name][:smallest] for name in names]))
        model: Any = PlainGenerator("flow", x.shape[-1], width=128, lr=3e-3, n_cells=100, batch_size=len(x), seed=seed)
        model.fit(x, steps)
    else:
        adata = data.adata(names)
        GDE.setup_anndata(adata, "group", use_rep="X")
        model = GDE(adata, generator=method, seed=seed, **options)
        model.train(max_steps=steps, enable_progress_bar=False)
    return model, time.monotonic() - start


def generated(model: Any, data: Halves, names: list[str], unseen: bool, **options: Any) -> dict[str, np.ndarray]:
    """Cells of each group."""
    if isinstance(model, PlainGenerator):
        return {n: model.sample(torch.from_numpy(data.learn[n])[None], N_GENERATED)[0].numpy() for n in names}
    given = {"adata": data.adata(names)} if unseen else {}
    made = model.sample(names, N_GENERATED, seed=1, **given, **options)
    return dict(zip(names, made.X.reshape(len(names), N_GENERATED, -1), strict=True))


def measure(
    report: Report, label: str, data: Halves, names: list[str], seed: int, methods: list[str], steps: int, options: dict
) -> None:
    """All rows of one set of groups: ``names`` are scored, and take part in training unless ``label`` is "unseen"."""
    unseen = label == "unseen"
    train = [name for name in data.names if not unseen or name not in names]
    of_seed = f", seed {seed}" if unseen else ""
    simple: dict[str, Callable[[], dict[str, np.ndarray]]] = {
        "real cells (floor)": lambda: {name: data.learn[name] for name in names},
        "another group": lambda: {n: data.learn[data.names[data.names.index(n) - 1]] for n in names},
        "own Gaussian": lambda: {name: own_gaussian(data.learn[name]) for name in names},
    }
    for key, make in simple.items():
        report.measure(f"{label}: {key}{of_seed}", lambda make=make: data.scores(make()))
    for method in methods:
        kept: list[tuple[Any, float]] = []

        def model(method: str = method, kept: list = kept) -> tuple[Any, float]:
            if not kept:
                kept.append(trained(data, train, method, seed, steps, options))
            return kept[0]

        for key, how in rows(method).items():

            def record(how=how, model=model) -> Record:
                made, seconds = model()
                return data.scores(generated(made, data, names, unseen, **how)) | {"train s": seconds}

            report.measure(f"{label}: {key}, seed {seed}", record)


def rows(method: str) -> dict[str, dict[str, Any]]:
    """Rows of a method: of the default one also the embedding alone, the closed-form mixture, and full trust."""
    if method != "flow":
        return {method: {}}
    return {
        "flow": {},
        "flow, embedding alone": {"exact_moments": False},
        "flow, trust 1": {"trust": 1.0},
        "closed-form mixture": {"trust": 0.0},
        "closed-form mixture, embedding alone": {"trust": 0.0, "exact_moments": False},
    }


def main() -> None:
    """Measure and print."""
    flags = parser(__doc__, steps=750)
    known = ["flow", PLAIN, *(name for name in GENERATORS if name != "flow")]
    flags.add_argument("--data", type=Path, default=Path(os.environ.get("SCGDE_DATA", ".")))
    flags.add_argument("--sets", nargs="+", choices=DATA, default=list(DATA))
    flags.add_argument("--methods", nargs="+", choices=known, default=known)
    flags.add_argument("--components", type=int, help="components of the shared mixture")
    arguments = flags.parse_args()
    seeds, steps = (arguments.seeds[:1], 20) if arguments.quick else (arguments.seeds, arguments.steps)
    options = {"n_components": arguments.components}
    for name in arguments.sets:
        data = Halves.read(arguments.data, name)
        path = arguments.json and arguments.json.with_name(f"{arguments.json.stem}-{name}{arguments.json.suffix}")
        settings = {"set": name, "steps": steps, **options, "quick": arguments.quick}
        report = Report(f"Generated cells of real groups: {name}", settings, path)
        for seed in seeds:
            measure(report, "seen", data, data.names, seed, arguments.methods, steps, options)
            if name == "covid":
                held = [data.names[i] for i in np.random.default_rng(seed).permutation(len(data.names))[:N_HELD_OUT]]
                measure(report, "unseen", data, sorted(held), seed, arguments.methods, steps, options)
        report.show(by="row")


if __name__ == "__main__":
    main()
