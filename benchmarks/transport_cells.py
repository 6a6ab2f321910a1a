"""Transport between real donors (COVID PBMC): each donor's cells to the next donor, scored on cells never seen.

Half of each donor's cells train the model and are moved; the others are what the moved cells are scored against. Cells
are the first 50 principal components, in units of their pooled standard deviation. (a) All donors train; (b) five
donors, chosen by the seed, take no part in training, and each is the target of another donor.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import anndata as ad
import numpy as np
from _report import Record, Report, parser
from sklearn.neighbors import KNeighborsClassifier
from transport_populations import gaussian_transport

from scgde import TDE, metrics

N_HELD_OUT = 5


class Donors:
    """Cells of the donors in a random order (the same for all seeds): half to train on, half to score on."""

    def __init__(self, path: Path) -> None:
        adata = ad.read_h5ad(path)
        x = adata.obsm["X_pca"] / adata.obsm["X_pca"].std(0)
        order = np.random.default_rng(9000).permutation(len(x))
        self.names = list(adata.obs["donor"].cat.categories)
        codes = adata.obs["donor"].cat.codes.to_numpy()
        rows = [order[codes[order] == i] for i in range(len(self.names))]
        train = np.concatenate([part[: len(part) // 2] for part in rows])
        self.train = ad.AnnData(x[train].astype(np.float32), obs=adata.obs.iloc[train][["donor", "cell_type"]])
        self.held = {name: x[part[len(part) // 2 :]] for name, part in zip(self.names, rows, strict=True)}
        self.cell_type = adata.obs["cell_type"].astype(str).to_numpy()
        self.held_type = {
            name: self.cell_type[part[len(part) // 2 :]] for name, part in zip(self.names, rows, strict=True)
        }

    def of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Training cells of a donor, and their cell types."""
        own = (self.train.obs["donor"] == name).to_numpy()
        return self.train.X[own], self.train.obs["cell_type"].astype(str).to_numpy()[own]

    def scores(self, pairs: list[tuple[str, str]], moved: list[np.ndarray]) -> Record:
        """Energy distance to the target's held-out cells, and the share of cells whose type changes.

        The type of a moved cell is that of most of its 15 nearest held-out cells of the target. A share of cells must
        change, since the donors' proportions differ: half the L1 distance between them.
        """
        energy, changed, must = [], [], []
        for (source, target), x in zip(pairs, moved, strict=True):
            energy.append(metrics.energy_distance(x, self.held[target]))
            before = self.of(source)[1]
            after = KNeighborsClassifier(15).fit(self.held[target], self.held_type[target]).predict(x)
            changed.append(np.mean(before != after))
            kinds = np.unique(self.cell_type)
            shares = [(t[:, None] == kinds).mean(0) for t in (before, self.held_type[target])]
            must.append(0.5 * np.abs(np.subtract(*shares)).sum())
        error = 1.96 * np.std(energy, ddof=1) / len(energy) ** 0.5
        return {
            "energy": float(np.mean(energy)),
            "energy, upper": float(np.mean(energy) + error),
            "type changes": float(np.mean(changed)),
            "must change": float(np.mean(must)),
        }


def measure(report: Report, donors: Donors, seed: int, steps: int | None, options: dict) -> None:
    """Donors in training, and unseen ones."""
    names = donors.names
    circle = [(name, names[(i + 1) % len(names)]) for i, name in enumerate(names)]
    held = [names[i] for i in np.random.default_rng(seed).permutation(len(names))[:N_HELD_OUT]]
    to_held = [pair for pair in circle if pair[1] in held]
    for label, pairs, left_out in (("seen", circle, []), ("unseen", to_held, held)):
        cells = [(donors.of(s)[0], donors.of(t)[0]) for s, t in pairs]
        simple = {
            "floor": lambda cells=cells: [target for _, target in cells],
            "identity": lambda cells=cells: [source for source, _ in cells],
            "Gaussian moments": lambda cells=cells: [gaussian_transport(s[None], t[None])[0] for s, t in cells],
        }
        for name, move in simple.items():
            key = f"{label}: {name}" + (f", seed {seed}" if left_out else "")
            report.measure(key, lambda move=move, pairs=pairs: donors.scores(pairs, move()))
        models: list[tuple[TDE, float]] = []

        def model(left_out: list[str] = left_out, models: list = models) -> tuple[TDE, float]:
            if not models:
                adata = donors.train[~donors.train.obs["donor"].isin(left_out)].copy()
                TDE.setup_anndata(adata, "donor", use_rep="X")
                start = time.monotonic()
                made = TDE(adata, seed=seed, **options)
                made.train(max_steps=steps, enable_progress_bar=False)
                models.append((made, time.monotonic() - start))
            return models[0]

        def ours(exact: bool, trust: float | None, pairs: list = pairs, model=model) -> Record:
            made, seconds = model()
            sources, targets = map(list, zip(*pairs, strict=True))
            moved = made.transport(sources, targets, donors.train, exact_moments=exact, trust=trust)
            parts = [moved.X[(moved.obs["target"] == t).to_numpy()] for t in targets]
            return donors.scores(pairs, parts) | ({} if trust == 0 else {"train s": seconds})

        for name, exact in (("", False), (", exact moments", True)):
            for what, trust in (("composition", None), ("composition, trust 1", 1.0), ("statistics alone", 0.0)):
                key = f"{label}: {what}{name}, seed {seed}"
                report.measure(key, lambda exact=exact, trust=trust, f=ours: f(exact, trust))


def main() -> None:
    """Measure and print."""
    flags = parser(__doc__, steps=750)
    flags.add_argument("--data", type=Path, default=Path(os.environ.get("SCGDE_DATA", ".")))
    flags.add_argument("--components", type=int, help="components of the shared mixture")
    flags.add_argument("--latent", type=int, default=128, help="numbers of an embedding (default: 128)")
    arguments = flags.parse_args()
    seeds, steps = (arguments.seeds[:1], 20) if arguments.quick else (arguments.seeds, arguments.steps)
    donors = Donors(arguments.data / "covid_pbmc_20donors.h5ad")
    options = {"n_components": arguments.components, "n_latent": arguments.latent}
    settings = {"steps": steps, **options, "quick": arguments.quick}
    report = Report("Transport between real donors (COVID PBMC)", settings, arguments.json)
    for seed in seeds:
        measure(report, donors, seed, steps, options)
    report.show(by="row")


if __name__ == "__main__":
    main()
