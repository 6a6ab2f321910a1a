"""Attributes of groups: trained with the embedding, and predicted from it."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgde._constants import KEY
from scgde._validation import check_columns, check_constant, listing, unknown_key, warn
from scgde.data import GroupedObs, Setup
from scgde.models._fitting import split_groups
from scgde.models._label_fitting import covariances, fit_labels
from scgde.models._novelty import p_values, warn_far
from scgde.models._results import write_predictions
from scgde.models._uncertainty import UncertaintyModel
from scgde.prediction._predictor import predicted

#: Groups whose embeddings' covariances are held at a time.
CHUNK = 256


class LabelModel(UncertaintyModel):
    """A model that learns attributes of groups where they are known, and predicts them where they are not."""

    #: Weight of the labels' loss; see :class:`scgde.GDE`.
    labels_weight: float | None = 0.0

    #: Whether training ends with fitting what :meth:`predict` needs; without, :meth:`update_labels` can do so later.
    fits_predictors: bool = True

    trained_labels_: list[dict[str, Any]]
    predictors_: dict[str, dict[str, Any]]

    def predict(
        self,
        label: str,
        adata: AnnData | None = None,
        *,
        batch_size: int | None = None,
        key_added: str | None = KEY,
    ) -> pd.DataFrame:
        """Predict an attribute of groups, known or not.

        Predictions are linear in the embedding and in what can be read from it (weights of components and of types,
        correlations; each block has a map of its own, and those that predict better count more). They are averaged
        over the uncertainty of the embedding (its covariance, from the number and spread of a group's cells);
        their law is fitted to labelled groups whose label was not seen when the map was fitted (cross-fitting), so that
        probabilities mean what they say.

        Parameters
        ----------
        label
            Name of an attribute given to :meth:`setup_anndata` or :meth:`update_labels`.
        adata
            Data with the groups, which need not have been seen and need no label; labels that it has are not read. By
            default the training data.
        batch_size
            Cells in memory at a time.
        key_added
            Where to write: the predictions of all labels for these groups are in ``.uns[key_added]["predictions"]``, a
            table with one row per group, label and outcome. None writes nothing.

        Returns
        -------
        One row per group. Columns: the probability of each class, level, or binary column of a multi-label attribute;
        for numbers ``mean``, ``sd``, and the ends ``lower`` and ``upper`` of an interval that holds the value of 90% of
        the groups (without end where fewer than 9 groups are labelled). With ``adata``, also ``p_value``: small where a
        group lies far from those of training.

        Raises
        ------
        KeyError
            For an attribute that was never given.
        RuntimeError
            Before training.
        ValueError
            For an attribute that the labelled groups do not tell apart, with the reason.

        Warns
        -----
        UserWarning
            For groups with a p-value below .01, and for classes of which one group only is labelled: nothing is known
            of how well they are recognised.
        """
        self._check_trained()
        fitted = self._fitted_label(label)
        new = adata is not None
        adata, obs = self._read(adata)
        z = self._encode(adata, obs, None, batch_size).z.cpu().double().numpy()
        parts = []
        for start in range(0, len(z), CHUNK):
            some = np.arange(start, min(start + CHUNK, len(z)))
            covariance = functools.partial(covariances, self, adata, obs, batch_size, some)
            parts.append(predicted(fitted, z[some], covariance, self.module.blocks))
        frame = pd.DataFrame(pd.concat(parts).to_numpy(), index=obs.index.index, columns=parts[0].columns)
        p_value = p_values(self.fitted_, z) if new else None
        if p_value is not None:
            warn_far(p_value, obs.index.names, f"Predictions of {label!r} for them extrapolate.")
        if fitted["single"]:
            warn(
                f"One group only is labelled {listing(fitted['single'])} in {label!r}: the probability of such a class "
                "is not calibrated. Label more groups, or merge classes."
            )
        if key_added is not None:
            write_predictions(adata, key_added, label, frame, z, obs, self._settings(), p_value)
        return frame if p_value is None else frame.assign(p_value=p_value)

    def update_labels(
        self,
        data: AnnData | pd.DataFrame,
        labels: list[str] | dict[str, Any] | None = None,
        *,
        adata: AnnData | None = None,
    ) -> pd.DataFrame:
        """Learn attributes from the embedding as it is; nothing is trained anew.

        Attributes of a known name are learned afresh, others are added. Groups held out of training (by ``split_key``
        or ``validation_size``) never fit a map; where they are validation groups, they help to calibrate it.

        Parameters
        ----------
        data
            An AnnData with the attributes in ``.obs``; or a table with one row per group, indexed by the groups' keys
            and with one column per attribute, for groups of ``adata``. Groups that it does not name have no label.
        labels
            As in :meth:`setup_anndata`; by default that of setup for an AnnData, and all columns for a table.
        adata
            With a table, the cells of the groups; by default the training data.

        Returns
        -------
        What was learned: one row per attribute with its ``kind``, the number of groups that the map was fitted to
        (``n_labelled``), the ``map`` ("joint" where the part of the embedding that labels have shaped predicts labels
        better that it has not seen, else "linear"), and the ``status``: "fitted", or why not.

        Raises
        ------
        KeyError
            For groups or columns that are not there, with near matches.
        TypeError, ValueError
            For what is no attribute of a group.
        """
        self._check_trained()
        setup = self.setup
        if isinstance(data, AnnData):
            if setup.membership_key is not None:
                msg = (
                    f"Overlapping groups (membership_key={setup.membership_key!r}) have no labels in adata.obs. Pass a "
                    "table with one row per group, indexed by the names of the groups."
                )
                raise ValueError(msg)
            cells, setup = data, setup if labels is None else replace(setup, labels=labels)
        elif isinstance(data, pd.DataFrame):
            cells, setup = adata, replace(setup, labels=list(data.columns) if labels is None else labels)
        else:
            msg = f"data= is a {type(data).__name__}; expected an AnnData, or a DataFrame with one row per group."
            raise TypeError(msg)
        own = cells is None or cells is self.adata
        cells, obs = self._read(None if own else cells)
        if setup.split_key is not None and setup.split_key in cells.obs:
            obs = replace(obs, split=setup._split(cells)[obs.unit])
        table = self._label_table(data, obs, setup)
        names = {name: setup.label(name, table) for name in setup.label_names}
        validation_size = self.fitted_.get("validation_size") if own else 0.0
        split = split_groups(obs, validation_size, self.options["seed"])
        fitted = fit_labels(self, cells, replace(obs, labels=table), list(names.values()), split)
        self.predictors_ = {**self.predictors_, **fitted}
        return pd.DataFrame([fitted[name]["summary"] for name in names], index=list(names))

    @staticmethod
    def _label_table(data: AnnData | pd.DataFrame, obs: GroupedObs, setup: Setup) -> pd.DataFrame:
        """(groups, …) labels of the groups, from their cells or from a table of groups."""
        columns, index = setup.label_columns, obs.index
        if isinstance(data, AnnData):
            check_columns(data, list(columns.values()), "labels")
            return pd.DataFrame(
                {name: check_constant(data.obs[c], index.codes, index.names, "labels") for name, c in columns.items()},
                index=range(len(index)),
            )
        unknown = [column for column in columns.values() if column not in data.columns]
        if unknown:
            raise KeyError(unknown_key(unknown[0], data.columns, "the columns of data (labels=)").args[0])
        positions = index.positions(data.index.tolist())
        if len(set(positions.tolist())) < len(positions):
            msg = "data= names a group in several rows; expected one row per group."
            raise ValueError(msg)
        table = data[list(columns.values())].set_axis(positions).reindex(range(len(index)))
        return table.set_axis(list(columns), axis=1)

    def _fitted_label(self, label: str) -> dict[str, Any]:
        if label not in self.predictors_:
            what = "the attributes that the model has learned (labels= of setup_anndata, or update_labels())"
            raise KeyError(unknown_key(label, self.predictors_, what).args[0])
        fitted = self.predictors_[label]
        if not fitted["parts"]:
            msg = (
                f"{label!r} cannot be predicted: {fitted['summary']['status']}. Label more groups, and call "
                "model.update_labels()."
            )
            raise ValueError(msg)
        return fitted
