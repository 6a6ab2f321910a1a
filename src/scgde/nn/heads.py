"""Heads of a jointly trained embedding: how well the latent of a group tells its labels."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

#: No class counts more than this many times what it would unweighted.
MAX_CLASS_WEIGHT = 10.0

#: Standardised numbers beyond these many standard deviations are taken as lying there: outliers do not lead.
MAX_DEVIATION = 4.0


class Head(nn.Module):
    """A linear map of the latent, and the negative log likelihood of one label under it.

    Parameters
    ----------
    n_latent
        Size of the latent.
    n_outputs
        Number of linear outputs. They start at zero: at first a head says what it knows without a look at the cells.

    Examples
    --------
    >>> head = NumericHead(n_latent=3, n_classes=0)
    >>> head.fit_constants(torch.tensor([[50.0], [60.0], [torch.nan]]))
    >>> head.loss(torch.zeros(3, 3), torch.tensor([[50.0], [60.0], [torch.nan]])).shape
    torch.Size([3, 1])
    """

    def __init__(self, n_latent: int, n_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_latent, n_outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def fit_constants(self, y: Tensor) -> None:
        """Set what is closed form from labels (groups, columns) of the training groups, NaN where missing."""

    def loss(self, latent: Tensor, y: Tensor) -> Tensor:
        """Negative log likelihood in nats, (groups, columns), 0 where ``y`` (groups, columns) is NaN."""
        known = ~y.isnan()
        return torch.where(known, self._loss(self.linear(latent), torch.where(known, y, 0.0)), 0.0)

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError


class CategoricalHead(Head):
    """Multinomial logistic regression; classes weigh inversely to their frequency, within limits."""

    class_weight: Tensor

    def __init__(self, n_latent: int, n_classes: int) -> None:
        super().__init__(n_latent, n_classes)
        self.register_buffer("class_weight", torch.ones(n_classes))

    def fit_constants(self, y: Tensor) -> None:
        """Weights of classes."""
        counts = torch.bincount(y[~y.isnan()].long(), minlength=len(self.class_weight))
        self.class_weight.copy_((counts.sum() / (len(counts) * counts.clamp_min(1))).clamp_max(MAX_CLASS_WEIGHT))

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(output, y[:, 0].long(), self.class_weight, reduction="none")
        return loss[:, None]


class OrderedHead(Head):
    """Proportional odds: logit P(level <= k) = threshold_k - score. Source: McCullagh (1980)."""

    def __init__(self, n_latent: int, n_classes: int) -> None:
        super().__init__(n_latent, 1)
        self.first = nn.Parameter(torch.zeros(1))
        self.steps = nn.Parameter(torch.zeros(n_classes - 2))

    def fit_constants(self, y: Tensor) -> None:
        """Thresholds that give the frequencies of the levels."""
        n_levels = len(self.steps) + 2
        counts = torch.bincount(y[~y.isnan()].long(), minlength=n_levels).float() + 0.5
        thresholds = (counts.cumsum(0) / counts.sum())[:-1].logit()
        with torch.no_grad():
            self.first.copy_(thresholds[:1])
            self.steps.copy_(thresholds.diff().clamp_min(1e-6).expm1().log())

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        thresholds = torch.cat([self.first, self.first + nn.functional.softplus(self.steps).cumsum(0)])
        below = (thresholds - output).sigmoid()
        below = nn.functional.pad(nn.functional.pad(below, (1, 0)), (0, 1), value=1.0)
        return -below.diff(dim=1).clamp_min(1e-7).log().gather(1, y.long())


class MultilabelHead(Head):
    """One logistic regression for each of several binary labels."""

    def __init__(self, n_latent: int, n_classes: int) -> None:
        super().__init__(n_latent, n_classes)

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(output, y, reduction="none")


class NumericHead(Head):
    """Gaussian around a linear mean, of numbers standardised by median and quartiles; its spread is learned."""

    center: Tensor
    scale: Tensor

    def __init__(self, n_latent: int, n_classes: int) -> None:
        super().__init__(n_latent, 1)
        self.log_sd = nn.Parameter(torch.zeros(1))
        self.register_buffer("center", torch.zeros(1))
        self.register_buffer("scale", torch.ones(1))

    def fit_constants(self, y: Tensor) -> None:
        """Centre and scale."""
        known = y[~y.isnan()]
        low, middle, high = known.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=known.dtype, device=known.device))
        # Where half of the numbers are the same the quartiles say nothing of the spread.
        spread = (high - low) / 1.349 if high > low else known.std(correction=0)
        self.center.copy_(middle)
        self.scale.copy_(spread.clamp_min(1e-12))

    def _loss(self, output: Tensor, y: Tensor) -> Tensor:
        y = ((y - self.center) / self.scale).clamp(-MAX_DEVIATION, MAX_DEVIATION)
        # A lower end keeps a head that fits its few groups exactly from ever larger gradients.
        log_sd = self.log_sd.clamp_min(-2.0)
        return 0.5 * ((y - output) / log_sd.exp()).square() + log_sd


#: Heads by kind of label.
HEADS: dict[str, type[Head]] = {
    "categorical": CategoricalHead,
    "ordered": OrderedHead,
    "multilabel": MultilabelHead,
    "numeric": NumericHead,
}


class Heads(nn.ModuleList):
    """The heads of several labels, each of which reads its columns.

    Parameters
    ----------
    n_latent
        Size of the latent.
    specs
        For each label its ``kind``, ``n_classes`` and number of columns, ``width``.
    """

    def __init__(self, n_latent: int, specs: list[dict[str, Any]]) -> None:
        super().__init__([HEADS[spec["kind"]](n_latent, spec["n_classes"]) for spec in specs])
        self.widths = [spec["width"] for spec in specs]

    @property
    def heads(self) -> list[Head]:
        """The heads, in the order of their columns."""
        return cast("list[Head]", list(self))

    def fit_constants(self, y: Tensor) -> None:
        """Set what is closed form, from the labels of the training groups."""
        for head, own in zip(self.heads, y.split(self.widths, dim=1), strict=True):
            head.fit_constants(own)

    def n_known(self, y: Tensor) -> Tensor:
        """(labels,) how many values are known of each."""
        return torch.stack([(~own.isnan()).sum() for own in y.split(self.widths, dim=1)]).float()

    def loss(self, latent: Tensor, y: Tensor, n_known: Tensor | None = None) -> Tensor:
        """Mean over labels of their mean loss over what is known, a number.

        Parameters
        ----------
        latent
            (groups, n_latent).
        y
            (groups, columns) labels, NaN where missing.
        n_known
            (labels,) what sums are divided by; by default how many values are known.
        """
        n_known = self.n_known(y) if n_known is None else n_known
        parts = zip(self.heads, y.split(self.widths, dim=1), strict=True)
        sums = torch.stack([head.loss(latent, own).sum() for head, own in parts])
        return (sums / torch.where(n_known > 0, n_known, 1.0)).mean()
