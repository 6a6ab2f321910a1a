"""A GDE that is trained inside the fold: its embedding as features, and its own predictions."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scgde.prediction._features import FoldContext


class _FoldGDE:
    """A :class:`scgde.GDE` that is trained on the training groups of a fold."""

    #: Whether predictions are the model's own.
    fits_predictors: ClassVar[bool]

    def __init__(
        self, context: FoldContext, model: dict[str, Any] | None = None, train: dict[str, Any] | None = None
    ) -> None:
        self.context, self.model_options, self.train_options = context, model or {}, train or {}

    def _train(self, train: AnnData, labels_weight: float | None, **options: Any) -> None:
        from scgde.models import GDE  # scvi-tools takes seconds to import, which baselines do not need

        label = self.context.label
        labels = None if labels_weight == 0 else [label]
        if labels:
            train = train.copy()
            train.obs[label] = _of_kind(train.obs[label], self.context.kind)
        GDE.setup_anndata(train, self.context.groupby, use_rep="X", labels=labels)
        self.model = GDE(train, **{"seed": self.context.seed, "labels_weight": labels_weight, **self.model_options})
        self.model.fits_predictors = self.fits_predictors
        with _quiet_trainer():
            self.model.train(**{"enable_progress_bar": False, **options, **self.train_options})


class GDEFeatures(_FoldGDE):
    """Embedding by a :class:`scgde.GDE` that is trained on the training groups of a fold, labelled or not.

    Parameters
    ----------
    context
        The fold.
    model
        Options of :class:`scgde.GDE`.
    train
        Options of :meth:`scgde.GDE.train`.
    labels_weight
        Weight of the labels that the fold shows. 0: the embedding sees none (frozen), and only the head learns from
        them. Other values: semi-supervised, as in :class:`scgde.GDE`.
    labelled_only
        Whether to train on labelled groups and their labels alone, without reconstruction (supervised only).

    Examples
    --------
    >>> semi = functools.partial(GDEFeatures, labels_weight=1.0, train={"max_steps": 200})
    >>> supervised = functools.partial(GDEFeatures, labelled_only=True, train={"max_steps": 200})
    >>> cross_validate(adata, "donor", "disease", models={"frozen": "gde", "semi": semi, "supervised": supervised})
    """

    fits_predictors = False

    def __init__(
        self,
        context: FoldContext,
        model: dict[str, Any] | None = None,
        train: dict[str, Any] | None = None,
        *,
        labels_weight: float | None = 0.0,
        labelled_only: bool = False,
    ) -> None:
        super().__init__(context, model, train)
        self.labels_weight, self.labelled_only = labels_weight, labelled_only

    def fit_transform(self, train: AnnData) -> pd.DataFrame:
        """Train; blocks of the embedding of the training groups, (n_groups, n_features)."""
        if self.labelled_only:
            labelled = train[train.obs[self.context.label].notna().to_numpy()].copy()
            alone = {"plan_kwargs": {"reconstruction_weight": 0.0}, "validation_size": 0.0, "early_stopping": False}
            self._train(labelled, self.labels_weight or 1.0, **alone)
        else:
            self._train(train, self.labels_weight)
        return self.transform(train)

    def transform(self, adata: AnnData) -> pd.DataFrame:
        """Blocks of the embedding of groups, (n_groups, n_features); ``block_sizes`` are their sizes."""
        z = self.model.get_group_embedding(adata, key_added=None)
        with torch.no_grad():
            blocks = self.model.module.blocks(torch.tensor(z.to_numpy()))
        self.block_sizes = [block.shape[1] for block in blocks]
        return pd.DataFrame(torch.cat(blocks, dim=1).numpy(), index=z.index)


class GDEPredictions(_FoldGDE):
    """Predictions by :meth:`scgde.GDE.predict`, with all that it does by default: calibrated, and its own head.

    Parameters
    ----------
    context, model, train
        As in :class:`GDEFeatures`.
    """

    fits_predictors = True

    def fit(self, train: AnnData) -> None:
        """Train on the training groups, with the labels that the fold shows."""
        self._train(train, self.model_options.get("labels_weight"))

    def predict(self, test: AnnData) -> pd.DataFrame:
        """Probabilities by class, (n_groups, n_classes), or expected ranks or values, (n_groups, 1)."""
        frame = self.model.predict(self.context.label, test, key_added=None).drop(columns="p_value")
        if self.context.kind == "numeric":
            return frame[["mean"]]
        if self.context.kind == "ordered":
            return (frame * np.arange(frame.shape[1])).sum(axis=1).to_frame()
        return frame


def _of_kind(values: pd.Series, kind: str) -> pd.Series:
    """A label whose dtype says what kind it is."""
    if kind == "numeric":
        return pd.to_numeric(values.astype(object)).astype(float)
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.cat.set_categories(values.cat.categories, ordered=kind == "ordered")
    return pd.Series(pd.Categorical(values.astype(object), ordered=kind == "ordered"), index=values.index)


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
