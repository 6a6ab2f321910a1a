"""Means over folds with intervals that know that folds share training groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

#: Level of all intervals.
CONFIDENCE = 0.95


def corrected_interval(values: np.ndarray, test_to_train: float) -> dict[str, float]:
    """Mean over folds with the interval and p-value (of a mean of 0) of the corrected resampled t-test.

    The variance of the mean of J fold values is estimated by ``(1/J + n_test/n_train) s²`` in place of ``s²/J``, with
    J - 1 degrees of freedom: folds of all repeats share most of their training groups, and are not independent. Ends
    of an interval may lie outside the range of a score.

    Source: Nadeau & Bengio, "Inference for the generalization error" (2003); for repeated folds, Bouckaert & Frank,
    "Evaluating the replicability of significance tests for comparing learning algorithms" (2004).

    Parameters
    ----------
    values
        (n_folds,) values; those that are NaN are left out.
    test_to_train
        Number of scored groups over number of labelled groups in training, before labels are hidden.
    """
    values = values[~np.isnan(values)]
    n = len(values)
    mean, sd = (float(values.mean()) if n else np.nan), (float(values.std(ddof=1)) if n > 1 else np.nan)
    error = sd * np.sqrt(1 / max(n, 1) + test_to_train)
    half = error * stats.t.ppf((1 + CONFIDENCE) / 2, max(n - 1, 1))
    if error > 0:
        p_value = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    else:
        p_value = 1.0 if mean == 0 else np.nan if np.isnan(error) else 0.0
    return {"mean": mean, "sd": sd, "lower": mean - half, "upper": mean + half, "p_value": p_value, "n_folds": n}


def summarize(scores: pd.DataFrame, test_to_train: float) -> pd.DataFrame:
    """Mean and interval of each model and metric, in the order of the scores."""
    rows = []
    for (model, metric), own in scores.groupby(["model", "metric"], sort=False, observed=True):
        interval = corrected_interval(own["value"].to_numpy(), test_to_train)
        interval.pop("p_value")
        rows.append({"model": model, "metric": metric, **interval})
    return pd.DataFrame(rows)


def compare(
    scores: pd.DataFrame, baselines: list[str], higher_is_better: dict[str, bool], test_to_train: float
) -> pd.DataFrame:
    """Paired differences of each model to each baseline, signed so that positive is better for the model."""
    rows = []
    for metric, own in scores.groupby("metric", sort=False, observed=True):
        table = own.pivot(index=["repeat", "fold"], columns="model", values="value")
        sign = 1 if higher_is_better[str(metric)] else -1
        for model in own["model"].unique():
            for baseline in baselines:
                if model != baseline:
                    advantage = sign * (table[model] - table[baseline]).to_numpy()
                    interval = corrected_interval(advantage, test_to_train)
                    interval = {"advantage": interval.pop("mean"), **interval}
                    rows.append({"model": model, "baseline": baseline, "metric": metric, **interval})
    return pd.DataFrame(rows)
