"""The command line, in process, on small data."""

import subprocess
import sys
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scgde
from scgde import GDE
from scgde.cli import main
from scgde.datasets import simulate_clones

TRAIN = ["--max-steps", "2", "--n-latent", "6"]


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat(np.arange(5), 24))
    x = rng.normal(size=(120, 4)) + 2 * rng.normal(size=(5, 4))[codes]
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical([f"d{i}" for i in codes]),
            "disease": np.array(["healthy", "ill"])[codes % 2],
            "library": np.array(["a", "b"])[rng.integers(0, 2, 120)],
            "quality": rng.uniform(size=120),
        },
        index=[f"cell{i}" for i in range(120)],
    )
    adata = AnnData(x.astype(np.float32), obs=obs, layers={"counts": rng.integers(0, 50, (120, 4)).astype(float)})
    adata.obsm["X_small"] = adata.X[:, :2].copy()
    return adata


@pytest.fixture
def file(cells, tmp_path):
    path = tmp_path / "cells.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture
def embed(file, tmp_path):
    """Run ``scgde embed`` on the file; returns the exit status and the output's path."""

    def run(*options, groupby="donor", out="out.h5ad", name=file):
        groups = [] if groupby is None else ["--groupby", groupby]
        return main(["embed", str(name), *groups, "--out", str(tmp_path / out), *options]), tmp_path / out

    return run


@pytest.fixture
def recorded(monkeypatch):
    """What the command passes to a model that only notes it down."""
    calls = {}

    class Recorder:
        def __init__(self, adata, **kwargs):
            calls["model"] = kwargs

        @staticmethod
        def setup_anndata(adata, **kwargs):
            calls["setup"] = kwargs

        def train(self, **kwargs):
            calls["train"] = kwargs

        def get_group_embedding(self, **kwargs):
            calls["embed"] = kwargs
            return pd.DataFrame(np.zeros((1, 1)))

    monkeypatch.setattr(scgde, "GDE", Recorder)
    return calls


def test_embedding_is_that_of_the_library(embed, cells, capsys):
    status, out = embed("--seed", "3", "--labels", "disease", *TRAIN)
    printed = capsys.readouterr()
    assert status == 0
    assert "5 groups of 120 cells in 6 dimensions" in printed.out
    assert str(out) in printed.out
    written, reference = anndata.read_h5ad(out), cells.copy()
    GDE.setup_anndata(reference, groupby="donor", labels=["disease"])
    model = GDE(reference, n_latent=6, seed=3)
    model.train(max_steps=2, enable_progress_bar=False)
    z = model.get_group_embedding()
    np.testing.assert_allclose(written.uns["gde"]["embedding"], z, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(written.obsm["X_gde"], written.uns["gde"]["embedding"][cells.obs["donor"].cat.codes])
    groups = written.uns["gde"]["groups"]
    assert groups["donor"].tolist() == z.index.tolist()
    assert groups["disease"].tolist() == ["healthy", "ill", "healthy", "ill", "healthy"]
    pd.testing.assert_frame_equal(written.obs, cells.obs)


def test_saved_model_embeds_without_training(embed, tmp_path, monkeypatch):
    assert embed("--save-model", str(tmp_path / "model"), *TRAIN)[0] == 0
    monkeypatch.setattr(GDE, "train", None)
    status, out = embed("--model", str(tmp_path / "model"), "--key-added", "again", groupby=None, out="again.h5ad")
    assert status == 0
    first, again = anndata.read_h5ad(tmp_path / "out.h5ad"), anndata.read_h5ad(out)
    np.testing.assert_allclose(first.obsm["X_gde"], again.obsm["X_again"], rtol=1e-5, atol=1e-6)


def test_only_given_options_are_passed(embed, recorded):
    assert embed()[0] == 0
    assert recorded == {"setup": {"groupby": "donor"}, "model": {}, "train": {}, "embed": {"key_added": "gde"}}


def test_every_option_is_passed(embed, recorded):
    options = "--groupby library --use-rep X_small --layer counts --labels a b --batch-key c --weight-key d "
    options += "--split-key e --min-cells 3 --drop-ungrouped --n-latent 7 --max-epochs 4 --max-steps 5 "
    options += "--max-seconds 6.5 --seed 2 --key-added k"
    assert embed(*options.split())[0] == 0
    assert recorded["setup"] == {
        "groupby": ["donor", "library"],
        "use_rep": "X_small",
        "layer": "counts",
        "labels": ["a", "b"],
        "batch_key": "c",
        "weight_key": "d",
        "split_key": "e",
        "min_cells": 3,
        "drop_ungrouped": True,
    }
    assert recorded["model"] == {"n_latent": 7, "seed": 2}
    assert recorded["train"] == {"max_epochs": 4, "max_steps": 5, "max_seconds": 6.5}
    assert recorded["embed"] == {"key_added": "k"}


@pytest.mark.parametrize(
    ("options", "groupby", "said"),
    [
        ([], "doner", "Did you mean 'donor'?"),
        (["--min-cells", "2"], "quality", "fewer than --min-cells 2 cells"),
        ([], None, "--groupby is missing"),
        (["--use-rep", "X_smal"], "donor", "adata.obsm (--use-rep)"),
        (["--use-rep", "X_small", "--layer", "counts"], "donor", "--use-rep 'X_small' and --layer 'counts'"),
        (["--labels", "quality"], "donor", "not constant within 5 of 5 groups"),
        (["--max-steps", "0"], "donor", "--max-steps 0: expected an integer of at least 1"),
        (["--n-latent", "1"], "donor", "--n-latent 1 is too small"),
        (["--model", "nowhere"], None, "There is no saved model at 'nowhere'"),
        (["--model", "."], "donor", "leave out --groupby with --model"),
        (["--model", ".", "--seed", "1"], None, "leave out --seed with --model"),
    ],
)
def test_bad_input_is_said_in_one_line(embed, capsys, options, groupby, said):
    status, out = embed(*options, groupby=groupby)
    error = capsys.readouterr().err.strip()
    assert status == 2
    assert error.startswith("scgde: error: ")
    assert "\n" not in error
    assert said in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "out", "said"),
    [
        ("absent.h5ad", "out.h5ad", "There is no file"),
        ("cells.h5ad", "out.txt", "ends in .h5ad"),
        ("cells.h5ad", "absent/out.h5ad", "There is no folder"),
        ("cells.h5ad", "cells.h5ad", "pass --overwrite to replace"),
    ],
)
def test_paths_are_checked_before_any_work(embed, file, capsys, monkeypatch, name, out, said):
    monkeypatch.setattr(anndata, "read_h5ad", None)
    before = file.read_bytes()
    assert embed(name=file.with_name(name), out=out)[0] == 2
    assert said in capsys.readouterr().err
    assert file.read_bytes() == before


def test_folder_of_the_model_is_checked_before_any_work(embed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(anndata, "read_h5ad", None)
    assert embed("--save-model", str(tmp_path))[0] == 2
    assert "Choose another folder for --save-model" in capsys.readouterr().err


def test_what_is_not_h5ad_is_said(embed, file, capsys):
    file.write_text("donor,gene\n")
    assert embed()[0] == 2
    assert "scgde: error: " in capsys.readouterr().err


@pytest.mark.usefixtures("recorded")
def test_overwrite_replaces_the_input_itself(embed, file, cells):
    assert embed("--overwrite", out=file.name)[0] == 0
    assert anndata.read_h5ad(file).shape == cells.shape


@pytest.mark.usefixtures("recorded")
def test_failed_write_leaves_the_old_file(embed, file, monkeypatch, capsys):
    def fail(adata, path):
        path.write_bytes(b"half")
        msg = "disk full"
        raise OSError(msg)

    before = file.read_bytes()
    monkeypatch.setattr(AnnData, "write_h5ad", fail)
    assert embed("--overwrite", out=file.name)[0] == 2
    assert "disk full" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_traceback_on_demand(embed):
    with pytest.raises(KeyError, match="doner"):
        embed("--traceback", groupby="doner")


def test_warnings_are_said_in_one_line(embed, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert embed("--layer", "counts", *TRAIN)[0] == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("scgde: warning: ")]
    assert len(lines) == 1
    assert "looks like raw counts" in lines[0]


@pytest.mark.parametrize("value", ["-1", "1.5", "two"])
def test_counts_are_checked(embed, capsys, value):
    with pytest.raises(SystemExit, match="2"):
        embed("--seed", value)
    assert f"expected an integer of at least 0, received {value!r}" in capsys.readouterr().err


def test_help_and_version_do_not_wait_for_torch():
    code = (
        "import sys, scgde.cli\n"
        "try: scgde.cli.main(['--help'])\n"
        "except SystemExit: print('torch' in sys.modules, 'anndata' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "demo" in printed
    assert "embed" in printed
    assert printed.endswith("False False\n")
    command = [sys.executable, "-m", "scgde", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"scgde {scgde.__version__}\n"


def test_names_of_the_package():
    assert dir(scgde) == sorted(scgde.__all__)
    assert all(hasattr(scgde, name) for name in scgde.__all__)
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        scgde.absent  # noqa: B018


def test_demo_writes_and_prints(tmp_path, capsys):
    assert main(["demo", "--quick", "--out", str(tmp_path / "new" / "demo"), "--seed", "1"]) == 0
    folder = tmp_path / "new" / "demo"
    assert sorted(p.name for p in folder.iterdir()) == ["cells.png", "demo.h5ad", "donors.png", "training.png"]
    adata = anndata.read_h5ad(folder / "demo.h5ad")
    assert adata.obsm["X_gde"].shape == (adata.n_obs, 128)
    assert set(adata.uns["gde"]["groups"]["disease"]) == {"healthy", "disease"}
    printed = capsys.readouterr().out
    values = {
        line.rsplit(maxsplit=1)[0].strip(): float(line.split()[-1]) for line in printed.splitlines() if _row(line)
    }
    assert len(values) == 6  # "the same without the learned part" is there twice
    assert values["the donor's own other cells (as good as it gets)"] < values["cells of another donor"]
    assert printed.count("the learned part ") == 4
    assert "Trained for 20 of at most 20 steps" in printed
    assert str(folder) in printed


def _row(line):
    return line.startswith("  ") and line.split()[-1].replace(".", "").replace("-", "").isdigit()


def test_demo_holds_cells_out_of_every_donor():
    from scgde._demo import HELD_OUT, hold_out

    cohort = scgde.datasets.simulate_cohort(6, (40, 80), seed=0)
    train, held_out = hold_out(cohort, seed=0)
    assert sorted([*train.obs_names, *held_out.obs_names]) == sorted(cohort.obs_names)
    share = held_out.obs["donor"].value_counts() / cohort.obs["donor"].value_counts()
    np.testing.assert_allclose(share, HELD_OUT, atol=0.02)


@pytest.mark.parametrize(
    ("gain", "said"), [([1.0, 1.2, 0.9], "helps"), ([-1.0, -1.2, -0.9], "makes it worse"), ([1.0, -1.0], "no clear")]
)
def test_demo_says_whether_the_learned_part_helps(gain, said):
    from scgde._demo import verdict

    assert said in verdict(pd.Series(gain))


def test_transport_forecasts_orphans(tmp_path, capsys):
    observed, _ = simulate_clones(30, (10, 20), orphan_fraction=0.5, n_truth_cells=2, seed=0)
    observed.write_h5ad(tmp_path / "clones.h5ad")
    options = [
        "--groupby",
        "clone",
        "--time-key",
        "day",
        "--source-time",
        "4",
        "--target-time",
        "6",
        "--max-steps",
        "3",
    ]
    out = tmp_path / "later.h5ad"
    assert main(["transport", str(tmp_path / "clones.h5ad"), *options, "--out", str(out)]) == 0
    assert "Squared error of the predicted embedding" in capsys.readouterr().out
    cells = anndata.read_h5ad(out)
    assert (cells.obs["target"] == "6").all()
    seen = set(observed.obs["clone"][(observed.obs["day"] == "6").to_numpy()])
    assert not set(cells.uns["forecast"]["groups"]["clone"]) & seen
    assert len(cells.uns["forecast"]["embedding"]) == len(cells.uns["forecast"]["groups"])


def test_transport_needs_a_time(tmp_path, capsys):
    observed, _ = simulate_clones(10, (5, 9), n_truth_cells=2, seed=0)
    observed.write_h5ad(tmp_path / "clones.h5ad")
    options = ["--groupby", "clone", "--source-time", "4", "--target-time", "6"]
    assert main(["transport", str(tmp_path / "clones.h5ad"), *options, "--out", str(tmp_path / "o.h5ad")]) == 2
    assert "--time-key is missing" in capsys.readouterr().err
