"""Heads: likelihoods that can be written down, missing values, and what a few steps of training reach."""

import numpy as np
import pytest
import torch
from scipy import stats

from scgde.nn.heads import HEADS, MAX_CLASS_WEIGHT, Heads

#: Numbers of classes of each kind, and labels with a missing one.
LABELS = {
    "categorical": (3, [[0.0], [1.0], [2.0], [0.0], [torch.nan]]),
    "ordered": (4, [[0.0], [1.0], [3.0], [2.0], [torch.nan]]),
    "multilabel": (2, [[0.0, 1.0], [1.0, 1.0], [torch.nan, 0.0], [1.0, 0.0], [torch.nan, torch.nan]]),
    "numeric": (0, [[1.0], [2.0], [4.0], [3.0], [torch.nan]]),
}


@pytest.mark.parametrize("kind", HEADS)
def test_missing_labels_cost_nothing_and_give_no_gradient(kind):
    n_classes, y = LABELS[kind]
    y = torch.tensor(y)
    head = HEADS[kind](3, n_classes)
    head.fit_constants(y)
    latent = torch.randn(5, 3, requires_grad=True)
    with torch.no_grad():
        head.linear.weight.normal_()
    loss = head.loss(latent, y)
    assert loss.shape == y.shape
    assert (loss[y.isnan()] == 0).all()
    loss.sum().backward()
    assert (latent.grad[-1] == 0).all()
    assert (latent.grad[:-1] != 0).any(1).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_learns_what_the_latent_tells(kind):
    n_classes = LABELS[kind][0]
    latent = torch.randn(60, 2)
    rank = latent[:, 0].argsort().argsort()
    y = {
        "categorical": rank * 3 // 60,
        "ordered": rank * 4 // 60,
        "numeric": 40 + 5 * latent[:, 0],
        "multilabel": torch.stack([latent[:, 0] > 0, latent[:, 1] > 0], dim=1),
    }[kind]
    y = y.float().view(60, -1)
    head = HEADS[kind](2, n_classes)
    head.fit_constants(y)
    before = head.loss(latent, y).mean().item()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        head.loss(latent, y).mean().backward()
        optimizer.step()
    assert head.loss(latent, y).mean().item() < before - 0.4


def test_a_head_begins_with_frequencies():
    y = torch.tensor([[0.0]] * 10 + [[1.0]] * 30 + [[2.0]] * 60)
    head = HEADS["ordered"](2, 3)
    head.fit_constants(y)
    loss = head.loss(torch.randn(100, 2), y)
    np.testing.assert_allclose((-loss[[0, 10, 99], 0]).exp().detach(), [0.1, 0.3, 0.6], atol=0.01)


def test_classes_weigh_inversely_to_their_frequency():
    head = HEADS["categorical"](2, 2)
    head.fit_constants(torch.tensor([[0.0]] * 6 + [[1.0]] * 2))
    np.testing.assert_allclose(head.class_weight, [8 / 12, 2])
    head.fit_constants(torch.tensor([[0.0]] * 999 + [[1.0]]))
    assert head.class_weight[1] == MAX_CLASS_WEIGHT


def test_numbers_have_a_gaussian_likelihood_and_outliers_count_within_limits():
    y = torch.tensor([[10.0], [12.0], [14.0], [16.0], [18.0]])
    head = HEADS["numeric"](1, 0)
    head.fit_constants(y)
    sd = 4 / 1.349  # quartiles 12 and 16
    with torch.no_grad():
        head.log_sd.fill_(0.3)
    expected = -stats.norm(0, np.exp(0.3)).logpdf((y - 14) / sd) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(head.loss(torch.zeros(5, 1), y).detach(), expected, rtol=1e-5)
    outlier = head.loss(torch.zeros(1, 1), torch.tensor([[1e9]]))
    assert outlier.item() < 10


def test_labels_count_equally_however_many_are_known():
    heads = Heads(
        2, [{"kind": "numeric", "n_classes": 0, "width": 1}, {"kind": "categorical", "n_classes": 2, "width": 1}]
    )
    y = torch.tensor([[1.0, 0.0], [2.0, torch.nan], [3.0, torch.nan]])
    heads.fit_constants(y)
    latent = torch.randn(3, 2)
    parts = [head.loss(latent, y[:, [i]]) for i, head in enumerate(heads)]
    assert heads.loss(latent, y).item() == pytest.approx((parts[0].mean() + parts[1][0, 0]).item() / 2)
    assert heads.loss(latent, torch.full_like(y, torch.nan)).item() == 0
