"""Draw the picture of the README: cells of donors, the map of the donors, and cells moved from one donor to another."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import scgde
from scgde import GDE

cohort = scgde.datasets.simulate_cohort(40, (150, 300), n_genes=200, n_batches=1, effect_size=1.5, seed=1)
model = GDE.setup_anndata(cohort, groupby="donor", labels=["disease"])
model.train(max_steps=100, enable_progress_bar=False)
model.get_group_embedding(return_se=True)

disease = cohort.obs.groupby("donor", observed=True)["disease"].first()
source, target = disease.index[disease == "healthy"][0], disease.index[disease == "disease"][0]
x = model.representation.read(cohort)
of = {name: x[(cohort.obs["donor"] == name).to_numpy()] for name in (source, target)}
moved = model.transport(source, target)

figure, (cells, donors, move) = plt.subplots(1, 3, figsize=(9.6, 3.2), layout="constrained")
colours = {source: "#0072B2", target: "#E69F00"}
cells.plot(*x[:, :2].T, ".", ms=1, color="0.8", rasterized=True)
for name, label in ((source, "a healthy donor"), (target, "a diseased donor")):
    cells.plot(*of[name][:, :2].T, ".", ms=3, color=colours[name], label=label, rasterized=True)
cells.set_title("cells of 40 donors")

scgde.pl.embedding(cohort, color="disease", annotate=False, ax=donors, show=False)
donors.set_title("one vector per donor, with its error")

move.plot(*x[:, :2].T, ".", ms=1, color="0.9", rasterized=True)
move.plot(*of[target][:, :2].T, ".", ms=3, color=colours[target], label="the diseased donor", rasterized=True)
move.plot(*moved.X[:, :2].T, "x", ms=3, color=colours[source], label="the healthy one, moved", rasterized=True)
step = np.random.default_rng(0).choice(len(moved), 30, replace=False)
for start, end in zip(of[source][step, :2], moved.X[step, :2], strict=True):
    move.annotate("", end, start, arrowprops={"arrowstyle": "->", "lw": 0.6, "color": "0.4"})
move.set_title("cells moved between donors")

for ax in (cells, move):
    ax.set(xlabel="PC1", ylabel="PC2", xticks=[], yticks=[])
    ax.spines[["top", "right"]].set_visible(False)
    # Below, where there are no cells.
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncols": 2}
    ax.legend(frameon=False, fontsize="small", markerscale=2, handletextpad=0.2, **place)
folder = Path(__file__).parent / "_static"
folder.mkdir(exist_ok=True)
figure.savefig(folder / "overview.png", dpi=130)
