"""Gene space: offered where the loadings reproduce the representation, and exact on the span of the components."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.decomposition import PCA

from scgde import GDE, TDE
from scgde.data import Representation
from scgde.data._genes import gene_space


@pytest.fixture
def adata():
    """Six donors, 60 genes of rank 3 and a PCA as scanpy writes it."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(6), 40)
    factors = rng.normal(size=(240, 3)) + 2 * rng.normal(size=(6, 3))[codes]
    x = (5 + factors @ rng.normal(size=(3, 60))).astype(np.float32)
    obs = pd.DataFrame({"donor": [f"donor_{c}" for c in codes]}, index=[f"cell{i}" for i in range(240)])
    adata = AnnData(x, obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(60)]))
    pca = PCA(3, random_state=0).fit(x)
    adata.obsm["X_pca"], adata.varm["PCs"] = pca.transform(x).astype(np.float32), pca.components_.T
    return adata


def test_genes_of_the_users_components(adata):
    space = gene_space(Representation.choose(adata, None, None), adata)
    np.testing.assert_allclose(space.restore(adata.obsm["X_pca"]), adata.X, atol=1e-3)


def test_genes_of_the_models_own_components(adata, tiny):
    del adata.obsm["X_pca"], adata.varm["PCs"]
    GDE.setup_anndata(adata, "donor")
    model = GDE(adata, **tiny.options)
    model.train(max_steps=2, **tiny.train)
    moved = model.transport("donor_0", "donor_1", space="genes")
    assert moved.var_names.equals(adata.var_names)
    assert moved.obsm["X_pca"].shape == (40, 50)
    own = adata[(adata.obs["donor"] == "donor_1").to_numpy()].X
    np.testing.assert_allclose(moved.X.mean(0), own.mean(0), atol=0.5 * own.std())


def test_transport_and_samples_in_genes(adata, tiny):
    TDE.setup_anndata(adata, "donor")
    model = TDE(adata, **tiny.options)
    model.train(max_steps=2, **tiny.train)
    moved = model.transport("donor_0", "donor_1", space="genes")
    rep = model.transport("donor_0", "donor_1")
    np.testing.assert_array_equal(moved.obsm["X_pca"], rep.X)
    assert model.sample("donor_0", 20, space="genes").shape == (20, 60)


@pytest.mark.parametrize("fault", ["none", "others"])
def test_loadings_that_do_not_fit(adata, fault):
    if fault == "none":
        del adata.varm["PCs"]
    else:
        adata.varm["PCs"] = adata.varm["PCs"][::-1].copy()
    message = "needs the loadings of" if fault == "none" else "does not reproduce"
    with pytest.raises(ValueError, match=f"space='genes'.*{message}|{message}"):
        gene_space(Representation.choose(adata, None, None), adata)
