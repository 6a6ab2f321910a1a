"""Runs that are killed go on as if nothing had happened."""

import signal

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

from scgde import GDE, TDE
from scgde._files import write_bytes
from scgde.models import _fitting

OFTEN = 1e-9  # minutes: a checkpoint after every step but the last of an epoch


class Killed(Exception):
    pass


class Kill(pl.Callback):
    """Ends a run, between a step and the next."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise Killed


class Steps(pl.Callback):
    """Which steps were taken, and with which groups."""

    def __init__(self):
        self.steps = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.steps.append(batch.step)


@pytest.fixture
def short_epochs(monkeypatch):
    monkeypatch.setattr(_fitting, "MIN_STEPS_PER_EPOCH", 6)


@pytest.fixture
def fresh(make_adata, tiny):
    """A factory of untrained models, each of an AnnData of its own."""

    def make(options=None, n_vars=4, kind=GDE, **setup):
        torch.set_num_threads(1)
        adata = make_adata(n_cells=24, n_vars=n_vars)
        kind.setup_anndata(adata, "donor", **setup)
        return kind(adata, **{**tiny.options, **(options or {})})

    return make


def assert_same(left, right):
    """Equal to the last bit: weights, embedding, history, and what is fitted afterwards."""
    assert left.steps_ == right.steps_
    for (name, a), b in zip(left.module.state_dict().items(), right.module.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    pd.testing.assert_frame_equal(left.get_group_embedding(), right.get_group_embedding(), check_exact=True)
    assert left.history.keys() == right.history.keys()
    for name, frame in left.history.items():
        pd.testing.assert_frame_equal(frame, right.history[name], check_exact=True)


CASES = {
    "plain": ({}, {}, {}),
    "in the first epoch": ({"at": 3}, {}, {}),
    "early stopping": ({"max_steps": 60, "at": 15}, {"early_stopping_patience": 2, "plan_kwargs": {"lr": 5e-2}}, {}),
    "dropout": ({"options": {"generator_kwargs": {"width": 32, "dropout": 0.3}}}, {}, {}),
    "labels, weights and batches": ({"options": {"labels_weight": 1.0}}, {}, {"labels": ["age"], "weight_key": "mass", "batch_key": "library"}),
    "components": ({"n_vars": 60}, {"validation_size": 0.3}, {}),
    "accumulated gradients": ({"at": 8}, {"accumulate_grad_batches": 2}, {}),
    "no early stopping": ({}, {"early_stopping": False}, {}),
}  # fmt: skip


@pytest.mark.parametrize(("case", "train", "setup"), CASES.values(), ids=CASES.keys())
def test_a_killed_run_goes_on(fresh, tiny, tmp_path, short_epochs, case, train, setup):
    case = {"max_steps": 20, "at": 9, "options": {}, "n_vars": 4, **case}
    train = {"max_steps": case["max_steps"], **tiny.train, **train}
    whole, killed, again = (fresh(case["options"], case["n_vars"], **setup) for _ in range(3))
    whole.train(**train)
    checkpoints = {"checkpoint_dir": tmp_path / "run", "checkpoint_minutes": OFTEN}
    with pytest.raises(Killed):
        killed.train(**train, **checkpoints, callbacks=[Kill(case["at"])])
    assert not killed.is_trained_
    steps = Steps()
    again.train(**train, resume_from=tmp_path / "run", callbacks=[steps])
    assert_same(whole, again)
    assert whole.steps_ < case["max_steps"] or "early_stopping_patience" not in train
    # What was done is not done again, but for the last step of an epoch.
    repeated = case["at"] * train.get("accumulate_grad_batches", 1) - steps.steps[0]
    assert 0 <= repeated <= 1
    assert np.diff(steps.steps).tolist() == [1] * (len(steps.steps) - 1)


def test_killed_twice_with_auto(fresh, tiny, tmp_path, short_epochs):
    whole = fresh()
    whole.train(max_steps=20, **tiny.train)
    options = {"checkpoint_dir": tmp_path / "run", "checkpoint_minutes": OFTEN, "resume_from": "auto"}
    for at in (4, 15):
        with pytest.raises(Killed):
            fresh().train(max_steps=20, **options, callbacks=[Kill(at)], **tiny.train)
    last = fresh()
    last.train(max_steps=20, **options, **tiny.train)
    assert_same(whole, last)


def test_a_later_call_of_train(fresh, tiny, tmp_path):
    """The checkpoint has what earlier calls did: a new model goes on from it as well."""
    whole, killed, again = fresh(), fresh(), fresh()
    for model in (whole, killed):
        model.train(max_steps=7, **tiny.train)
    whole.train(max_steps=9, **tiny.train)
    with pytest.raises(Killed):
        killed.train(max_steps=9, checkpoint_dir=tmp_path, checkpoint_minutes=OFTEN, callbacks=[Kill(5)], **tiny.train)
    again.train(max_steps=9, resume_from=tmp_path / "checkpoint.ckpt", **tiny.train)
    assert again.steps_ == 16
    assert_same(whole, again)


def test_transport(fresh, tiny, tmp_path):
    whole, killed, again = (fresh({"method": "flow"}, kind=TDE) for _ in range(3))
    whole.train(max_steps=9, **tiny.train)
    with pytest.raises(Killed):
        killed.train(max_steps=9, checkpoint_dir=tmp_path, checkpoint_minutes=OFTEN, callbacks=[Kill(5)], **tiny.train)
    again.train(max_steps=9, resume_from=tmp_path, **tiny.train)
    assert_same(whole, again)


def test_checkpoints_change_nothing_and_keep_their_interval(fresh, tiny, tmp_path):
    plain, kept = fresh(), fresh()
    plain.train(max_steps=9, **tiny.train)
    kept.train(max_steps=9, checkpoint_dir=tmp_path / "new" / "run", checkpoint_minutes=60, **tiny.train)
    assert_same(plain, kept)
    assert not (tmp_path / "new").exists()  # none was due
    fresh().train(max_steps=9, checkpoint_dir=tmp_path / "new" / "run", checkpoint_minutes=OFTEN, **tiny.train)
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == ["checkpoint.ckpt"]


def test_seconds_count_over_processes(fresh, tiny, tmp_path):
    """The clock of the killed process is taken up: the remaining time is short."""
    options = {"max_seconds": 3600, "early_stopping": False, **tiny.train}
    with pytest.raises(Killed):
        fresh().train(**options, checkpoint_dir=tmp_path, checkpoint_minutes=OFTEN, callbacks=[Kill(5)])
    path = tmp_path / "checkpoint.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert 0 < checkpoint["scgde"]["seconds"] < 60
    checkpoint["scgde"]["seconds"] = 3600
    checkpoint["callbacks"]["Timer"]["time_elapsed"]["train"] = 3600
    torch.save(checkpoint, path)
    model = fresh()
    model.train(**options, resume_from=path)
    assert model.steps_ == 5  # that of the checkpoint, and one more


# --- what is refused ----------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(fresh, tiny, tmp_path):
    fresh().train(max_steps=5, checkpoint_dir=tmp_path / "run", checkpoint_minutes=OFTEN, **tiny.train)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("train", "options", "setup", "message"),
    [
        ({"max_steps": 6}, {}, {}, "max_steps was 5 and is now 6"),
        ({"batch_size": 2}, {}, {}, "batch_size was 32 and is now 2"),
        ({"plan_kwargs": {"lr": 1}}, {}, {}, "plan_kwargs was {} and is now {'lr': 1}"),
        ({"precision": "bf16-mixed"}, {}, {}, "precision was None and is now bf16-mixed"),
        ({}, {"seed": 1}, {}, "seed was 0 and is now 1"),
        ({}, {}, {"weight_key": "mass"}, "weights was 0 and is now"),
        ({"validation_size": 0.5}, {}, {}, "the split was .* and is now"),
    ],
)
def test_another_run(fresh, tiny, checkpoint, train, options, setup, message):
    model = fresh(options, **setup)
    with pytest.raises(ValueError, match=f"belongs to another run: {message}.* the same data and arguments"):
        model.train(**{"max_steps": 5, **train}, resume_from=checkpoint, **tiny.train)
    assert not model.is_trained_


def test_other_data(fresh, tiny, checkpoint):
    model = fresh()
    model.adata.X[0] += 1
    GDE.setup_anndata(model.adata, "donor")
    with pytest.raises(ValueError, match="the data was .* and is now"):
        GDE(model.adata, **tiny.options).train(max_steps=5, resume_from=checkpoint, **tiny.train)


def test_an_earlier_run_is_not_overwritten(fresh, checkpoint):
    before = (checkpoint / "checkpoint.ckpt").read_bytes()
    with pytest.raises(FileExistsError, match="earlier run. Pass resume_from='auto' to go on from it, or delete it"):
        fresh().train(max_steps=5, checkpoint_dir=checkpoint)
    assert (checkpoint / "checkpoint.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"resume_from": "nowhere"}, FileNotFoundError, "no checkpoint 'nowhere'"),
        ({"resume_from": "auto"}, ValueError, "checkpoint_dir=: pass that too"),
        ({"checkpoint_dir": "run", "checkpoint_minutes": 0}, ValueError, "checkpoint_minutes=0"),
        ({"checkpoint_dir": __file__}, ValueError, "is a file: name a folder"),
        ({"resume_from": __file__}, ValueError, "is no checkpoint of"),
    ],
)
def test_arguments(fresh, arguments, error, message):
    with pytest.raises(error, match=message):
        fresh().train(max_steps=5, **arguments)


def test_a_truncated_file(fresh, checkpoint):
    file = checkpoint / "checkpoint.ckpt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"checkpoint\.ckpt' is no checkpoint of"):
        fresh().train(max_steps=5, resume_from=checkpoint)


# --- failures -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(monkeypatch):
    """A disk that takes no file of more than some bytes, as the operating system has it."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails, and does not kill
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_file_before(disk, tmp_path):
    path = tmp_path / "file"
    write_bytes(b"before", path)
    disk(1000)
    with pytest.raises(OSError, match="File too large"):
        write_bytes(b"x" * 2000, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_last_checkpoint(fresh, tiny, tmp_path, disk):
    class Fill(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 4:
                disk(1000)
            if trainer.global_step == 6:
                raise Killed

    options = {"max_steps": 9, **tiny.train}
    whole, again = fresh(), fresh()
    whole.train(**options)
    message = r"step 5 could not be written to .*File too large.*goes on; the last good checkpoint is that of step 4"
    with pytest.raises(Killed), pytest.warns(UserWarning, match=message):
        fresh().train(**options, checkpoint_dir=tmp_path, checkpoint_minutes=OFTEN, callbacks=[Fill()])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.ckpt"]
    assert torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)["global_step"] == 4
    again.train(**options, resume_from=tmp_path)
    assert_same(whole, again)


class Spoil(pl.Callback):
    """Weights that go wrong, before a step or after it."""

    def __init__(self, step, *, after):
        self.step, self.after = step, after

    def spoil(self, trainer, pl_module):
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(pl_module.module.generator.parameters()).fill_(np.nan)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not self.after:
            self.spoil(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.after:
            self.spoil(trainer, pl_module)


@pytest.mark.parametrize(("after", "what"), [(False, "The loss is nan"), (True, "The weights are not finite")])
def test_what_is_not_finite_stops(fresh, tiny, tmp_path, after, what):
    options = {"max_steps": 9, "checkpoint_dir": tmp_path, "checkpoint_minutes": OFTEN, **tiny.train}
    model = fresh()
    with pytest.raises(RuntimeError, match=f"{what} at step 5 .*groups 'donor_") as raised:
        model.train(**options, callbacks=[Spoil(5, after=after)])
    last = 5 if not after else 4
    assert f"{str(tmp_path / 'checkpoint.ckpt')!r}, the last good checkpoint is that of step {last}" in str(
        raised.value
    )
    assert not model.is_trained_
    state = torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)
    assert state["global_step"] == last
    assert all(value.isfinite().all() for value in state["current_model_state"].values())


def test_the_checkpoint_holds_no_data(fresh, tiny, tmp_path):
    model = fresh(labels=["disease"], n_vars=60)
    model.train(max_steps=5, checkpoint_dir=tmp_path, checkpoint_minutes=OFTEN, **tiny.train)
    content = (tmp_path / "checkpoint.ckpt").read_bytes()
    for word in (b"donor_", b"cell1"):
        assert word not in content
    assert model.adata.X[0].tobytes() not in content
