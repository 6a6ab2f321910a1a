"""Budgets, early stopping, failures, and what reaches Lightning."""

import tempfile
import time

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

from scgde import GDE, TDE
from scgde.models import _fitting


class Recorder(pl.Callback):
    """Weights after every validation, losses, and learning rates."""

    def __init__(self):
        self.steps, self.rates, self.averages, self.losses = 0, [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps += 1
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_batch_end(self, trainer, pl_module, *args):
        # Validation runs on the averaged weights.
        self.averages.append(torch.cat([p.detach().flatten() for p in pl_module.parameters()]).clone())

    def on_validation_end(self, trainer, pl_module):
        self.losses.append(float(trainer.callback_metrics["validation_loss"]))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.module.parameters()])


@pytest.mark.parametrize(
    ("limits", "steps"), [({"max_steps": 7}, 7), ({"max_epochs": 2}, 100), ({"max_epochs": 3, "max_steps": 60}, 60)]
)
def test_budget_of_steps_and_epochs(make_adata, make_model, limits, steps):
    recorder = Recorder()
    model = make_model(make_adata(), train={"max_steps": None, **limits, "callbacks": [recorder]})
    assert recorder.steps == model.steps_ == steps
    assert f"trained for {steps} steps" in repr(model)
    assert len(model.history["train_loss"]) == -(-steps // 50)
    assert recorder.rates[-1] < 0.1 * max(recorder.rates) or steps < 50  # it decays towards the end of the budget


def test_budget_of_seconds(make_adata, make_model):
    adata, recorder = make_adata(), Recorder()
    make_model(adata)  # the first training of a process is slow
    started = time.monotonic()
    make_model(adata, train={"max_steps": None, "max_seconds": 1.5, "early_stopping": False, "callbacks": [recorder]})
    assert 1.5 < time.monotonic() - started < 8
    assert recorder.steps > 5
    assert recorder.rates[-1] < 0.2 * max(recorder.rates)


@pytest.fixture
def short_epochs(monkeypatch):
    """Epochs of 10 steps where cells are few."""
    monkeypatch.setattr(_fitting, "MIN_STEPS_PER_EPOCH", 10)


def test_default_budget(make_adata, make_model, short_epochs):
    recorder = Recorder()
    make_model(make_adata(), train={"max_steps": None, "early_stopping": False, "callbacks": [recorder]})
    assert recorder.steps == 15 * 10


def test_an_epoch_shows_each_cell_once(make_adata, make_model):
    adata = make_adata(n_groups=4, n_cells=300)
    model = make_model(adata, train={"max_steps": None, "max_epochs": 1, "batch_size": 2, "cells_per_group": 32})
    assert model.steps_ == -(-4 * 270 // (2 * 8))  # a tenth is held out; 2 groups x 8 cells are scored in a step


def test_training_again_continues(make_adata, make_model, tiny):
    recorder = Recorder()
    model = make_model(make_adata(), train={"max_steps": 100})
    before, first = weights(model).clone(), model.history["train_loss"].copy()
    mean = model.module.statistics.mean.clone()
    model.train(max_steps=50, callbacks=[recorder], **tiny.train)
    assert model.steps_ == 150
    assert recorder.steps == 50
    assert model.history["train_loss"].index.tolist() == [0, 1, 2]
    assert model.history["validation_loss"].index.tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(model.history["train_loss"][:2], first)
    assert torch.equal(model.module.statistics.mean, mean)  # the coordinates keep their meaning
    assert 0 < (weights(model) - before).abs().max() < 0.2


def test_training_learns_what_the_statistics_do_not_say(make_adata, make_model):
    """Two clouds 12 units apart, and statistics of a single Gaussian, which puts a quarter of the cells in the gap."""
    adata = make_adata(n_groups=4, n_cells=200, n_vars=2)
    adata.X[:, 0] += np.where(np.arange(adata.n_obs) % 2, 6, -6)
    center = adata.X[(adata.obs["donor"] == "donor_0").to_numpy(), 0].mean()
    shares = []
    for steps in (1, 150):
        train = {"plan_kwargs": {"lr": 1e-2, "ema_decay": 0.95}}
        model = make_model(adata, steps=steps, train=train, options={"n_components": 1, "n_latent": 4})
        shares.append((np.abs(model.sample("donor_0").X[:, 0] - center) < 2).mean())
    assert shares[0] > 0.15
    assert shares[1] < 0.05
    for name in ("train_loss", "validation_loss"):
        assert model.history[name][name].is_monotonic_decreasing


def test_early_stopping_goes_back_to_the_averaged_weights_of_the_best_epoch(make_adata, make_model, short_epochs):
    recorder = Recorder()
    train = {"max_steps": 40 * 10, "early_stopping_patience": 2, "callbacks": [recorder]}
    # Few cells and a high learning rate: it overfits.
    model = make_model(make_adata(n_cells=60), train={**train, "plan_kwargs": {"lr": 1e-2, "ema_decay": 0.9}})
    best = int(np.argmin(recorder.losses))
    assert 0 < best < len(recorder.losses) - 1
    assert len(recorder.losses) == best + 3 < 40
    np.testing.assert_allclose(model.history["validation_loss"]["validation_loss"], recorder.losses, rtol=1e-6)
    assert torch.equal(weights(model), recorder.averages[best])


def test_without_early_stopping_the_last_averaged_weights_stay(make_adata, make_model, short_epochs):
    recorder = Recorder()
    plan = {"lr": 2e-2, "ema_decay": 0.9}
    train = {"max_steps": 60, "early_stopping": False, "callbacks": [recorder], "plan_kwargs": plan}
    model = make_model(make_adata(n_cells=12), train=train)
    assert recorder.steps == 60
    assert torch.equal(weights(model), recorder.averages[-1])


def test_too_high_a_learning_rate_says_so(make_adata, tiny):
    adata = make_adata()
    GDE.setup_anndata(adata, "donor")
    model = GDE(adata, **tiny.options)
    message = r"The loss is (nan|inf) at step \d+ \(groups 'donor_\d', .*\).*lower the learning rate.*plan_kwargs"
    with pytest.raises(RuntimeError, match=message):
        model.train(max_steps=200, plan_kwargs={"lr": 1e12, "warmup_steps": 1}, gradient_clip_val=None, **tiny.train)
    assert not model.is_trained_
    assert "not trained" in repr(model)
    model.train(max_steps=3, **tiny.train)
    assert np.isfinite(model.get_group_embedding()).all(axis=None)


def test_failed_training_leaves_the_model_as_it_was(make_adata, make_model, monkeypatch, tiny):
    model = make_model(make_adata())
    before, history = model.get_group_embedding(), model.history["train_loss"].copy()

    class Fault(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 5:
                raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        model.train(max_steps=10, plan_kwargs={"lr": 1e-1}, callbacks=[Fault()], **tiny.train)
    pd.testing.assert_frame_equal(model.get_group_embedding(), before, check_exact=True)
    pd.testing.assert_frame_equal(model.history["train_loss"], history)
    assert model.steps_ == 3


def test_options_reach_lightning(make_adata, make_model, tmp_path):
    class Look(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            self.trainer, self.optimizer = trainer, trainer.optimizers[0]

    look = Look()
    options = {
        "precision": "bf16-mixed",
        "accumulate_grad_batches": 2,
        "gradient_clip_val": 0.5,
        "log_every_n_steps": 1,
    }
    plan = {"lr": 3e-3, "weight_decay": 0.2, "warmup_steps": 1}
    make_model(make_adata(), train={"callbacks": [look], "plan_kwargs": plan, **options})
    assert look.trainer.precision == "bf16-mixed"
    assert look.trainer.accumulate_grad_batches == 2
    assert look.trainer.gradient_clip_val == 0.5
    assert look.optimizer.defaults["lr"] == 3e-3
    assert look.optimizer.defaults["weight_decay"] == 0.2


def test_unknown_options_are_no_secret(make_adata, make_model):
    with pytest.raises(TypeError, match="learning_rate"):
        make_model(make_adata(), train={"plan_kwargs": {"learning_rate": 1}})
    with pytest.raises(TypeError, match="max_step"):
        make_model(make_adata(), train={"max_step": 3})


def test_nothing_is_left_behind(make_adata, make_model, tmp_path, monkeypatch):
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    model = make_model(make_adata())
    model.get_group_embedding()
    model.sample("donor_0", 3)
    assert list(tmp_path.rglob("*")) == [here, temporary]


def test_lightning_has_nothing_to_complain_about(make_adata, make_model, recwarn, tiny):
    make_model(make_adata()).train(max_steps=2, **tiny.train)
    make_model(make_adata(n_cells=3))  # nothing to validate on
    assert [str(warning.message) for warning in recwarn if "lightning" in warning.filename] == []


def test_dropout_follows_the_seed(make_adata, make_model):
    embeddings = []
    for state in (1, 2):
        torch.manual_seed(state)
        options = {"generator_kwargs": {"width": 32, "dropout": 0.3}}
        embeddings.append(make_model(make_adata(), options=options).get_group_embedding())
    pd.testing.assert_frame_equal(*embeddings, check_exact=True)


def test_progress_bar(make_adata, make_model, capsys):
    make_model(make_adata(), train={"enable_progress_bar": True})
    captured = capsys.readouterr()
    assert "train_loss" in captured.out + captured.err
    assert "v_num" not in captured.out + captured.err


@pytest.mark.parametrize("encoder", ["resnet", "deepsets"])
@pytest.mark.parametrize("n_latent", [2, 5, 40])
def test_size_of_the_embedding(make_adata, make_model, encoder, n_latent):
    model = make_model(make_adata(), options={"encoder": encoder, "n_latent": n_latent})
    assert model.get_group_embedding().shape == (6, n_latent)
    assert 1 <= model.module.n_coordinates < n_latent


@pytest.mark.parametrize(("model", "n_latent", "most"), [(GDE, 128, 40), (GDE, 64, 24), (TDE, 128, 20), (GDE, 8, 20)])
def test_many_components_need_weights_that_fit_in_the_embedding(make_adata, monkeypatch, model, n_latent, most):
    """In the embedding of a transport they are not even wanted."""
    asked = []
    fit = _fitting.fit_shared_mixture

    def watched(*args, max_components, **kwargs):
        asked.append(max_components)
        return fit(*args, max_components=max_components, **kwargs)

    monkeypatch.setattr(_fitting, "fit_shared_mixture", watched)
    adata = make_adata()
    model.setup_anndata(adata, "donor")
    model(adata, n_latent=n_latent).train(max_steps=1, enable_progress_bar=False)
    assert asked == [most]
