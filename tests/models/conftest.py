"""Small simulated data and tiny networks: a model trains in a third of a second."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from scgde import GDE

TINY = {"n_latent": 6, "n_components": 2, "encoder_kwargs": {"width": 16}, "generator_kwargs": {"width": 32}}


@pytest.fixture(scope="session")
def make_adata():
    """A factory of AnnData with ``n_groups`` donors that differ in mean, in random cell order."""

    def make(n_groups=6, n_cells=30, n_vars=4, *, seed=0, prefix="donor"):
        rng = np.random.default_rng(seed)
        codes = rng.permutation(np.repeat(np.arange(n_groups), n_cells))
        x = rng.normal(size=(len(codes), n_vars)) + 2 * rng.normal(size=(n_groups, n_vars))[codes]
        obs = pd.DataFrame(
            {
                "donor": [f"{prefix}_{i}" for i in codes],
                "disease": np.array(["healthy", "ill"])[codes % 2],
                "age": 20.0 + 3 * codes,
                "library": np.array(["a", "b"])[rng.integers(0, 2, len(codes))],
                "mass": rng.uniform(0.5, 2, len(codes)),
                "split": np.array(["train", "train", "train", "validation", "test"])[np.minimum(codes, 4)],
                "quality": rng.uniform(size=len(codes)),
            },
            index=[f"{prefix}-cell{i}" for i in range(len(codes))],
        )
        return AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(n_vars)]))

    return make


@pytest.fixture(scope="session")
def make_model():
    """A factory of trained tiny models."""

    def make(adata, groupby="donor", *, steps=3, train=None, options=None, **setup):
        # Equal bits need equal numbers of threads, and umap, which other tests run, resets that of torch.
        torch.set_num_threads(1)
        GDE.setup_anndata(adata, groupby, **setup)
        model = GDE(adata, **{**TINY, **(options or {})})
        quiet = {"accelerator": "cpu", "enable_progress_bar": False}
        model.train(**{"max_steps": steps, **quiet, **(train or {})})
        return model

    return make


@pytest.fixture(scope="session")
def tiny():
    """Options of a tiny model, and arguments that train it in silence."""
    return SimpleNamespace(options=TINY, train={"accelerator": "cpu", "enable_progress_bar": False})


@pytest.fixture(scope="session")
def model(make_adata, make_model):
    """A trained model. Shared: tests neither train it nor change its AnnData."""
    return make_model(make_adata(), steps=30)


@pytest.fixture(scope="session")
def batch_model(make_adata, make_model):
    """A trained model that knows batches, of an AnnData whose batch b is far from batch a. Shared, as ``model``."""
    adata = make_adata(n_cells=60)
    adata.X[(adata.obs["library"] == "b").to_numpy(), 0] += 20
    return make_model(adata, batch_key="library", steps=200, train={"plan_kwargs": {"lr": 1e-2, "ema_decay": 0.95}})


def same(left, right):
    """Whether two values from an AnnData are the same, down to dtypes."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, pd.DataFrame):
        return left.equals(right) and left.dtypes.equals(right.dtypes)
    if hasattr(left, "toarray"):
        return type(left) is type(right) and left.dtype == right.dtype and (left != right).nnz == 0
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    return left == right


def content(adata):
    """Everything in an AnnData as one nested dict of copies, scvi-tools' keys of a setup aside."""
    adata = adata.copy() if not adata.isbacked else adata.to_memory()
    uns = {k: v for k, v in adata.uns.items() if not k.startswith("_scvi")}
    tables = {name: dict(getattr(adata, name)) for name in ("obsm", "varm", "layers", "obsp", "varp")}
    return {"X": adata.X, "obs": adata.obs, "var": adata.var, "uns": uns, **tables}


@pytest.fixture
def unchanged():
    """A context in which an AnnData must not change."""
    from contextlib import contextmanager

    @contextmanager
    def check(adata, *, setup_keys=True):
        before, keys = content(adata), set(adata.uns)
        yield
        assert same(before, content(adata))
        assert setup_keys or set(adata.uns) == keys

    return check
