"""Groups seen at several times: which of them are at a time, and what is known of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgde._validation import check_columns, check_constant, unknown_key
from scgde.data import GroupedObs
from scgde.models._gde import GDE


class TimedModel(GDE):
    """A model of groups at times."""

    # --- which groups, which times ---------------------------------------------------------------------------------

    def _is_at(self, obs: GroupedObs, time: Any) -> np.ndarray:
        key = self.setup.time_key
        if key is None or obs.time is None:
            msg = "The model knows no times. Set it up with time_key=."
            raise ValueError(msg)
        values = obs.index.table[key].astype(object)
        known = list(dict.fromkeys(values.iloc[np.argsort(obs.time, kind="stable")]))
        matches = [value for value in known if time_name(value) == time_name(time)]
        if not matches:
            raise KeyError(unknown_key(time, known, f"the times (time_key={key!r})").args[0])
        return (values == matches[0]).to_numpy()

    def _training_groups(self, obs: GroupedObs, time: Any) -> np.ndarray:
        """Positions of the training groups at a time."""
        at = self._is_at(obs, time)
        return np.flatnonzero(at if obs.split is None else at & (obs.split == "train"))

    def _seen_at(self, obs: GroupedObs, positions: np.ndarray, time: Any) -> np.ndarray:
        """Positions of the same groups at another time."""
        at = np.flatnonzero(self._is_at(obs, time))
        place = dict(zip(obs.unit[at], at, strict=True))
        unseen = [obs.index.names[i] for i in positions if obs.unit[i] not in place]
        if unseen:
            msg = (
                f"{len(unseen)} groups are not seen at {time!r}, {unseen[0]!r} among them, so that an oracle knows "
                "nothing of them. Pass adata= with their cells at that time, or other groups=."
            )
            raise ValueError(msg)
        return np.array([place[unit] for unit in obs.unit[positions]])

    def _forecast_groups(self, obs: GroupedObs, source_time: Any, target_time: Any, groups: Any) -> np.ndarray:
        positions = np.flatnonzero(self._is_at(obs, source_time))
        if isinstance(groups, str) and groups == "orphans":
            times = obs.index.table[self.setup.time_key].astype(object).map(time_name)
            seen = (times == time_name(target_time)).to_numpy()
            positions = positions[~np.isin(obs.unit[positions], obs.unit[seen])]
        elif not (isinstance(groups, str) and groups == "all"):
            keys = groups if isinstance(groups, list) else [groups]
            time = obs.index.table[self.setup.time_key].iloc[positions[0]]
            keys = [(*key, time) if isinstance(key, tuple) else (key, time) for key in keys]
            positions = obs.index.positions(keys)
        if not len(positions):
            msg = (
                f"No group is seen at {source_time!r} and not at {target_time!r}. Pass groups='all', or keys of groups."
                if isinstance(groups, str)
                else "groups= is empty. Pass 'orphans', 'all', or keys of groups."
            )
            raise ValueError(msg)
        return positions

    # --- conditions ------------------------------------------------------------------------------------------------

    def _categories(self, adata: AnnData, keys: list[str]) -> dict[str, list[Any]]:
        """Categories of each condition column; an empty list for numbers."""
        check_columns(adata, keys, "condition_keys")
        return {
            key: [] if pd.api.types.is_numeric_dtype(adata.obs[key]) else sorted(map(str, adata.obs[key].unique()))
            for key in keys
        }

    def _conditions(self, adata: AnnData, obs: GroupedObs, categories: dict[str, list[Any]]) -> np.ndarray:
        """(groups, conditions) numbers, and one column per category."""
        check_columns(adata, list(categories), "condition_keys")
        columns = []
        for key, known in categories.items():
            values = check_constant(adata.obs[key], obs.index.codes, obs.index.names, "condition_keys")
            if not known:
                columns.append(values.to_numpy(dtype=float)[:, None])
                continue
            unseen = [value for value in values.astype(str).unique() if value not in known]
            if unseen:
                raise KeyError(unknown_key(unseen[0], known, f"the values of {key!r} (condition_keys=)").args[0])
            columns.append((values.astype(str).to_numpy()[:, None] == np.array(known)).astype(float))
        return np.concatenate(columns, axis=1)


def time_name(time: Any) -> str:
    """One name of a time, however it is written: 2, 2.0 and "2" are the same time."""
    try:
        return f"{float(time):.15g}"
    except (TypeError, ValueError):
        return str(time)
