"""Saving without leaving anything half written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scgde._files import first_process


def save_atomically(save: Callable[..., None], dir_path: str | Path, *, overwrite: bool = False, **kwargs: Any) -> None:
    """Call ``save`` on a temporary folder beside ``dir_path`` and rename the result; in the first process only.

    Parameters
    ----------
    save
        Writes to the folder that it is given.
    dir_path
        The folder that is to hold the files in the end.
    **kwargs
        Passed on.
    overwrite
        Whether ``dir_path`` may exist; each of its files is then replaced at once.

    Raises
    ------
    FileExistsError
        Where ``dir_path`` exists and ``overwrite`` is not set.
    """
    if not first_process():
        return
    target = Path(dir_path)
    if target.exists() and not overwrite:
        msg = f"{str(target)!r} exists. Choose another folder, or pass overwrite=True."
        raise FileExistsError(msg)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name: what a killed process leaves is replaced by the next one.
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        written = partial / target.name
        save(str(written), overwrite=False, **kwargs)
        if not target.exists():
            written.rename(target)
            return
        # The data of another model must not stay beside this one.
        (target / f"{kwargs.get('prefix') or ''}adata.h5ad").unlink(missing_ok=True)
        for file in written.iterdir():
            file.replace(target / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
