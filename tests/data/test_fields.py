"""What obs says, read and checked the same way from any AnnData."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scgde.data import Representation, Setup, fingerprint


@pytest.fixture
def adata():
    obs = pd.DataFrame(
        {
            "donor": ["b", "a", "b", "c"],
            "disease": ["ill", None, "ill", "healthy"],
            "AD": [1, 0, 1, 0],
            "PD": [0, 0, 0, 1],
            "library": pd.Categorical(["y", "x", "x", "y"], categories=["z", "y", "x"]),
            "mass": [1, 2, 0, 3],
            "split": ["train", "train", "train", "test"],
        },
        index=list("1234"),
    )
    return AnnData(np.arange(8, dtype=np.float32).reshape(4, 2), obs=obs)


def test_labels_as_text_list_and_dict(adata):
    assert Setup("donor", labels="disease").label_columns == {"disease": "disease"}
    assert Setup("donor", labels=["disease", "AD"]).label_columns == {"disease": "disease", "AD": "AD"}
    named = Setup("donor", labels={"state": "disease", "diagnosis": ["AD", "PD"]})
    table = named.read(adata, training=True).table
    assert table.columns.tolist() == ["donor", "state", "AD", "PD", "n_cells"]
    assert table["state"].isna().tolist() == [True, False, False]
    assert table["PD"].tolist() == [0, 0, 1]


def test_new_data_need_neither_labels_nor_splits(adata):
    setup = Setup("donor", labels=["disease", "AD"], split_key="split")
    obs = setup.read(adata[:, :].copy(), training=False)
    assert obs.split is None
    adata.obs = adata.obs.drop(columns=["disease", "split"])
    assert setup.read(adata, training=False).labels.columns.tolist() == ["AD"]
    with pytest.raises(KeyError, match="'disease' is not in adata.obs"):
        setup.read(adata, training=True)


def test_weights_batches_and_splits_are_read(adata):
    obs = Setup("donor", batch_key="library", weight_key="mass", split_key="split").read(adata, training=True)
    assert obs.batch.tolist() == ["y", "x", "x", "y"]
    assert obs.weight.tolist() == [1, 2, 0, 3]
    assert obs.split.tolist() == ["train", "train", "test"]


def test_cells_without_group_do_not_count(adata):
    adata.obs.loc["1", "donor"] = None
    adata.obs["library"] = adata.obs["library"].astype(object)
    adata.obs.loc["1", ["library", "disease", "split"]] = None
    obs = Setup("donor", batch_key="library", split_key="split", drop_ungrouped=True).read(adata, training=True)
    assert obs.index.codes.tolist() == [-1, 0, 1, 2]


def test_missing_batch_names_the_cells_and_the_remedy(adata):
    adata.obs.loc["3", "library"] = np.nan
    with pytest.raises(ValueError, match=r"1 of 4 cells.*'library'.*'3'") as error:
        Setup("donor", batch_key="library").read(adata, training=True)
    assert "drop_ungrouped" not in str(error.value)  # it drops cells without group, not without batch


def _change_group(adata):
    adata.obs.loc["1", "donor"] = "a"


def _change_value(adata):
    adata.X[2, 1] += 1


def _move_value(adata):
    row = adata.X[:1].copy()
    adata.X[:1], adata.X[1:2] = adata.X[1:2], row


@pytest.mark.parametrize("change", [_change_group, _change_value, _move_value])
@pytest.mark.parametrize("matrix", [np.array, sparse.csr_matrix, sparse.csc_matrix])
def test_fingerprint_notices_changes(adata, change, matrix):
    setup, representation = Setup("donor"), Representation("X")
    adata.X = matrix(adata.X)
    before = fingerprint(adata, setup, representation)
    assert fingerprint(adata.copy(), setup, representation) == before
    dense = adata.copy()
    dense.X = adata.X.toarray() if sparse.issparse(adata.X) else adata.X
    change(dense)
    adata.obs, adata.X = dense.obs, matrix(dense.X)
    assert fingerprint(adata, setup, representation) != before


def test_fingerprint_notices_an_entry_that_moves_to_another_cell(adata):
    setup, representation = Setup("donor"), Representation("X")
    prints = set()
    for dense in ([[1, 0], [2, 0], [0, 0], [0, 0]], [[1, 0], [0, 0], [2, 0], [0, 0]]):
        adata.X = sparse.csr_matrix(np.array(dense, dtype=np.float32))
        prints.add(fingerprint(adata, setup, representation))
    assert len(prints) == 2
