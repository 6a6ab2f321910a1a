"""Trains a small model in one process and in two together, and writes what each of them saw to OUT/1 and OUT/2.

The two are started as torchrun does it, but forked: what takes long in a test is to import torch.
"""

import json
import os
import socket
import sys
import traceback
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scgde import GDE


class Seen(pl.Callback):
    """Groups of each step."""

    def __init__(self):
        self.groups = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.groups.append(batch.group[: len(batch.x_score)].tolist())


def run(out, devices):
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat(np.arange(8), 30))
    x = rng.normal(size=(240, 4)) + 2 * rng.normal(size=(8, 4))[codes]
    obs = pd.DataFrame({"donor": [f"d{i}" for i in codes], "age": np.where(codes == 3, np.nan, 20.0 + codes)})
    obs["disease"] = np.where(codes % 3, "ill", "healthy")
    adata = AnnData(x.astype(np.float32), obs=obs.set_axis([f"c{i}" for i in range(240)]))
    GDE.setup_anndata(adata, "donor", labels=["age", "disease"])
    widths = {"encoder_kwargs": {"width": 16}, "generator_kwargs": {"width": 32}}
    model = GDE(adata, n_latent=6, n_components=2, labels_weight=1.0, **widths)
    seen = Seen()
    model.train(
        max_steps=10,
        batch_size=4,
        accelerator="cpu",
        devices=devices,
        checkpoint_dir=out / "run",
        checkpoint_minutes=1e-9,
        callbacks=[seen],
        enable_progress_bar=False,
    )
    rank = torch.distributed.get_rank() if devices > 1 else 0
    history = {name: frame.iloc[:, 0].tolist() for name, frame in model.history.items()}
    z = model.get_group_embedding().to_numpy().tolist()
    (out / f"rank{rank}.json").write_text(json.dumps({"groups": seen.groups, "history": history, "z": z}))
    model.save(out / "model")


def start(out, devices, environment):
    """A process that trains; its number."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            os.environ.update(environment)
            run(out, devices)
            code = 0
        except BaseException:  # noqa: BLE001  it must not go on as its parent does
            traceback.print_exc()
        finally:
            os._exit(code)
    return number


def main(out):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for devices in (1, 2):
        (out / str(devices)).mkdir()
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    numbers = [start(out / "2", 2, {**place, "LOCAL_RANK": str(rank)}) for rank in (0, 1)]
    numbers.append(start(out / "1", 1, {}))
    return max(os.waitpid(number, 0)[1] for number in numbers) > 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
