"""Groups of continuous labels: overlapping windows of time, pseudotime or space."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans

from scgde._constants import GROUP_NAMES
from scgde._validation import check_anndata, listing, unknown_key

#: Cells that centres in space are chosen from.
MAX_CLUSTERED = 20_000


def kernel_groups(
    adata: AnnData,
    key: str,
    *,
    n_groups: int = 20,
    bandwidth: float | None = None,
    centres: Any = None,
    cutoff: float = 3.0,
    key_added: str = "kernel_groups",
    seed: int = 0,
) -> pd.DataFrame:
    """Make overlapping groups of cells, each weighted by a Gaussian kernel around its centre.

    For ``GDE.setup_anndata(adata, membership_key="kernel_groups")``: the embedding then is a smooth function of the
    centre.

    Parameters
    ----------
    adata
        Cells.
    key
        Column of ``.obs`` with numbers (time, pseudotime), or key of ``.obsm`` (n_cells, n_dims) (space).
    n_groups
        Number of groups, unless ``centres`` are given. A column gets evenly spaced centres from its least to its
        largest value, coordinates get centres by k-means.
    bandwidth
        Standard deviation of the kernel, in the units of ``key``. By default the median distance of a centre to the
        nearest other one.
    centres
        (n_groups,) or (n_groups, n_dims) centres of the groups.
    cutoff
        Bandwidths beyond which a cell does not belong to a group, which keeps the matrix sparse.
    key_added
        Where to write: memberships (n_cells, n_groups), sparse, to ``.obsm``; names, centres and bandwidth to ``.uns``.
    seed
        Seed of k-means.

    Returns
    -------
    One row per group: its centre (one column per dimension), ``n_cells``, and ``n_effective``, the effective number of
    cells under the weights, ``(sum w)^2 / sum w^2``. Groups without cells are left out.

    Raises
    ------
    KeyError
        For an unknown key, with near matches.
    TypeError, ValueError
        For values or centres that are no finite numbers, and for sizes that make no sense.

    Notes
    -----
    The weight is ``exp(-|x - centre|^2 / (2 bandwidth^2))``: the estimate of Nadaraya (1964) and Watson (1964) of the
    distribution of cells given the label. Wide kernels blur: a mean that is curved in the label is off by about
    ``bandwidth^2 / 2`` times its second derivative.

    Examples
    --------
    >>> centres = kernel_groups(adata, "pseudotime", n_groups=30)
    >>> model = GDE.setup_anndata(adata, membership_key="kernel_groups")
    """
    check_anndata(adata)
    for name, value in {"n_groups": n_groups, "cutoff": cutoff, "bandwidth": bandwidth}.items():
        if value is not None and not 0 < value < np.inf:
            msg = f"{name}={value}: expected a positive number."
            raise ValueError(msg)
    x, columns = _coordinates(adata, key)
    chosen = _choose(x, n_groups, key in adata.obs, seed) if centres is None else _given(centres, x.shape[1])
    width = _spacing(chosen) if bandwidth is None else float(bandwidth)
    near = cKDTree(x).sparse_distance_matrix(cKDTree(chosen), cutoff * width, output_type="ndarray")
    used, group = np.unique(near["j"], return_inverse=True)
    if not len(used):
        msg = f"No cell lies within {cutoff} bandwidths of {width:.3g} of a centre. Pass other centres, or bandwidth=."
        raise ValueError(msg)
    weight = np.exp(-0.5 * np.square(near["v"] / width))
    matrix = sparse.csr_matrix((weight.astype(np.float32), (near["i"], group)), shape=(len(x), len(used)))
    matrix.sort_indices()
    names = [str(i) for i in range(len(used))]
    total, squares = np.bincount(group, weight), np.bincount(group, weight**2)
    table = pd.DataFrame(chosen[used], index=pd.Index(names, name="group"), columns=columns)
    adata.obsm[key_added] = matrix
    adata.uns[key_added] = {
        GROUP_NAMES: np.array(names, dtype=object),
        "centres": chosen[used],
        "bandwidth": width,
        "key": key,
    }
    return table.assign(n_cells=np.bincount(group), n_effective=total**2 / squares)


def _coordinates(adata: AnnData, key: str) -> tuple[np.ndarray, list[str]]:
    """(n_cells, n_dims) labels of the cells, and names of the dimensions."""
    if key in adata.obs:
        values, columns = adata.obs[key].to_numpy()[:, None], [key]
    elif key in adata.obsm:
        values = adata.obsm[key]
        columns = list(map(str, values.columns)) if isinstance(values, pd.DataFrame) else []
        values = np.asarray(values)
        columns = columns or [f"{key}_{i + 1}" for i in range(values.shape[1])]
    else:
        raise KeyError(unknown_key(key, [*adata.obs.columns, *adata.obsm.keys()], "adata.obs or adata.obsm").args[0])
    if not np.issubdtype(values.dtype, np.number):
        msg = f"{key!r} holds {values.dtype}, expected numbers: a column of .obs, or coordinates in .obsm."
        raise TypeError(msg)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        msg = (
            f"{key!r} is missing or infinite in {bad.sum():,} of {len(bad):,} cells ({listing(adata.obs_names[bad])}). "
            "Fill it in, or remove these cells."
        )
        raise ValueError(msg)
    return values.astype(np.float64), columns


def _given(centres: Any, n_dims: int) -> np.ndarray:
    found = np.asarray(centres, dtype=np.float64)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or found.shape[1] != n_dims or not len(found) or not np.isfinite(found).all():
        msg = f"centres= has shape {np.shape(centres)}, expected finite numbers (n_groups, {n_dims})."
        raise ValueError(msg)
    return found


def _choose(x: np.ndarray, n_groups: int, evenly: bool, seed: int) -> np.ndarray:
    if evenly:
        return np.linspace(x.min(0), x.max(0), n_groups)
    rows = np.random.default_rng(seed).permutation(len(x))[:MAX_CLUSTERED]
    return KMeans(min(n_groups, len(rows)), n_init=1, random_state=seed).fit(x[np.sort(rows)]).cluster_centers_


def _spacing(centres: np.ndarray) -> float:
    """Median distance of a centre to the nearest other one."""
    distance = cKDTree(centres).query(centres, k=2)[0][:, 1] if len(centres) > 1 else np.zeros(1)
    width = float(np.median(distance))
    if not 0 < width < np.inf:
        msg = "The centres do not differ, so that they say nothing of the bandwidth. Pass bandwidth=, or other centres."
        raise ValueError(msg)
    return width
