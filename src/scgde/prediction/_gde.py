"""The embedding of a GDE that is trained inside the fold."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
from anndata import AnnData

from scgde.prediction._features import FoldContext


class GDEFeatures:
    """Embedding by a :class:`scgde.GDE` that is trained on the training groups of a fold, labelled or not.

    Parameters
    ----------
    context
        The fold.
    model
        Options of :class:`scgde.GDE`.
    train
        Options of :meth:`scgde.GDE.train`.

    Examples
    --------
    >>> short = functools.partial(GDEFeatures, train={"max_steps": 200})
    >>> cross_validate(adata, "donor", "disease", models={"gde": short})
    """

    def __init__(
        self, context: FoldContext, model: dict[str, Any] | None = None, train: dict[str, Any] | None = None
    ) -> None:
        self.context, self.model_options, self.train_options = context, model or {}, train or {}

    def fit_transform(self, train: AnnData) -> pd.DataFrame:
        """Train; embedding of the training groups, (n_groups, n_latent)."""
        from scgde.models import GDE  # scvi-tools takes seconds to import, which baselines do not need

        GDE.setup_anndata(train, self.context.groupby, use_rep="X")
        self.model = GDE(train, **{"seed": self.context.seed, **self.model_options})
        with _quiet_trainer():
            self.model.train(**{"enable_progress_bar": False, **self.train_options})
        return self.transform(train)

    def transform(self, adata: AnnData) -> pd.DataFrame:
        """Embedding of groups, (n_groups, n_latent)."""
        return self.model.get_group_embedding(adata, key_added=None)


@contextmanager
def _quiet_trainer() -> Iterator[None]:
    """Without Lightning's notes about devices and limits, which every fold would repeat."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
