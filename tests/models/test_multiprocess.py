"""Two processes that train together do what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scgde import GDE
from scgde.models._devices import chosen_devices

SCRIPT = Path(__file__).with_name("train_on_devices.py")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("auto",), (1, "auto", 1)),
        ((1, "ddp"), (1, "ddp", 1)),
        (([2],), ([2], "auto", 1)),
        ((2,), (2, "ddp", 1)),
        ((1, "auto", 2), (1, "ddp", 2)),
        ((2, "ddp_find_unused_parameters_true"), (2, "ddp_find_unused_parameters_true", 1)),
    ],
)
def test_one_device_unless_several_are_asked_for(arguments, expected):
    assert tuple(chosen_devices(*arguments).values()) == expected


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_notebook", "fsdp", "dp"])
def test_strategies_that_do_not_work(strategy):
    with pytest.raises(ValueError, match=f"strategy='{strategy}' cannot train this model. Pass strategy='ddp'"):
        chosen_devices(2, strategy)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one process and what two processes have seen and written, by rank."""
    if not hasattr(os, "fork"):
        pytest.skip("the processes are forked")
    out = tmp_path_factory.mktemp("devices")
    command = [sys.executable, str(SCRIPT), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return {
        n: (out / str(n), [json.loads((out / str(n) / f"rank{rank}.json").read_text()) for rank in range(n)])
        for n in (1, 2)
    }


@pytest.mark.multiprocess
def test_groups_are_shared(runs):
    (_, [one]), (_, [first, second]) = runs[1], runs[2]
    assert len(one["groups"]) == len(first["groups"]) == len(second["groups"]) == 10
    for whole, left, right in zip(one["groups"], first["groups"], second["groups"], strict=True):
        assert len(left) == len(right) == 2
        assert sorted(left + right) == sorted(whole)


@pytest.mark.multiprocess
def test_the_result_is_that_of_one_process(runs):
    """Up to the order in which numbers are added: float32, 10 steps."""
    (_, [one]), (_, [first, second]) = runs[1], runs[2]
    assert one["history"].keys() == first["history"].keys() >= {"train_loss", "train_loss_labels", "validation_loss"}
    for name, values in one["history"].items():
        np.testing.assert_allclose(first["history"][name], values, rtol=1e-4)
    np.testing.assert_allclose(first["z"], one["z"], rtol=1e-3, atol=1e-3)
    assert first["z"] == second["z"]
    assert first["history"] == second["history"]


@pytest.mark.multiprocess
def test_files_are_written_once(runs):
    out, _ = runs[2]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        "model/model.pt", "rank0.json", "rank1.json", "run/checkpoint.ckpt",
    ]  # fmt: skip
    assert GDE.load(out / "model", adata=False).steps_ == 10
