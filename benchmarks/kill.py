"""Kill -9 at random moments, in training and in writing: what goes on, and whether the result is the same.

Training: one process after the other trains the same model with a checkpoint every 0.1 s and is killed at a random
moment; the next one goes on. When a run gets to its end, its weights, embedding and history are compared, bit by bit,
with those of a run that nobody killed, and a new one begins. Writing: a process saves models and AnnData files over and
over in the same place; after each kill both must open, and be one of the two versions that were being written.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import torch
from _report import Record, Report, parser

from scgde import GDE
from scgde._files import write_atomically, write_bytes
from scgde.datasets import simulate_cohort

#: Minutes between checkpoints.
INTERVAL = 0.1 / 60

Result = tuple[dict[str, np.ndarray], bytes, dict[str, list[float]]]


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__.splitlines()[0], steps=400)
    options.add_argument(
        "--kills", type=int, default=20, help="kills in training, and as many in writing (default: 20)"
    )
    args = options.parse_args()
    if args.quick:
        args.seeds, args.steps, args.kills = [0], 60, 3
    settings = {"kills": args.kills, "steps": args.steps, "seed": args.seeds[0], "seconds between checkpoints": 0.1}
    report = Report("Kill -9 at random moments", settings, args.json)
    with tempfile.TemporaryDirectory() as folder:
        for name, measure in (("training", kill_training), ("writing", kill_writing)):
            path = Path(folder) / name
            path.mkdir()
            report.measure(name, lambda m=measure, p=path: m(p, args.kills, args.steps, args.seeds[0]))
    report.show(by="row")
    wrong = sum(record["broken"] + record["different"] for record in report.results.values())
    if wrong:
        msg = f"{wrong:.0f} times something was broken or different."
        raise SystemExit(msg)


def model(seed: int) -> GDE:
    """Untrained, of simulated donors."""
    adata = simulate_cohort(12, (30, 60), n_genes=200, seed=seed)
    GDE.setup_anndata(adata, "donor")
    widths = {"encoder_kwargs": {"width": 16}, "generator_kwargs": {"width": 32}}
    return GDE(adata, n_latent=8, n_components=2, seed=seed, **widths)


def in_child(work: Callable[[], None]) -> int:
    """Start ``work`` in a process of its own; returns its number. It imports nothing anew, and is torn down at once."""
    number = os.fork()
    if number:
        return number
    try:
        torch.set_num_threads(1)
        with Path(os.devnull).open("w") as nowhere:
            for stream in (1, 2):
                os.dup2(nowhere.fileno(), stream)
        warnings.simplefilter("ignore")
        work()
        os._exit(0)
    finally:
        os._exit(1)


def killed_after(number: int, seconds: float) -> bool:
    """Whether the process had to be killed; raises where it failed by itself."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            if status:
                msg = "A process ended with an error by itself."
                raise SystemExit(msg)
            return False
        time.sleep(min(0.002, max(0.0, end - time.monotonic())))
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return True


def train(seed: int, steps: int, folder: Path | None, result: Path) -> None:
    """Train, from a checkpoint where there is one, and keep what came out."""
    trained = model(seed)
    kept = {} if folder is None else {"checkpoint_dir": folder, "checkpoint_minutes": INTERVAL, "resume_from": "auto"}
    trained.train(max_steps=steps, accelerator="cpu", enable_progress_bar=False, **kept)
    state = {name: value.numpy() for name, value in trained.module.state_dict().items()}
    z = trained.get_group_embedding(key_added=None).to_numpy()
    history = {name: frame.iloc[:, 0].tolist() for name, frame in trained.history.items()}
    write_bytes(pickle.dumps((state, z.tobytes(), history)), result)


def same(left: Path, right: Path) -> bool:
    """Whether two results are the same to the last bit."""
    (a, z, history), (b, other, again) = (pickle.loads(path.read_bytes()) for path in (left, right))
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a) and z == other and history == again


def kill_training(folder: Path, kills: int, steps: int, seed: int) -> Record:
    """Kill training; see the top of the file."""
    rng, run, result, whole = np.random.default_rng(seed), folder / "run", folder / "result", folder / "whole"
    started = time.monotonic()
    killed_after(in_child(lambda: train(seed, steps, None, whole)), np.inf)
    length = time.monotonic() - started
    record = dict.fromkeys(("kills", "no checkpoint yet", "in a later process", "finished", "broken", "different"), 0.0)
    last = -1
    while record["kills"] < kills or last != 0:
        # Beyond the wanted number nobody kills: the last run gets to its end as well.
        limit = length * rng.uniform(0.2, 1.0) if record["kills"] < kills else np.inf
        goes_on = (run / "checkpoint.ckpt").exists()
        if killed_after(in_child(lambda: train(seed, steps, run, result)), limit):
            last = 1
            record["kills"] += 1
            record["in a later process"] += goes_on
            record["no checkpoint yet"] += not (run / "checkpoint.ckpt").exists()
            record["broken"] += not opens(run)
        else:
            last = 0
            record["finished"] += 1
            record["different"] += not same(result, whole)
            result.unlink()
            shutil.rmtree(run, ignore_errors=True)
    return record


def opens(run: Path) -> bool:
    """Whether the folder has a checkpoint that opens, or none yet, and nothing but what the next process replaces."""
    names = {path.name for path in run.iterdir()} if run.exists() else set()
    if "checkpoint.ckpt" in names:
        state = torch.load(run / "checkpoint.ckpt", weights_only=True)
        if not all(torch.isfinite(value).all() for value in state["current_model_state"].values()):
            return False
    return names <= {"checkpoint.ckpt", ".checkpoint.ckpt.partial"}


def kill_writing(folder: Path, kills: int, steps: int, seed: int) -> Record:
    """Kill the writing of models and files; see the top of the file."""
    versions = folder / "versions"
    for number in (0, 1):
        killed_after(in_child(lambda n=number: make_version(versions / str(n), seed + n, steps)), np.inf)
    known = [np.load(versions / f"{number}.npy") for number in (0, 1)]
    rng, path, file = np.random.default_rng(seed), folder / "model", folder / "cells.h5ad"
    record = dict.fromkeys(("kills", "nothing written yet", "broken", "different"), 0.0)
    seen: set[Path] = set()
    while record["kills"] < kills:
        if not killed_after(in_child(lambda: write_forever(versions, path, file)), rng.uniform(0.5, 3.0)):
            msg = "The writing process ended."
            raise SystemExit(msg)
        record["kills"] += 1
        there = {name for name in (path, file) if name.exists()}
        record["broken"] += not seen <= there  # what was there has not gone away
        seen = there
        record["nothing written yet"] += len(there) < 2
        if len(there) < 2:
            continue
        adata = anndata.read_h5ad(file)
        z = GDE.load(path, adata=False).get_group_embedding(adata, key_added=None).to_numpy()
        complete = np.isfinite(z).all() and any(np.array_equal(adata.uns["version"], version) for version in known)
        record["different"] += not complete
    return record


def make_version(path: Path, seed: int, steps: int) -> None:
    """A trained model with its data, and the embedding that tells it from others."""
    trained = model(seed)
    trained.train(max_steps=min(steps, 20), accelerator="cpu", enable_progress_bar=False)
    z = trained.get_group_embedding(key_added=None).to_numpy()
    trained.adata.uns["version"] = z
    trained.save(path, save_anndata=True)
    np.save(path.with_suffix(".npy"), z)


def write_forever(versions: Path, path: Path, file: Path) -> None:
    """Save one version after the other in the same place."""
    models = [GDE.load(versions / str(number)) for number in (0, 1)]
    while True:
        for trained in models:
            trained.save(path, overwrite=True)
            write_atomically(trained.adata, file)


if __name__ == "__main__":
    main()
