"""Writing files without leaving anything half written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise unless ``path`` is an .h5ad file that may be written; called before any work.

    Raises
    ------
    ValueError
        For another suffix.
    FileExistsError
        Where ``path`` exists and ``overwrite`` is not set, or is a folder.
    FileNotFoundError
        Where the folder of ``path`` does not exist.
    """
    if path.suffix != ".h5ad":
        msg = f"Cannot write {str(path)!r}: expected a name that ends in .h5ad."
        raise ValueError(msg)
    if path.is_dir() or (path.exists() and not overwrite):
        msg = f"{str(path)!r} exists. Choose another name, or pass overwrite=True to replace a file."
        raise FileExistsError(msg)
    if not path.parent.is_dir():
        msg = f"There is no folder {str(path.parent)!r} to write {path.name!r} to. Make it, or choose another."
        raise FileNotFoundError(msg)


def write_atomically(adata: AnnData, path: Path) -> None:
    """Write an .h5ad file under a temporary name beside ``path``, then rename it; in the first process only."""
    if first_process():
        # Always the same name: what a killed process leaves is replaced by the next one.
        partial = path.with_name(f".{path.name}.partial")
        try:
            adata.write_h5ad(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def first_process() -> bool:
    """Whether this process is the one that writes: the only one, or the first of several that train together."""
    import torch.distributed as dist  # here: ``scgde --help`` does not wait for torch

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    # Before the processes have met: what Lightning sets for those it starts.
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK"))


def write_bytes(content: bytes | memoryview, path: Path) -> None:
    """Write a file under a temporary name beside ``path``, see that it is on the disk, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name: what a killed process leaves is replaced by the next one.
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
