"""Forecasting the population of a group at a time at which it was not seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scgde._constants import SOURCE
from scgde._validation import check_columns, unknown_key, warn
from scgde.data import GroupedObs
from scgde.forecasting import FORECASTERS, Forecaster, Growth, precision_weights
from scgde.models._baselines import BASELINES, Given
from scgde.models._cells import Populations
from scgde.models._fates import group_fates, neighbor_fates
from scgde.models._inference import encode_groups
from scgde.models._timed import TimedModel, time_name
from scgde.nn.displacement import displaced, displacement, is_affine
from scgde.uncertainty import FAR, ConformalNovelty

#: Ways to forecast: the model's own, and what it is to be compared with.
FORECAST_METHODS = ("forecaster", "oracle", *BASELINES)


class ForecastModel(TimedModel):
    """A model that learns, from groups seen at two times, how embeddings change between them."""

    forecasters_: dict[str, Any]

    def fit_forecaster(
        self, source_time: Any, target_time: Any, kind: str = "ridge", *, condition_keys: list[str] | None = None
    ) -> pd.DataFrame:
        """Learn to predict embeddings at ``target_time`` from those at ``source_time``.

        It learns from the training groups that are seen at both times, each weighted by how precisely its embeddings
        are known. The growth of the groups, relative to the number of cells sampled at each time, is learned too.

        Parameters
        ----------
        source_time, target_time
            Values of the time column.
        kind
            "ridge" (linear), "mlp" (a network, where cross-validation prefers it), or "mixture" (a mixture density,
            with at least 30 pairs).
        condition_keys
            Columns of ``.obs``, constant within groups, that the forecast may depend on.

        Returns
        -------
        Cross-validated mean squared error of the forecast in held-out groups, beside those of no change, of the mean
        change and of the mean target; with the number of pairs.

        Raises
        ------
        KeyError
            For unknown times, kinds and columns.
        ValueError
            Without times, for a time and itself, and with fewer than three pairs.
        """
        self._check_trained()
        if kind not in FORECASTERS:
            raise ValueError(unknown_key(kind, FORECASTERS, "the forecasters (kind=)").args[0])
        if time_name(source_time) == time_name(target_time):
            msg = f"source_time and target_time are both {source_time!r}: a forecast needs two times."
            raise ValueError(msg)
        adata, obs = self._read(None, training=True)
        at = [self._training_groups(obs, time) for time in (source_time, target_time)]
        _, first, second = np.intersect1d(obs.unit[at[0]], obs.unit[at[1]], return_indices=True)
        source, target = at[0][first], at[1][second]
        if len(source) < 3:
            msg = (
                f"{len(source)} training groups are seen at both {source_time!r} and {target_time!r}; at least 3 pairs "
                "are needed to learn a forecast."
            )
            raise ValueError(msg)
        z = self._encode(adata, obs, None, None).z.cpu().double().numpy()
        counts, seed = obs.index.counts, self.options["seed"]
        categories = self._categories(adata, condition_keys or [])
        forecaster = FORECASTERS[kind](seed=seed).fit(
            z[source],
            self._as_moves(z[source], z[target]),
            precision_weights(counts[source], counts[target]),
            self._conditions(adata, obs, categories)[source] if categories else None,
            # Where the statistics say all, the code adds nothing, and leads astray where no pair was seen.
            n_inputs=self.module.n_coordinates if is_affine(self.module.statistics) else None,
        )
        depth_ratio = counts[at[1]].sum() / counts[at[0]].sum()
        growth = Growth(seed=seed).fit(z[source], counts[source], counts[target], depth_ratio)
        novelty = ConformalNovelty(z[at[0]])
        self.forecasters_[_name(source_time, target_time)] = {
            "forecaster": forecaster.state(),
            "growth": growth.state(),
            "novelty": novelty.state(),
            "categories": categories,
        }
        errors = {**forecaster.cv_error_, "n_pairs": len(source), "kind": forecaster.kind_used}
        return pd.DataFrame(errors, index=[_name(source_time, target_time)])

    def forecast(
        self,
        source_time: Any,
        target_time: Any,
        adata: AnnData | None = None,
        *,
        groups: Any = "orphans",
        method: str = "forecaster",
        n_draws: int = 0,
        space: str = "rep",
        trust: float | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> AnnData:
        """Forecast groups at ``target_time``: predict their embeddings, and move their cells there.

        Parameters
        ----------
        source_time, target_time
            As in :meth:`fit_forecaster`.
        adata
            Data with the groups, which need not have been seen; by default the training data.
        groups
            "orphans": those seen at the source time and not at the target time; "all" at the source time; or a list of
            keys without the time.
        method
            "forecaster", or a baseline to compare it with: "identity" (cells stay), "pooled" (cells become random cells
            of all training groups at the target time), "nearest_ot" (cells go where the exact optimal transport plan
            between all training cells at both times, at most 2,000 of each, sends the nearest training cell), or
            "oracle" (the true embedding of groups that are seen at the target time). Baselines need no
            :meth:`fit_forecaster`, and give all groups the mean growth: weight 1.
        n_draws
            Number of draws of each embedding that the forecaster predicts, which carry its uncertainty; 0 moves cells
            to its mean.
        space
            "rep" or "genes", as in :meth:`transport`.
        trust
            As in :meth:`transport`.
        seed
            Seed of the draws, and of what is random in a baseline.
        batch_size
            Cells in memory at a time.
        progress
            Whether to show a progress bar.

        Returns
        -------
        AnnData with the moved cells; in ``.obs`` the columns of the source's cells, ``source``, ``target``, ``weight``
        (predicted growth of the cell's group, relative to the mean of a cell's mass), and ``draw`` where there are
        several. ``.uns["forecast"]`` holds the predicted ``embedding`` (groups, latent), its ``draws`` (draws, groups,
        latent) where there are any, and ``groups``, a table with ``log_growth`` and, for the forecaster, ``p_value``:
        how far a group's source embedding lies from those that the forecaster has seen.

        Raises
        ------
        RuntimeError
            Where no forecaster was fitted for these times.
        KeyError
            For unknown times and groups.
        ValueError
            Where there is no group to forecast, for unknown methods, for an oracle of groups that are not seen at the
            target time, and for ``trust`` as in :meth:`transport`.

        Warns
        -----
        UserWarning
            For groups with a p-value below .01: the forecast extrapolates.
        """
        self._check_trained()
        self._check_moves()
        self._check_trust(trust)
        if method not in FORECAST_METHODS:
            raise ValueError(unknown_key(method, FORECAST_METHODS, "the forecasts (method=)").args[0])
        if n_draws and method != "forecaster":
            msg = f"n_draws={n_draws}: method={method!r} predicts no distribution of embeddings. Leave n_draws at 0."
            raise ValueError(msg)
        data = self.adata if adata is None else adata
        self._check_space(space, data)
        fitted = self._fitted_forecaster(source_time, target_time) if method == "forecaster" else {}
        data, obs = self._read(adata)
        positions = self._forecast_groups(obs, source_time, target_time, groups)
        start = self._encoded(data, obs, positions, True, batch_size)
        cells = self._cells_of(data, obs, positions)
        table = obs.index.table.iloc[positions].set_axis(list(map(str, range(len(positions))))).assign(log_growth=0.0)
        if method in BASELINES:
            moved = [BASELINES[method](self._known(cells.x, source_time, target_time, seed))]
            encoded = encode_groups(self.module, moved[0], cells.pair, len(positions), batch_size=batch_size)
            mean = encoded.z.cpu().numpy()
        else:
            if method == "oracle":
                mean = self._encode(data, obs, self._seen_at(obs, positions, target_time), batch_size).z.cpu().numpy()
                targets = mean[None]
            else:
                mean, targets = self._predict(fitted, data, obs, start, table, n_draws, seed)
            ends = [start._replace(z=torch.from_numpy(z).to(start.z), mixtures=None) for z in targets]
            moved = [
                self._move(cells, start, end, np.ones(1), None, trust, seed, batch_size, progress)[0] for end in ends
            ]
        rows = cells.obs.assign(
            source=np.array(start.names, dtype=object)[cells.pair],
            target=str(target_time),
            weight=np.exp(table["log_growth"].to_numpy())[cells.pair],
        )
        if n_draws:
            rows = pd.concat(
                [rows.assign(draw=i).set_axis([f"{name}-{i}" for name in rows.index]) for i in range(n_draws)]
            )
        result = self._cells_anndata(np.concatenate(moved), rows, space, data)
        result.uns["forecast"] = {"embedding": mean.astype(np.float32), "groups": table}
        if n_draws:
            result.uns["forecast"]["draws"] = targets.astype(np.float32)
        return result

    def _predict(
        self,
        fitted: dict[str, Any],
        data: AnnData,
        obs: GroupedObs,
        start: Populations,
        table: pd.DataFrame,
        n_draws: int,
        seed: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean (groups, latent) and draws (draws, groups, latent) of targets; growth and novelty go to ``table``."""
        z = start.z.cpu().double().numpy()
        categories = fitted["categories"]
        condition = self._conditions(data, obs, categories)[start.positions] if categories else None
        forecaster = Forecaster.from_state(fitted["forecaster"])
        mean = self._after_moves(z, forecaster.predict(z, condition))
        table["log_growth"] = Growth.from_state(fitted["growth"]).predict_log_growth(z)
        table["p_value"] = ConformalNovelty.from_state(fitted["novelty"]).p_values(z)
        _warn_far(table["p_value"].to_numpy(), start.names)
        if not n_draws:
            return mean, mean[None]
        draws = forecaster.sample(z, n_draws, condition, seed=seed)
        return mean, np.stack([self._after_moves(z, draw) for draw in draws])

    def _as_moves(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Targets as they are learned: of single Gaussians, the affine move of the source is what is added to it."""
        if not is_affine(self.module.statistics):
            return target
        n = self.module.n_coordinates
        return self._with_statistics(target, source[:, :n] + self._on_statistics(displacement, source, target))

    def _after_moves(self, source: np.ndarray, learned: np.ndarray) -> np.ndarray:
        """The targets that predictions of the kind that is learned lead to."""
        if not is_affine(self.module.statistics):
            return learned
        return self._with_statistics(learned, self._on_statistics(displaced, source, learned - source))

    def _on_statistics(self, function: Callable, *z: np.ndarray) -> np.ndarray:
        n, device = self.module.n_coordinates, self.module.device
        coordinates = (torch.from_numpy(each[:, :n]).float().to(device) for each in z)
        return function(self.module.statistics, *coordinates).cpu().double().numpy()

    @staticmethod
    def _with_statistics(z: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
        return np.hstack([coordinates, z[:, coordinates.shape[1] :]])

    def fate_probabilities(
        self,
        source_time: Any,
        target_time: Any,
        labels: str = "cell_type",
        adata: AnnData | None = None,
        *,
        groups: Any = "all",
        method: str = "forecaster",
        n_neighbors: int = 20,
        batch_size: int | None = None,
    ) -> AnnData:
        """What becomes of cells: the labels of the real cells that lie nearest to their forecast.

        Parameters
        ----------
        source_time, target_time
            As in :meth:`fit_forecaster`.
        labels
            Column of ``.obs`` of the training data with the labels of cells.
        adata
            Data with the groups whose cells are followed; by default the training data.
        groups, method
            As in :meth:`forecast`.
        n_neighbors
            Real cells of training groups at the target time to read labels from.
        batch_size
            Cells in memory at a time.

        Returns
        -------
        AnnData of :meth:`forecast`, with ``.obsm["fates"]`` (cells, labels); ``.uns["fates"]`` holds the ``labels`` and
        the ``groups`` (groups, labels), in the order of ``.uns["forecast"]["groups"]``. Rows sum to 1.

        Raises
        ------
        KeyError
            For an unknown column.
        ValueError
            Where no cell at the target time has a label.
        """
        cells = self.forecast(source_time, target_time, adata, groups=groups, method=method, batch_size=batch_size)
        data, obs = self._read(None, training=True)
        check_columns(data, [labels], "labels")
        at_target = self._training_groups(obs, target_time)
        codes, names = pd.factorize(data.obs[labels].astype(object), sort=True)
        known = np.isin(obs.index.codes, at_target) & (codes >= 0)
        if not known.any():
            msg = f"No cell of a training group at {target_time!r} has a value in adata.obs[{labels!r}] (labels=)."
            raise ValueError(msg)
        reference = self.representation.read(data)[known]
        fates = neighbor_fates(np.asarray(cells.X), reference, codes[known], len(names), n_neighbors=n_neighbors)
        _, group = np.unique(cells.obs[SOURCE].to_numpy(dtype=object), return_inverse=True)
        order = pd.unique(group)
        cells.obsm["fates"] = fates
        cells.uns["fates"] = {
            "labels": np.array(names, dtype=object).astype(str),
            "groups": group_fates(fates, group, len(order))[order],
        }
        return cells

    def _known(self, cells: np.ndarray, source_time: Any, target_time: Any, seed: int) -> Given:
        data, obs = self._read(None, training=True)
        x = self.representation.read(data)
        at = [
            np.flatnonzero(np.isin(obs.index.codes, self._training_groups(obs, t))) for t in (source_time, target_time)
        ]
        source_weight, target_weight = (None if obs.weight is None else obs.weight[rows] for rows in at)
        return Given(cells, x[at[0]], x[at[1]], source_weight, target_weight, seed)

    def _fitted_forecaster(self, source_time: Any, target_time: Any) -> dict[str, Any]:
        name = _name(source_time, target_time)
        if name not in self.forecasters_:
            fitted = ", ".join(self.forecasters_) or "none"
            msg = (
                f"No forecaster was fitted for {name} (fitted: {fitted}). Call "
                f"model.fit_forecaster({source_time!r}, {target_time!r}) first."
            )
            raise RuntimeError(msg)
        return self.forecasters_[name]


def _name(source_time: Any, target_time: Any) -> str:
    return f"{time_name(source_time)} -> {time_name(target_time)}"


def _warn_far(p_values: np.ndarray, names: list[str]) -> None:
    far = np.flatnonzero(p_values < FAR)
    if len(far):
        some = ", ".join(names[i] for i in far[:5]) + (", …" if len(far) > 5 else "")
        msg = (
            f"{len(far)} of {len(names)} groups lie far from those that the forecaster has seen (p < {FAR}): {some}. "
            "Their forecasts extrapolate."
        )
        warn(msg)
