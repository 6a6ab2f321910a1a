"""How far a group lies from the groups that a model was trained on."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

#: Groups whose p-value lies below this are called far from those that are known.
FAR = 0.01

#: At most this many distances are held at once.
MAX_DISTANCES = 2_000_000


class ConformalNovelty:
    """Out-of-distribution p-values of embeddings, by conformal prediction.

    The score of a point is its mean Euclidean distance to the nearest reference embeddings. The p-value is the share
    of points known to be in distribution, itself counted, that score at least as high. Where a new point is
    exchangeable with these, ``P(p <= a) <= a`` for every ``a``, whatever the distribution and however few points there
    are. Ties count against novelty, which keeps this bound and needs no random numbers.

    With held-out ``calibration`` embeddings the scores of these are compared to that of the new point (split
    conformal). Without, each reference embedding is scored against all others *and* the new point, which is scored
    against the reference (full conformal): the scores are symmetric in all points, so that the bound stays exact.

    Parameters
    ----------
    reference
        (groups, latent) embeddings of training groups.
    calibration
        (held-out groups, latent) embeddings of groups that took no part in training, or None.
    n_neighbors
        Number of nearest neighbours; all others where there are fewer.
    scale
        (latent,) unit of each coordinate, or None for the embedding's own units. A scale computed from other groups
        (or, with ``calibration``, from ``reference``) keeps the p-values exact. There is no whitening, in which the
        directions that the groups hardly span would count most.

    Raises
    ------
    ValueError
        If shapes do not match, an entry is not finite, or a scale is not positive.

    Notes
    -----
    No p-value is below :attr:`smallest_p_value`: to fall below 0.01, 100 points to compare with are needed.

    Source: Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World" (2005), chapter 2; Bates et al., "Testing
    for outliers with conformal p-values" (2023).
    """

    def __init__(
        self,
        reference: np.ndarray,
        calibration: np.ndarray | None = None,
        *,
        n_neighbors: int = 5,
        scale: np.ndarray | None = None,
    ) -> None:
        reference = np.asarray(reference, dtype=np.float64)
        if n_neighbors < 1:
            msg = f"Received n_neighbors={n_neighbors}, expected at least 1."
            raise ValueError(msg)
        self.n_neighbors = n_neighbors
        self._scale = np.ones(reference.shape[-1]) if scale is None else np.array(scale, dtype=np.float64)
        if self._scale.shape != reference.shape[1:] or not (np.isfinite(self._scale) & (self._scale > 0)).all():
            msg = f"scale must be {reference.shape[1:]} finite numbers above 0, received shape {self._scale.shape}."
            raise ValueError(msg)
        self._reference = self._checked(reference, "reference")
        self._calibration = None if calibration is None else self._checked(calibration, "calibration")
        self._state = {"reference": reference.copy(), "scale": self._scale, "n_neighbors": n_neighbors}
        if calibration is not None:
            self._state["calibration"] = np.array(calibration, dtype=np.float64)
        compared = self._reference if self._calibration is None else self._calibration
        if not len(compared) or not len(self._reference):
            msg = f"Received {len(self._reference)} reference and {len(compared)} compared groups, expected at least 1."
            raise ValueError(msg)
        self.smallest_p_value = 1 / (len(compared) + 1)
        if self._calibration is None:
            self._near = _nearest_in_reference(self._reference, n_neighbors)
        else:
            self._scores = np.concatenate([self._score(d) for d in self._distances(self._calibration)])

    def p_values(self, z: np.ndarray) -> np.ndarray:
        """(groups,) p-values: small where an embedding lies farther out than those known.

        Parameters
        ----------
        z
            (groups, latent) embeddings of new groups. They are judged one by one.
        """
        judge = self._full if self._calibration is None else self._split
        return np.concatenate([np.zeros(0), *(judge(d) for d in self._distances(self._checked(z, "z")))])

    def state(self) -> dict[str, Any]:
        """All that is needed to restore the object, as arrays and numbers."""
        return dict(self._state)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The object that :meth:`state` describes."""
        options = {"n_neighbors": int(state["n_neighbors"]), "scale": state["scale"]}
        return cls(state["reference"], state.get("calibration"), **options)

    def _checked(self, z: np.ndarray, name: str) -> np.ndarray:
        z = np.asarray(z, dtype=np.float64)
        if z.ndim != 2 or z.shape[1] != len(self._scale) or not np.isfinite(z).all():
            msg = f"{name} has shape {z.shape}; expected finite embeddings (groups, {len(self._scale)})."
            raise ValueError(msg)
        return z / self._scale

    def _distances(self, z: np.ndarray):
        """Distances to the reference (some groups, reference), a few groups at a time."""
        step = max(1, MAX_DISTANCES // len(self._reference))
        return (cdist(z[i : i + step], self._reference) for i in range(0, len(z), step))

    def _score(self, distances: np.ndarray) -> np.ndarray:
        k = min(self.n_neighbors, distances.shape[1])
        return np.sort(np.partition(distances, k - 1, axis=1)[:, :k], axis=1).mean(axis=1)

    def _split(self, distances: np.ndarray) -> np.ndarray:
        return _p_value(self._score(distances), self._scores)

    def _full(self, distances: np.ndarray) -> np.ndarray:
        """With the new point among them, the last neighbour of a reference point gives way to it where farther."""
        nearest, last = self._near[:, :-1], self._near[:, -1]
        scores = (nearest.sum(axis=1) + np.minimum(last, distances)) / self._near.shape[1]
        return _p_value(self._score(distances), scores)


def _nearest_in_reference(reference: np.ndarray, n_neighbors: int) -> np.ndarray:
    """(groups, k) distances of each reference point to its k nearest others, infinite where there are fewer."""
    k = min(n_neighbors, len(reference))
    near = np.full((len(reference), k), np.inf)
    others = min(k, len(reference) - 1)
    if others:
        # A tree computes distances as they are; other methods lose digits that ties depend on.
        near[:, :others] = NearestNeighbors(n_neighbors=others, algorithm="kd_tree").fit(reference).kneighbors()[0]
    return near


def _p_value(score: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of scores at least as high, that of the point itself included; rounding counts as a tie."""
    at_least = others >= score[:, None] * (1 - 1e-9)
    return (1 + at_least.sum(axis=1)) / (1 + at_least.shape[1])
