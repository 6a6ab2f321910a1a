"""Calibrated predictions of one label from the embedding: a map, and a law around it that unseen labels set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from scipy.special import expit, logit, softmax

from scgde.prediction._heads import LinearMap, fit_linear

#: The differentiable function from embeddings (groups, latent) to the blocks of features that maps are linear in.
Blocks = Callable[[torch.Tensor], list[torch.Tensor]]

#: From linear functions of embeddings (groups, outputs, latent) to their covariances (groups, outputs, outputs).
Covariance = Callable[[np.ndarray], np.ndarray]

#: Draws of outputs that predictions are averaged over, and what intervals of numbers cover.
N_DRAWS, COVERAGE = 64, 0.9

#: Log of the factor that outputs are multiplied by: a priori normal with this standard deviation.
TEMPERATURE_SD = 1.0

#: Numbers farther from the median than this many robust standard deviations lead the map no farther.
MAX_DEVIATION = 4.0


class Predictor:
    """Predicts a label of groups from outputs that are linear in features of their embeddings.

    The law of a label around the outputs is fitted to outputs of groups whose label the map has not seen. Outputs have
    a covariance, that of the embedding: predictions are averages over it.

    Parameters
    ----------
    classes
        Classes, levels or binary columns; empty for numbers.
    linear
        From features to outputs.
    law
        What :meth:`fit_law` has fitted, as arrays.
    """

    #: How the map is fitted, see :func:`fit_linear`.
    map_kind: ClassVar[str]

    def __init__(self, classes: list[Any], linear: LinearMap, law: dict[str, np.ndarray] | None = None) -> None:
        self.classes, self.linear, self.law = classes, linear, law or {}

    @classmethod
    def fit_map(
        cls, x: np.ndarray, y: np.ndarray, classes: list[Any], unit: np.ndarray, seed: int, sizes: Sequence[int]
    ) -> LinearMap:
        """Fit the map on features (groups, features) in blocks and labels (groups,); see :func:`fit_linear`."""
        return fit_linear(x, y, unit, cls.map_kind, seed, sizes)

    def fit_law(self, outputs: np.ndarray, covariance: np.ndarray, y: np.ndarray, known: np.ndarray) -> None:
        """Fit the law to labels that the map has not seen.

        Parameters
        ----------
        outputs, covariance
            (groups, outputs) and (groups, outputs, outputs), of groups whose label the map has not seen.
        y
            (groups,) their labels.
        known
            (all groups,) all labels that are known, for frequencies.
        """
        raise NotImplementedError

    def loss(self, outputs: np.ndarray, covariance: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(groups,) negative log likelihood."""
        raise NotImplementedError

    def table(self, outputs: np.ndarray, covariance: np.ndarray) -> dict[Any, np.ndarray]:
        """Columns of the prediction: probabilities by class, or what is said of a number."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """All that is needed to restore the object."""
        return {"classes": self.classes, "linear": tuple(self.linear), "law": self.law}


class _Probabilities(Predictor):
    """Predicts the probabilities of classes."""

    def _probabilities(self, outputs: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def loss(self, outputs, covariance, y):
        p = self._probabilities(outputs, covariance)
        return -np.log(p[np.arange(len(y)), y.astype(int)].clip(1e-12))

    def table(self, outputs, covariance):
        return dict(zip(self.classes, self._probabilities(outputs, covariance).T, strict=True))


class ClassPredictor(_Probabilities):
    """Classes. Log odds, as they differ from those of the frequencies, are multiplied by one factor."""

    map_kind = "categorical"

    @classmethod
    def fit_map(cls, x, y, classes, unit, seed, sizes):
        present, codes = np.unique(y.astype(int), return_inverse=True)
        coef, intercept = np.zeros((x.shape[1], len(classes))), np.full(len(classes), np.log(0.5 / len(y)))
        intercept[present] = 0.0
        if len(present) > 1:
            linear = fit_linear(x, codes, unit, cls.map_kind, seed, sizes)
            coef[:, present], intercept[present] = linear.coef, linear.intercept
        return LinearMap(coef, intercept)

    def fit_law(self, outputs, covariance, y, known):
        counts = np.bincount(known.astype(int), minlength=len(self.classes))
        self.law = {"log_prior": np.log((counts + 0.5) / (counts + 0.5).sum()), "log_factor": np.zeros(1)}
        if len(y):
            self.law["log_factor"] = _minimized(lambda v: self._objective(v, outputs, covariance, y), np.zeros(1))

    def _objective(self, log_factor, outputs, covariance, y):
        self.law["log_factor"] = log_factor
        return self.loss(outputs, covariance, y).sum() + 0.5 * (log_factor[0] / TEMPERATURE_SD) ** 2

    def _probabilities(self, outputs, covariance):
        prior = self.law["log_prior"]
        gain = np.exp(self.law["log_factor"])
        return softmax(prior + gain * (draws(outputs, covariance) - prior), axis=2).mean(axis=0)


class OrderedPredictor(_Probabilities):
    """Ordered levels: proportional odds of one score.

    Source: McCullagh, "Regression models for ordinal data" (1980).
    """

    map_kind = "ordered"

    def fit_law(self, outputs, covariance, y, known):
        n = len(self.classes)
        share = (np.bincount(known.astype(int), minlength=n) + 0.5).cumsum()[:-1] / (len(known) + 0.5 * n)
        center = np.median(outputs) if len(y) else known.mean()
        scale = max(float(np.std(outputs)), 1e-9) if len(y) else max(float(known.std()), 1e-9)
        self.law = {"center": np.array(center), "scale": np.array(scale), "slope": np.zeros(1), "steps": _steps(share)}
        if len(y):
            start = np.concatenate([[0.0], self.law["steps"]])
            best = _minimized(lambda v: self._objective(v, start, outputs, covariance, y), start)
            self.law |= {"slope": best[:1], "steps": best[1:]}

    def _objective(self, v, start, outputs, covariance, y):
        self.law |= {"slope": v[:1], "steps": v[1:]}
        return self.loss(outputs, covariance, y).sum() + 0.5 * np.square((v - start) / 2).sum()

    def _probabilities(self, outputs, covariance):
        steps = self.law["steps"]
        thresholds = steps[0] + np.concatenate([[0.0], np.exp(steps[1:]).cumsum()])
        score = (draws(outputs, covariance) - self.law["center"]) / self.law["scale"]
        below = expit(thresholds - self.law["slope"] * score)
        return np.diff(below, axis=2, prepend=0.0, append=1.0).mean(axis=0)


class NumericPredictor(Predictor):
    """Numbers: mean, standard deviation, and an interval from the errors in groups whose label was not seen.

    Source: Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World" (2005), with errors in units of the
    standard deviation.
    """

    map_kind = "numeric"

    @classmethod
    def fit_map(cls, x, y, classes, unit, seed, sizes):
        return fit_linear(x, winsorized(y), unit, cls.map_kind, seed, sizes)

    def fit_law(self, outputs, covariance, y, known):
        if not len(y):
            outputs, covariance, y = np.full((len(known), 1), known.mean()), np.zeros((len(known), 1, 1)), known
        variance, error = covariance[:, 0, 0], y - outputs[:, 0]
        usual = max(np.square(winsorized(error, around=0.0)).mean(), 1e-24)
        # What varies with the cells that were drawn is part of the errors already; groups differ in it.
        own = max(usual - variance.mean(), 0.1 * usual)
        self.law = {"variance": np.array(own), "factor": np.array(0.0)}
        rank = int(np.ceil((len(y) + 1) * COVERAGE))
        scores = np.sort(np.abs(error) / np.sqrt(own + variance))
        self.law["factor"] = np.array(scores[rank - 1] if rank <= len(y) else np.inf)

    def loss(self, outputs, covariance, y):
        variance = self.law["variance"] + covariance[:, 0, 0]
        # As with the map, an outlier does not decide.
        squares = (np.square(y - outputs[:, 0]) / variance).clip(max=MAX_DEVIATION**2)
        return 0.5 * (squares + np.log(2 * np.pi * variance))

    def table(self, outputs, covariance):
        mean, sd = outputs[:, 0], np.sqrt(self.law["variance"] + covariance[:, 0, 0])
        reach = self.law["factor"] * sd
        return {"mean": mean, "sd": sd, "lower": mean - reach, "upper": mean + reach}


#: Predictors by kind of label. A multi-label attribute is made of one class predictor for each column.
PREDICTORS: dict[str, type[Predictor]] = {
    "categorical": ClassPredictor,
    "ordered": OrderedPredictor,
    "numeric": NumericPredictor,
}


def predicted(fitted: dict[str, Any], z: np.ndarray, covariance: Covariance, blocks: Blocks) -> pd.DataFrame:
    """Prediction of a label of groups, from the states of its predictors, one for each column of a multi-label one.

    Parameters
    ----------
    fitted
        What was learned of the label.
    z
        (groups, latent) embeddings.
    covariance
        Of linear functions of the embeddings; called once.
    blocks
        Features of embeddings.
    """
    label = fitted["label"]
    kind = "categorical" if label["kind"] == "multilabel" else label["kind"]
    parts = [PREDICTORS[kind](each["classes"], LinearMap(*each["linear"]), each["law"]) for each in fitted["parts"]]
    outputs, by_z = zip(*(differentiate(part.linear, z, blocks) for part in parts), strict=True)
    joint, tables, start = covariance(np.concatenate(by_z, axis=2).transpose(0, 2, 1)), [], 0
    for part, output in zip(parts, outputs, strict=True):
        own = slice(start, start + output.shape[1])
        tables.append(part.table(output, joint[:, own, own]))
        start = own.stop
    if label["kind"] == "multilabel":
        return pd.DataFrame({name: table[1] for name, table in zip(label["classes"], tables, strict=True)})
    return pd.DataFrame(tables[0])


def read_features(z: np.ndarray, blocks: Blocks) -> tuple[np.ndarray, list[int]]:
    """Features of embeddings, (groups, features), and the sizes of their blocks."""
    with torch.no_grad():
        found = [block.numpy() for block in blocks(torch.tensor(z))]
    return np.concatenate(found, axis=1), [block.shape[1] for block in found]


def differentiate(linear: LinearMap, z: np.ndarray, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of embeddings (groups, outputs), and their derivatives by the embeddings (groups, latent, outputs)."""
    with torch.enable_grad():
        leaf = torch.tensor(z, requires_grad=True)
        features = torch.cat(blocks(leaf), dim=1)
        outputs = features @ torch.from_numpy(linear.coef) + torch.from_numpy(linear.intercept)
        by_z = [torch.autograd.grad(each.sum(), leaf, retain_graph=True)[0] for each in outputs.unbind(1)]
    return outputs.detach().numpy(), torch.stack(by_z, dim=2).numpy()


def propagate(
    linear: LinearMap, z: np.ndarray, covariance: Covariance, blocks: Blocks
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of embeddings, and their covariances to first order in those of the embeddings."""
    outputs, by_z = differentiate(linear, z, blocks)
    return outputs, covariance(by_z.transpose(0, 2, 1))


def draws(outputs: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """(draws, groups, outputs) normal draws; the same noise in each call, of mean 0, so that results repeat."""
    if not covariance.any():
        return outputs[None]
    noise = np.random.default_rng(0).standard_normal((N_DRAWS // 2, outputs.shape[1]))
    if len(noise) > 2 * noise.shape[1]:  # mean and covariance are then exact
        noise = noise @ np.linalg.inv(np.linalg.cholesky(noise.T @ noise / len(noise))).T
    noise = np.concatenate([noise, -noise])
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(values.clip(0))[:, None]
    return outputs + np.einsum("gop,dp->dgo", root, noise)


def winsorized(y: np.ndarray, around: float | None = None) -> np.ndarray:
    """Numbers with outliers moved to the edge of the usual range, in robust standard deviations."""
    center = np.median(y) if around is None else around
    spread = 1.4826 * np.median(np.abs(y - center))
    return y.clip(center - MAX_DEVIATION * spread, center + MAX_DEVIATION * spread) if spread > 0 else y


def _steps(share: np.ndarray) -> np.ndarray:
    """Parameters of increasing thresholds whose probabilities are ``share``: the first, and logs of the steps."""
    thresholds = logit(share)
    return np.concatenate([thresholds[:1], np.log(np.diff(thresholds).clip(1e-6))])


def _minimized(objective, start: np.ndarray) -> np.ndarray:
    return minimize(objective, start, method="BFGS", options={"maxiter": 100}).x
