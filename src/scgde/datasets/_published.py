"""Public data sets: clones across days, and donors with and without a disease."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad
from anndata.utils import make_index_unique
from scipy import sparse

from ._download import Published

# Neither source publishes checksums: they are None, and what is downloaded is trusted as it is. What does not have the
# published form is refused on reading.
LARRY = Published(
    "larry",
    "https://kleintools.hms.harvard.edu/paper_websites/state_fate2020",
    {
        "stateFate_inVitro_normed_counts.mtx.gz": None,
        "stateFate_inVitro_gene_names.txt.gz": None,
        "stateFate_inVitro_metadata.txt.gz": None,
        "stateFate_inVitro_clone_matrix.mtx.gz": None,
    },
)
COVID = Published(
    "covid_pbmc",
    "https://www.ebi.ac.uk/biostudies/files/E-MTAB-10026",
    {"covid_portal_210320_with_raw.h5ad": None},
)

_METADATA = {
    "Time point": "day",
    "Cell type annotation": "cell_type",
    "Starting population": "starting_population",
    "Library": "library",
    "Well": "well",
}


def larry() -> AnnData:
    """Haematopoietic clones on days 2, 4 and 6, in vitro (LARRY lineage tracing); about 131,000 cells.

    The first call downloads four files from the authors' site into ``scanpy.settings.datasetdir / "scgde/larry"``;
    later ones read them there. Where the download fails, put the files that the message names into that folder.

    Returns
    -------
    AnnData with normalised counts (sparse) in X; in ``.obs`` ``clone`` (missing for cells without a barcode, or with
    those of several clones), ``day`` (ordered), ``cell_type``, ``starting_population``, ``library`` and ``well``; in
    ``.obsm["X_spring"]`` the authors' layout.

    Raises
    ------
    ConnectionError
        Where the files are not there and cannot be downloaded; the message has address and folder.
    ValueError
        Where the files do not have the published form.

    Notes
    -----
    What is checked: that counts, genes, metadata and clones fit each other, and that the metadata have their columns.
    No checksums are published, so what the files hold is taken as it is. The package's tests read small files of the
    same form and download nothing: should the site move its files, this function fails with the address it tried.

    Source: Weinreb et al., "Lineage tracing on transcriptional landscapes links state to fate during differentiation"
    (2020), GSE140802.

    Examples
    --------
    >>> adata = larry()
    >>> adata = adata[adata.obs["clone"].notna()].copy()
    """
    return LARRY.load(read_larry)


def read_larry(files: Mapping[str, Path]) -> AnnData:
    """Read the four files of LARRY, by their published names."""
    from scipy.io import mmread

    counts, genes, metadata, clones = (files[name] for name in LARRY.files)
    x = sparse.csr_matrix(mmread(counts, spmatrix=False), dtype=np.float32)
    names = pd.read_csv(genes, header=None, sep="\t")[0].astype(str)
    table = pd.read_csv(metadata, sep="\t")
    barcodes = sparse.csr_matrix(mmread(clones, spmatrix=False))
    if x.shape != (len(table), len(names)) or barcodes.shape[0] != len(table):
        msg = (
            f"they do not fit each other: counts {x.shape}, {len(names)} genes, {len(table)} cells in the metadata, "
            f"clones {barcodes.shape}"
        )
        raise ValueError(msg)
    obs = table[list(_METADATA)].rename(columns=_METADATA).set_index(pd.RangeIndex(len(table)).astype(str))
    obs["day"] = pd.Categorical(obs["day"].map("{:g}".format), sorted({f"{d:g}" for d in obs["day"]}, key=float), True)
    obs["clone"] = _single_clone(barcodes)
    for column in ("cell_type", "starting_population", "library", "clone"):
        obs[column] = obs[column].astype("category")
    adata = AnnData(x, obs=obs, var=pd.DataFrame(index=make_index_unique(pd.Index(names.tolist()))))
    adata.obsm["X_spring"] = table[["SPRING-x", "SPRING-y"]].to_numpy(dtype=np.float32)
    return adata


def _single_clone(barcodes: sparse.csr_matrix) -> np.ndarray:
    """Name of the clone of each cell (n_cells,), None without a barcode and with those of several clones."""
    barcodes.eliminate_zeros()
    single = np.diff(barcodes.indptr) == 1
    names = np.full(barcodes.shape[0], None, dtype=object)
    names[single] = [f"clone_{i}" for i in barcodes.indices[barcodes.indptr[:-1][single]]]
    return names


def covid_pbmc(*, backed: bool = False) -> AnnData:
    """Blood cells of patients with COVID-19 and of controls; about 650,000 cells of 130 patients, several gigabytes.

    The first call downloads one file from ArrayExpress into ``scanpy.settings.datasetdir / "scgde/covid_pbmc"``; later
    ones read it there. Where the download fails, put the file that the message names into that folder.

    Parameters
    ----------
    backed
        Leave X on disk.

    Returns
    -------
    The authors' AnnData, with the columns that this package's examples use added to ``.obs``: ``donor``
    (``patient_id``), ``disease`` (``Status``), ``cell_type`` (``full_clustering``) and ``site`` (``Site``).

    Raises
    ------
    ConnectionError
        Where the file is not there and cannot be downloaded; the message has address and folder.
    ValueError
        Where the file does not have the published form.

    Notes
    -----
    What is checked: that the four columns are there. No checksum is published, so what the file holds is taken as it
    is. The package's tests read a small file of the same form and download nothing: should the archive move the file,
    this function fails with the address it tried.

    Source: Stephenson et al., "Single-cell multi-omics analysis of the immune response in COVID-19" (2021),
    E-MTAB-10026.
    """
    return COVID.load(partial(read_covid_pbmc, backed=backed))


def read_covid_pbmc(files: Mapping[str, Path], *, backed: bool = False) -> AnnData:
    """Read the file of the atlas, by its published name."""
    (path,) = (files[name] for name in COVID.files)
    adata = read_h5ad(path, backed="r" if backed else None)
    names = {"donor": "patient_id", "disease": "Status", "cell_type": "full_clustering", "site": "Site"}
    absent = [name for name in names.values() if name not in adata.obs]
    if absent:
        msg = f"no columns {absent} in .obs"
        raise ValueError(msg)
    for name, published in names.items():
        adata.obs[name] = adata.obs[published].astype("category")
    return adata
