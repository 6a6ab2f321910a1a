"""Names beside points, without overlaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from ._style import SMALL, shorten

# directions in which a name may lie from its point, in order of preference: (x, y) in units of its box
_DIRECTIONS = np.array([(1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)])


def annotate(ax: Axes, xy: np.ndarray, names: Sequence[object], *, size: float, force: bool) -> None:
    """Write names beside points (n, 2) of area ``size``; one without a free place is left out unless ``force``."""
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()  # boxes in pixels mean nothing before the layout is settled
    pixels = figure.dpi / 72
    radius = (np.sqrt(size) / 2 + 1) * pixels
    points = ax.transData.transform(xy)
    taken = np.hstack([points - radius / 2, points + radius / 2])
    frame = ax.get_window_extent()
    for name, point in zip(names, points, strict=True):
        text = ax.text(0, 0, shorten(name, 16), fontsize=SMALL, transform=None, zorder=5)
        extent = text.get_window_extent()
        half = np.array([extent.width, extent.height]) / 2
        centres = point + _DIRECTIONS * (half + radius * np.where(_DIRECTIONS.all(axis=1), 0.6, 1)[:, None])
        boxes = np.hstack([centres - half, centres + half])
        # twice the area outside the axes counts as overlap, too: such a name would be clipped or hit the legend
        inside = _overlap(boxes, np.array([[frame.x0, frame.y0, frame.x1, frame.y1]])).sum(axis=1)
        cost = _overlap(boxes, taken).sum(axis=1) + 2 * (4 * half.prod() - inside)
        best = int(np.argmin(cost.round(3)))
        text.remove()
        if cost[best] > 1 and not force:
            continue
        taken = np.vstack([taken, boxes[best]])
        ax.annotate(
            shorten(name, 16),
            tuple(ax.transData.inverted().transform(point)),
            xytext=tuple((centres[best] - point) / pixels),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SMALL,
            zorder=5,
            # Cells and arrows may lie under a name.
            path_effects=[withStroke(linewidth=2, foreground="white", alpha=0.8)],
        )


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shared area (n, m) of boxes (n, 4) and (m, 4), each (x0, y0, x1, y1)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)
