"""Regions that hold several entries of an embedding at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import f

if TYPE_CHECKING:
    from scgde.models._influence import Dispersion


def region_shapes(dispersion: Dispersion, level: float) -> np.ndarray:
    """Matrices M of the regions ``(p - z)' M^-1 (p - z) <= 1`` around embeddings, (groups, entries, entries).

    The covariance, widened for its skewness, times the quantile of Hotelling's T^2 with the degrees of freedom of the
    covariance; NaN where the cells do not suffice.

    Parameters
    ----------
    dispersion
        Covariances of the entries, with degrees of freedom.
    level
        Probability that a region holds the population's value.
    """
    df, inflation = dispersion.joint_df, dispersion.inflation
    assert df is not None
    assert inflation is not None
    p = dispersion.covariance.shape[1]
    df2 = df - p + 1
    usable = np.isfinite(df) & (df2 > 0)
    quantile = np.where(usable, df * p / df2, np.nan) * f.ppf(level, p, np.where(usable, df2, 1.0))
    return dispersion.covariance * (inflation * quantile)[:, None, None]
