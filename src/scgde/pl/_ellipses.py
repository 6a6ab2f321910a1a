"""Regions of error in a view."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Ellipse
from scipy.stats import chi2

from ._color import Colors

LEVEL = 0.95


def error_ellipses(ax: Axes, xy: np.ndarray, covariance: np.ndarray, colors: Colors) -> None:
    """Draw the 95% regions of normal errors around points (n, 2), with covariances (n, 2, 2)."""
    variance, vectors = np.linalg.eigh(covariance)
    width, height = 2 * np.sqrt(chi2.ppf(LEVEL, df=2) * np.clip(variance, 0, None)).T
    angle = np.degrees(np.arctan2(vectors[:, 1, 0], vectors[:, 0, 0]))
    patches = [Ellipse(point, w, h, angle=a) for point, w, h, a in zip(xy, width, height, angle, strict=True)]
    many = len(xy) > 200
    ax.add_collection(
        PatchCollection(
            patches,
            facecolors=np.c_[colors.rgba[:, :3], np.full(len(xy), 0.03 if many else 0.15)],
            edgecolors=np.c_[colors.rgba[:, :3], np.full(len(xy), 0.15 if many else 0.7)],
            linewidths=0.3 if many else 0.6,
            rasterized=len(xy) > 1000,
            zorder=1,
        )
    )
