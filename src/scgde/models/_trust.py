"""How far to trust what was learned beyond the statistics: as far as it helps on cells that training has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from lightning.fabric.utilities import move_data_to_device

from scgde.data._batch import GroupBatch
from scgde.data._datamodule import GroupDataModule
from scgde.models._training import GDETrainingPlan, mean_loss

if TYPE_CHECKING:
    from scgde.models._cells import CellModel

#: Draws of noise and times for each held-out cell: no more than make so many numbers, cells times features. They are an
#: even number: in half of them statistics are measured.
MIN_DRAWS, MAX_DRAWS, NUMBERS = 2, 32, 500_000

#: Groups that held-out groups are weighed against.
PRIOR_GROUPS = 10

#: What n training groups teach is trusted by n / (n + HALF_TRUST) in new groups, where none are held out to tell.
HALF_TRUST = 100


def learning_alone(model: CellModel) -> bool:
    """Whether learning alone knows batches, or the types of cells, as with counts, which have one profile."""
    return bool(model._batches) or getattr(model.module.generator, "counts", False)


def default_trust(n_groups: float) -> dict[str, float]:
    """These weights where nothing is held out to tell, from the number of training groups."""
    return {"known": 1.0, "new": 1.0 if n_groups == math.inf else n_groups / (n_groups + HALF_TRUST)}


@torch.no_grad()
def fit_trust(plan: GDETrainingPlan, data: GroupDataModule) -> dict[str, float]:
    """Weights, from 0 to 1, of what was learned: in groups that training has seen ("known"), and in others ("new").

    The loss of a flow is quadratic in the weight, and that of others is taken for it. Its least value, on cells that
    were held out of training groups, and on groups that were held out, tells what is learned from noise. Held-out
    groups are few, and stand for all new ones: they count by their number, against :data:`PRIOR_GROUPS` of the weight
    n / (n + :data:`HALF_TRUST`). New groups are not trusted more than known ones.

    Parameters
    ----------
    plan
        What was trained.
    data
        What it was trained on.
    """
    trust = default_trust(len(data.train_groups))
    for batches in data.validation_batches():
        groups = torch.cat([batch.group for batch in batches])
        best = _best(plan, batches)
        if torch.isin(groups, data.validation_groups).all():
            trust["new"] = (len(groups) * best + PRIOR_GROUPS * trust["new"]) / (len(groups) + PRIOR_GROUPS)
        else:
            trust["known"] = best
    return trust | {"new": min(trust["new"], trust["known"])}


def _best(plan: GDETrainingPlan, batches: Sequence[GroupBatch]) -> float:
    """The weight of the least loss on held-out cells, by a parabola."""
    device, losses = plan.module.device, []
    n_numbers = sum(batch.x_score.numel() for batch in batches)
    n_draws = min(MAX_DRAWS, max(MIN_DRAWS, 2 * math.ceil(NUMBERS / (2 * n_numbers))))
    for batch in batches:
        batch = move_data_to_device(batch, device)
        for draw in range(n_draws):
            measured = torch.full_like(batch.group, draw % 2) == 1
            each = [plan.loss(batch, step=2**31 + draw, measured=measured, trust=trust)[0] for trust in (0.0, 0.5, 1.0)]
            losses.append(torch.stack([mean_loss(loss, batch) for loss in each]).cpu().double() * len(batch.group))
    none, half, full = torch.stack(losses).sum(0).tolist()
    bend = none - 2 * half + full
    if bend <= 0:
        return float(full <= none)
    return min(1.0, max(0.0, 0.5 + 0.25 * (none - full) / bend))
