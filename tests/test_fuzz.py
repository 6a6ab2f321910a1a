"""Malformed input, by the hundred: each ends in a message of ours, or works, and an AnnData stays as it was.

A message of ours is raised by a line of this package (not by a library that it calls), has at least 20 characters and names
the argument, a column, or the value that was received.
"""

import contextlib
import io
import logging
import traceback
import warnings
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import scgde
from scgde import GDE, TDE
from scgde.cli import main
from scgde.models import _fitting

PACKAGE = Path(scgde.__file__).parent
OURS = (ValueError, TypeError, KeyError, RuntimeError, OSError)

#: Values that are wrong for most arguments.
ODD = {
    "None": None, "negative": -1, "zero": 0, "one": 1, "fraction": 1.5, "nan": float("nan"), "inf": float("inf"), "huge": 10**30,
    "true": True, "empty text": "", "text": "no such thing", "bytes": b"donor", "empty list": [], "list": ["no", "such"],
    "list of None": [None], "nested": [["donor"]], "tuple": ("donor", 3), "dict": {"a": 1}, "empty dict": {}, "set": {"donor"},
    "array": np.arange(3.0), "object": object(), "function": len, "type": int, "frame": pd.DataFrame({"a": [1]}),
    "table column": pd.Series(["a"]), "complex": 1j, "numpy nan": np.float32("nan"),
}  # fmt: skip


def cells(seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(4), 14))
    obs = pd.DataFrame({"donor": [f"d{i}" for i in codes], "day": np.where(codes % 2, "2", "4"), "age": 20.0 + codes})
    obs["lineage"], obs["mass"] = [f"l{i // 2}" for i in codes], 1.0
    obs["library"] = np.array(["a", "b"])[rng.integers(0, 2, len(codes))]
    x = (rng.normal(size=(len(codes), 3)) + codes[:, None]).astype(np.float32)
    adata = AnnData(x, obs=obs.set_axis([f"cell{i}" for i in range(len(codes))]))
    adata.obsm["emb"], adata.layers["raw"] = x.copy(), x.copy()
    return adata


def content(adata):
    """Everything in it, as bytes and plain text."""
    x = adata.X.toarray() if sparse.issparse(adata.X) else np.asarray(adata.X)
    arrays = {name: np.asarray(value).tobytes() for part in (adata.obsm, adata.layers) for name, value in part.items()}
    uns = {name: repr(value) for name, value in adata.uns.items() if not name.startswith("_scvi")}
    return x.tobytes(), str(x.dtype), arrays, uns, adata.obs.copy(), adata.var.copy()


def same(left, right):
    frames = all(a.equals(b) and a.dtypes.equals(b.dtypes) for a, b in zip(left[-2:], right[-2:], strict=True))
    return left[:-2] == right[:-2] and frames


class Reached(Exception):
    """Everything was fine up to the first step."""


def complaint(call, adata=None, *, told=()):
    """What is wrong with how a call ends, or None."""
    before = None if adata is None else content(adata)
    error = None
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            call()
        except Reached:
            pass
        except Exception as raised:  # noqa: BLE001  whatever it is: that is the question
            error = raised
    if error is None:
        return None
    if before is not None and not same(before, content(adata)):
        return f"changed the AnnData before {error!r}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{type(error).__name__} {str(error)[:150]!r} from {frames[-1].filename}:{frames[-1].lineno}"
    if not isinstance(error, OURS) or PACKAGE not in Path(frames[-1].filename).parents:
        return f"not ours: {where}"
    text = str(error.args[0]) if error.args else ""
    if len(text) < 20 or (told and not any(word in text for word in told)):
        return f"says too little: {where}"
    return None


def tries(call, argument, values=None, *, told=()):
    """Complaints about a call with each odd value of an argument; ``call`` takes an AnnData and keyword arguments."""
    found = {}
    for name, value in (ODD if values is None else values).items():
        adata = cells()
        shown = (argument, repr(value)[:60], *told)
        wrong = complaint(lambda a=adata, v=value: call(a, **{argument: v}), adata, told=shown)
        if wrong:
            found[f"{argument}={name}"] = wrong
    return found


@pytest.fixture(autouse=True)
def _silence(monkeypatch):
    monkeypatch.setattr(logging.getLogger("lightning.pytorch.utilities.rank_zero"), "level", logging.ERROR)


def show(found):
    return "\n".join(f"{name}: {wrong}" for name, wrong in found.items())


# --- setup --------------------------------------------------------------------------------------------------------------

SETUP = ["groupby", "use_rep", "layer", "labels", "batch_key", "weight_key", "split_key", "min_cells", "drop_ungrouped"]


@pytest.mark.parametrize("argument", SETUP)
def test_setup_arguments(argument):
    found = tries(lambda adata, **kwargs: GDE.setup_anndata(adata, **{"groupby": "donor", **kwargs}), argument)
    assert not found, show(found)


def test_time_key():
    found = tries(lambda adata, **kwargs: TDE.setup_anndata(adata, "lineage", **kwargs), "time_key")
    assert not found, show(found)


def test_what_is_no_anndata():
    found = {n: complaint(lambda v=v: GDE.setup_anndata(v, "donor"), told=("AnnData",)) for n, v in ODD.items()}
    found = {name: wrong for name, wrong in found.items() if wrong}
    assert not found, show(found)


def spoiled(change):
    adata = cells()
    change(adata)
    return adata


def column(values):
    def change(adata):
        adata.obs["donor"] = values(adata.n_obs)

    return change


def array(values):
    def change(adata):
        adata.X = values(np.asarray(adata.X))

    return change


def put(x, value):
    x = x.copy()
    x[3, 1] = value
    return x


DATA = {
    "columns of lists": column(lambda n: [[1]] * n),
    "columns of arrays": column(lambda n: [np.arange(2)] * n),
    "columns of dicts": column(lambda n: [{}] * n),
    "mixed types": column(lambda n: ([1, "1", 1.0, True] * n)[:n]),
    "text and None": column(lambda n: ["a", None] * (n // 2)),
    "all NaN": column(lambda n: [np.nan] * n),
    "infinite groups": column(lambda n: [np.inf, 1.0] * (n // 2)),
    "one group per cell": column(lambda n: np.arange(n)),
    "complex groups": column(lambda n: np.arange(n) * 1j),
    "times as groups": column(lambda n: pd.date_range("2020", periods=n)),
    "intervals as groups": column(lambda n: pd.cut(np.arange(n), 3)),
    "bytes as groups": column(lambda n: [b"a", b"b"] * (n // 2)),
    "empty text": column(lambda n: ["", "a"] * (n // 2)),
    "categories without cells": column(lambda n: pd.Categorical(["a", "b"] * (n // 2), categories=list("abcdef"))),
    "one of two categories": column(lambda n: pd.Categorical(["a"] * n, categories=["a", "b"])),
    "nullable": column(lambda n: pd.array([1, None] * (n // 2), dtype="Int64")),
    "NaN": array(lambda x: put(x, np.nan)),
    "inf": array(lambda x: put(x, np.inf)),
    "sparse NaN": array(lambda x: sparse.csc_matrix(put(x, np.nan))),
    "text": array(lambda x: x.astype(str).astype(object)),
    "objects": array(lambda x: x.astype(object)),
    "complex": array(lambda x: x.astype(complex)),
    "integers": array(lambda x: x.astype(int)),
    "booleans": array(lambda x: x > 0),
    "constant": array(lambda x: np.zeros_like(x)),
    "huge": array(lambda x: put(x.astype(float), 1e300)),
    "half": array(lambda x: x.astype(np.float16)),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_data(name):
    adata = spoiled(DATA[name])
    wrong = complaint(lambda: GDE.setup_anndata(adata, "donor"), adata)
    assert not wrong, wrong


def test_shapes():
    empty = {"no cells": cells()[:0].copy(), "no variables": cells()[:, :0].copy(), "one cell": cells()[:1].copy()}
    empty["nothing"], empty["no X"] = AnnData(), AnnData(obs=cells().obs)
    doubled = cells()
    doubled.obs_names = ["cell"] * doubled.n_obs
    found = {
        n: complaint(lambda a=a: GDE.setup_anndata(a, "donor"), a) for n, a in {**empty, "same names": doubled}.items()
    }
    found = {name: wrong for name, wrong in found.items() if wrong}
    assert not found, show(found)


MODEL = [
    "encoder",
    "generator",
    "n_latent",
    "n_components",
    "seed",
    "labels_weight",
    "encoder_kwargs",
    "generator_kwargs",
]


def reach(*args, **kwargs):
    raise Reached


@pytest.mark.parametrize("argument", MODEL)
def test_model_arguments(argument, monkeypatch):
    # What the options of networks are is seen when these are made.
    monkeypatch.setattr(*((pl.Trainer, "fit") if argument.endswith("kwargs") else (_fitting, "train")), reach)

    def call(adata, **kwargs):
        GDE.setup_anndata(adata, "donor")
        GDE(adata, **{"n_latent": 4, "n_components": 1, **kwargs}).train(max_steps=1, accelerator="cpu")

    found = tries(call, argument)
    assert not found, show(found)


# --- a trained model ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    adata = cells()
    GDE.setup_anndata(adata, "donor")
    widths = {"encoder_kwargs": {"width": 8}, "generator_kwargs": {"width": 8}}
    trained = GDE(adata, n_latent=4, n_components=1, **widths)
    trained.train(max_steps=2, accelerator="cpu", enable_progress_bar=False)
    return trained


@pytest.fixture
def model(trained, request):
    """Whatever it is asked for, its AnnData stays as it was, but for the results of an embedding that succeeded."""
    before = content(trained.adata)
    yield trained
    if "embedding" not in request.node.name:
        assert same(before, content(trained.adata))


OWN = [
    "max_epochs", "max_steps", "max_seconds", "validation_size", "early_stopping_patience", "batch_size", "cells_per_group",
    "checkpoint_dir", "checkpoint_minutes", "resume_from", "plan_kwargs", "max_step", "callbacks",
]  # fmt: skip
LIGHTNINGS = [
    "accelerator",
    "devices",
    "strategy",
    "precision",
    "gradient_clip_val",
    "accumulate_grad_batches",
    "logger",
]
PLAN = ["lr", "weight_decay", "warmup_steps", "ema_decay", "reconstruction_weight", "labels_weight", "lrr"]
FEW = {name: ODD[name] for name in ("negative", "fraction", "nan", "text", "list", "dict", "object")}


@pytest.mark.parametrize("argument", OWN)
def test_train_arguments(argument, model, monkeypatch, tmp_path):
    monkeypatch.setattr(_fitting, "fit", reach)
    monkeypatch.chdir(tmp_path)
    limits = {} if argument.startswith("max_") else {"max_steps": 1}
    found = tries(lambda _, **kwargs: model.train(**{**limits, **kwargs}), argument)
    assert not found, show(found)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", LIGHTNINGS)
def test_train_arguments_of_lightning(argument, model, monkeypatch):
    monkeypatch.setattr(pl.Trainer, "fit", reach)
    quiet = {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False}
    found = tries(lambda _, **kwargs: model.train(**{**quiet, **kwargs}), argument, FEW)
    assert not found, show(found)


@pytest.mark.parametrize("argument", PLAN)
def test_plan_arguments(argument, model, monkeypatch):
    monkeypatch.setattr(_fitting, "fit", reach)
    found = tries(lambda _, **kwargs: model.train(max_steps=1, plan_kwargs=kwargs), argument)
    assert not found, show(found)


EMBED = ["adata", "return_se", "batch_size", "key_added", "write_obsm"]


@pytest.mark.parametrize("argument", EMBED)
def test_get_group_embedding(argument, model):
    def call(own, /, **kwargs):
        model.get_group_embedding(**{"adata": own, **kwargs})

    found = tries(call, argument)
    assert not found, show(found)


TRANSPORT = [
    "source", "target", "adata", "exact_moments", "space", "return_trajectory", "n_steps", "n_cells", "batch", "trust", "seed",
    "batch_size", "key_added",
]  # fmt: skip


@pytest.mark.parametrize("argument", TRANSPORT)
def test_transport(argument, model):
    def call(own, /, **kwargs):
        model.transport(**{"source": "d0", "target": "d1", "adata": own, **kwargs})

    # A source or a target may be keys, data or an embedding: what it was taken for is named.
    found = tries(call, argument, told=("in the groups (", "Received an embedding", "AnnData"))
    assert not found, show(found)


@pytest.mark.parametrize("name", DATA)
def test_new_data(name, model):
    adata = spoiled(DATA[name])
    for call in (
        lambda: model.get_group_embedding(adata, key_added=None),
        lambda: model.transport("d0", "d1", adata),
    ):
        wrong = complaint(call, adata)
        assert not wrong, wrong


# --- the command line ---------------------------------------------------------------------------------------------------

VALUES = ["", " ", "nothing", "-1", "1.5", "nan", "inf", "1e99", "donor,age", "--", "../x", "é", "donor\n", "0", "/"]
OPTIONS = [
    "--groupby", "--use-rep", "--layer", "--labels", "--batch-key", "--weight-key", "--split-key", "--min-cells", "--n-latent",
    "--max-epochs", "--max-steps", "--max-seconds", "--seed", "--model", "--key-added", "--out", "--checkpoint-dir", "--checkpoint-minutes", "--nonsense",
]  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    cells().write_h5ad(path)
    return path


@pytest.mark.parametrize("option", OPTIONS)
def test_command_line(option, file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(GDE, "train", reach)
    monkeypatch.chdir(tmp_path)
    before = file.read_bytes()
    for value in VALUES:
        command = ["embed", str(file), "--groupby", "donor", "--out", "out.h5ad", option, value]
        try:
            status = main(command)
        except SystemExit as stopped:  # argparse's own refusal
            status = stopped.code
        except Reached:
            status = 0
        said = capsys.readouterr().err
        assert status in (0, 2), (command, said)
        if status == 2:
            assert "error: " in said, (command, said)
            assert "Traceback" not in said, (command, said)
            assert len(said.split("error: ", 1)[1]) > 15, (command, said)
        assert not list(tmp_path.iterdir()), command
    assert file.read_bytes() == before


FILES = {
    "no file": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("cells"),
    "a folder": lambda path: path.mkdir(),
    "cut off": lambda path: (cells().write_h5ad(path), path.write_bytes(path.read_bytes()[:5000])),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "command", [["embed", "--groupby", "donor"], ["transport", "--source-time", "2", "--target-time", "4"]]
)
def test_files_on_the_command_line(name, command, tmp_path, capsys):
    path = tmp_path / "cells.h5ad"
    FILES[name](path)
    assert main([*command[:1], str(path), "--out", str(tmp_path / "out.h5ad"), *command[1:]]) == 2
    said = capsys.readouterr().err
    assert said.startswith("scgde: error: ")
    assert not (tmp_path / "out.h5ad").exists()
