"""Models saved by earlier releases load, and give the embeddings that they gave."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scgde import GDE

RELEASES = sorted(path.parent for path in (Path(__file__).parent / "golden").glob("*/expected.npz"))


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
@pytest.mark.parametrize("with_adata", [True, False])
def test_saved_models_give_the_same_embedding(release: Path, with_adata: bool) -> None:
    expected = np.load(release / "expected.npz")
    obs = pd.DataFrame({"group": pd.Categorical(expected["group"])}, index=[str(i) for i in range(len(expected["x"]))])
    adata = AnnData(expected["x"], obs=obs)
    model = GDE.load(release / "model", adata=adata if with_adata else False)
    z = model.get_group_embedding(None if with_adata else adata)
    np.testing.assert_allclose(z.to_numpy(), expected["z"], atol=1e-4 * expected["z"].std(0).max())
    generated = model.sample(z, n_cells=5).X
    # A later sampler may take other steps of the same flow.
    np.testing.assert_allclose(generated, expected["generated"], atol=0.02)


def test_there_is_a_golden_file() -> None:
    assert RELEASES
