"""Downloads: read from small files of the published form; nothing here needs a network."""

import gzip

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from scipy.io import mmwrite

from scgde import datasets
from scgde.datasets._download import Published
from scgde.datasets._published import COVID, LARRY


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """An empty folder of data sets."""
    from scanpy import settings

    before = settings.datasetdir
    settings.datasetdir = tmp_path
    yield
    settings.datasetdir = before


def _write_gz(path, write):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb") as file:
        write(file)


@pytest.fixture
def published_larry(tmp_path):
    folder = tmp_path / "scgde" / "larry"
    counts, genes, metadata, clones = (folder / name for name in LARRY.files)
    x = sparse.csr_matrix(np.arange(15.0).reshape(5, 3))
    barcodes = sparse.csr_matrix([[0, 1], [0, 0], [1, 1], [1, 0], [0, 1]])
    table = pd.DataFrame(
        {
            "Library": ["d6_1", "d6_1", "LK_d2", "d4_1", "d4_1"],
            "Cell barcode": list("ABCDE"),
            "Time point": [6.0, 6.0, 2.0, 4.0, 4.0],
            "Starting population": "Lin-Kit+Sca1-",
            "Cell type annotation": ["Monocyte", "Neutrophil", "undiff", "undiff", "undiff"],
            "Well": [0, 1, 2, 1, 2],
            "SPRING-x": np.arange(5.0),
            "SPRING-y": -np.arange(5.0),
        }
    )
    _write_gz(counts, lambda file: mmwrite(file, x))
    _write_gz(genes, lambda file: file.write(b"Gata1\nMpo\nGata1\n"))
    _write_gz(metadata, lambda file: file.write(table.to_csv(sep="\t", index=False).encode()))
    _write_gz(clones, lambda file: mmwrite(file, barcodes))
    return clones


def test_larry_is_read_from_the_published_files(published_larry):
    adata = datasets.larry()
    np.testing.assert_array_equal(adata.X.toarray(), np.arange(15).reshape(5, 3))
    assert list(adata.var_names) == ["Gata1", "Mpo", "Gata1-1"]
    assert list(adata.obs["day"].cat.categories) == ["2", "4", "6"]
    assert adata.obs["day"].cat.ordered
    assert adata.obs["clone"].astype(object).where(adata.obs["clone"].notna(), None).tolist() == [
        "clone_1",
        None,
        None,  # barcodes of two clones
        "clone_0",
        "clone_1",
    ]
    np.testing.assert_array_equal(adata.obsm["X_spring"][:, 1], -np.arange(5))
    assert adata.obs["cell_type"].iloc[0] == "Monocyte"


def test_files_that_do_not_fit_each_other(published_larry):
    _write_gz(published_larry, lambda file: mmwrite(file, sparse.csr_matrix(np.eye(4))))
    with pytest.raises(ValueError, match=r"clones \(4, 4\).*Delete them"):
        datasets.larry()


def _page(published):
    published.write_bytes(b"<html>404</html>")


def _cut(published):
    published.write_bytes(published.read_bytes()[:-20])


def _other_columns(published):
    _write_gz(published.with_name(list(LARRY.files)[2]), lambda file: file.write(b"Well\n" + b"0\n" * 5))


@pytest.mark.parametrize(
    ("harm", "why"), [(_page, "BadGzipFile"), (_cut, "EOFError"), (_other_columns, "Cell type annotation")]
)
def test_what_is_not_of_the_published_form(published_larry, harm, why):
    harm(published_larry)
    with pytest.raises(ValueError, match=rf"'larry'.*published form \(.*{why}.*Delete them.*https://"):
        datasets.larry()


@pytest.mark.parametrize("backed", [False, True])
def test_covid_is_read_with_the_columns_of_the_examples(tmp_path, backed):
    obs = pd.DataFrame(
        {
            "patient_id": ["p1", "p2"],
            "Status": ["Covid", "Healthy"],
            "full_clustering": ["NK", "B"],
            "Site": ["Ncl"] * 2,
        },
        index=["a", "b"],
    )
    path = tmp_path / "scgde" / "covid_pbmc" / next(iter(COVID.files))
    path.parent.mkdir(parents=True)
    AnnData(np.ones((2, 2), dtype=np.float32), obs=obs).write_h5ad(path)
    adata = datasets.covid_pbmc(backed=backed)
    assert adata.isbacked == backed
    assert adata.obs["donor"].tolist() == ["p1", "p2"]
    assert adata.obs["disease"].tolist() == ["Covid", "Healthy"]
    assert adata.obs["cell_type"].tolist() == ["NK", "B"]
    if backed:
        adata.file.close()
        return
    AnnData(np.ones((2, 2), dtype=np.float32), obs=obs[["Site"]]).write_h5ad(path)
    with pytest.raises(ValueError, match="no columns.*'patient_id'"):
        datasets.covid_pbmc()
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match="published form.*OSError.*Delete them"):
        datasets.covid_pbmc()


@pytest.mark.parametrize("load", [datasets.larry, datasets.covid_pbmc])
def test_without_a_network_the_message_says_what_to_do(load, monkeypatch):
    import requests

    def refuse(*args, **kwargs):
        msg = "no route to host"
        raise requests.exceptions.ConnectionError(msg)

    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(
        ConnectionError, match=r"could not be downloaded from https://.*no route to host.*copy the file"
    ):
        load()


def test_a_checksum_that_is_known_is_checked(tmp_path):
    import hashlib

    path = tmp_path / "scgde" / "some" / "file.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"content")
    known = "sha256:" + hashlib.sha256(b"content").hexdigest()
    assert Published("some", "https://localhost", {"file.txt": known}).fetch() == {"file.txt": path}
