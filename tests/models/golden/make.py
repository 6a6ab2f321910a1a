"""Write the golden files of a release: a small saved model, the cells it embeds, and the embedding it gives.

Run once per release, ``python tests/models/golden/make.py 0.1.0``, and commit the folder. Later versions must load every one.
"""

import sys
from pathlib import Path

import numpy as np

from scgde import GDE
from scgde.datasets import simulate_populations


def main(version: str) -> None:
    """Train a tiny model and write ``golden/VERSION``."""
    folder = Path(__file__).parent / version
    folder.mkdir()
    adata = simulate_populations("mixture2", n_groups=8, n_cells=40, seed=100)
    del adata.uns["populations"]
    GDE.setup_anndata(adata, groupby="group")
    model = GDE(adata, n_latent=6, n_components=2, encoder_kwargs={"width": 8}, generator_kwargs={"width": 8})
    model.train(max_steps=50, enable_progress_bar=False)
    np.savez_compressed(
        folder / "expected.npz",
        x=adata.X,
        group=adata.obs["group"].to_numpy().astype(str),
        z=model.get_group_embedding(key_added=None).to_numpy(),
        generated=model.sample(n_cells=5, exact_moments=False).X,
    )
    model.save(folder / "model")


if __name__ == "__main__":
    main(sys.argv[1])
