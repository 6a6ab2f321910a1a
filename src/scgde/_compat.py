"""The only place that knows private names of scvi-tools and anndata: a change there is mended here."""

from __future__ import annotations

import pandas as pd
import rich.pretty  # noqa: F401  scvi-tools uses it in view_anndata_setup and relies on somebody having imported it
from anndata import AnnData
from scvi.data import AnnDataManager
from scvi.data._constants import _SETUP_ARGS_KEY as SETUP_ARGS_KEY
from scvi.data.fields import BaseAnnDataField
from scvi.model.base import BaseModelClass
from scvi.train._logger import SimpleLogger
from scvi.train._progress import ProgressBar

__all__ = [
    "SETUP_ARGS_KEY",
    "AnnDataManager",
    "BaseAnnDataField",
    "BaseModelClass",
    "ProgressBar",
    "SimpleLogger",
    "nameless_anndata",
]


def nameless_anndata(obs: pd.DataFrame, var: pd.DataFrame) -> AnnData:
    """AnnData without values whose cells are numbered: anndata makes text of every index, 60 bytes per cell."""
    adata = AnnData(var=var)
    adata._obs = obs
    return adata
