"""What ``group_weighting=`` does to an embedding: simulated groups of a common and of a rare kind.

180 common groups differ from one another in their means along three features, 20 rare ones along three others. The
embedding has fewer numbers than that: it keeps what tells heavy groups apart. Scored is W2 squared between the truth
and the Gaussian of cells generated from the embedding alone, for further groups of both kinds.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from _report import Record, Report, parser
from anndata import AnnData

from scgde import GDE, metrics

WEIGHTINGS = ("uniform", "balanced:kind", "rare alone")
KINDS = {"common": slice(0, 3), "rare": slice(3, 6)}
N_FEATURES, SPREAD = 6, 2.0


def cohort(n_groups: int, n_rare: int, n_cells: int, seed: int) -> tuple[AnnData, np.ndarray]:
    """Groups of unit Gaussians, and their means (groups, features)."""
    rng = np.random.default_rng(seed)
    kind = np.repeat(["rare", "common"], [n_rare, n_groups - n_rare])
    mean = np.zeros((n_groups, N_FEATURES))
    for name, features in KINDS.items():
        mean[kind == name, features] = SPREAD * rng.standard_normal((int((kind == name).sum()), 3))
    x = mean[:, None] + rng.standard_normal((n_groups, n_cells, N_FEATURES))
    group = np.repeat([f"{i:03d}" for i in range(n_groups)], n_cells)
    obs = pd.DataFrame({"group": group, "kind": np.repeat(kind, n_cells)}, index=np.arange(len(group)).astype(str))
    return AnnData(x.reshape(-1, N_FEATURES).astype(np.float32), obs=obs), mean


def measure(weighting: str, seed: int, steps: int, n_cells: int, points: dict[str, pd.DataFrame]) -> Record:
    """Errors of both kinds under one weighting."""
    adata, _ = cohort(200, 20, n_cells, seed)
    new, mean = cohort(100, 50, n_cells, seed + 9000)
    kind = new.obs.groupby("group", observed=True)["kind"].first()
    given: str | pd.Series = weighting
    if weighting == "rare alone":
        given = (adata.obs.groupby("group", observed=True)["kind"].first() == "rare").astype(float)
    GDE.setup_anndata(adata, "group")
    model = GDE(adata, n_latent=4, n_components=1, seed=seed)
    model.train(max_steps=steps, validation_size=0, group_weighting=given, enable_progress_bar=False)
    points[weighting] = model.get_group_embedding(new, key_added=None).iloc[:, :2].assign(kind=kind)
    made = model.sample(None, 500, adata=new, exact_moments=False).X.reshape(len(mean), 500, -1).astype(float)
    own = [(x.mean(0), np.cov(x.T, ddof=0)) for x in made]
    error = np.array([metrics.w2_gaussian(*g, m, np.eye(N_FEATURES)) for g, m in zip(own, mean, strict=True)])
    return {name: float(error[(kind == name).to_numpy()].mean()) for name in KINDS}


def draw(points: dict[str, pd.DataFrame], path: Path) -> None:
    """Save the first two numbers of the embeddings of further groups, a panel per weighting."""
    figure, axes = plt.subplots(1, len(points), figsize=(2.4 * len(points), 2.4), layout="constrained", sharey=True)
    for axis, (name, frame) in zip(axes, points.items(), strict=True):
        for kind, color in zip(KINDS, ("0.6", "tab:red"), strict=True):
            axis.scatter(*frame.loc[frame["kind"] == kind].iloc[:, :2].to_numpy().T, s=6, color=color, label=kind)
        axis.set(title=name, xlabel="z1", ylabel="z2" if axis is axes[0] else "", aspect="equal")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=200)


def main() -> None:
    """Measure, print and draw."""
    options = parser(__doc__, steps=100)
    options.add_argument("--figure", type=Path, help="file to draw the embeddings of the first seed to")
    arguments = options.parse_args()
    seeds, steps, n_cells = arguments.seeds, arguments.steps, 100
    if arguments.quick:
        seeds, steps, n_cells = seeds[:1], 10, 20
    report = Report("Weights of groups", {"steps": steps, "quick": arguments.quick}, arguments.json)
    points: dict[str, pd.DataFrame] = {}
    for seed in seeds:
        for weighting in WEIGHTINGS:
            kept = points if seed == seeds[0] else {}
            report.measure(
                f"{weighting}, seed {seed}", lambda w=weighting, s=seed, k=kept: measure(w, s, steps, n_cells, k)
            )
    report.show(by="row")
    if arguments.figure and len(points) == len(WEIGHTINGS):
        draw(points, arguments.figure)


if __name__ == "__main__":
    main()
