"""Fixtures that every test may use."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _seed():
    """The library draws nothing from global state; the tests themselves and the dependencies may."""
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the small real data sets, which are not part of the repository."""
    folder = os.environ.get("SCGDE_DATA")
    if not folder:
        pytest.skip("the environment variable SCGDE_DATA names no folder of real data sets")
    if not Path(folder).is_dir():
        msg = f"SCGDE_DATA={folder!r} is not a folder: unset it to skip the tests on real data"
        raise NotADirectoryError(msg)
    return Path(folder)
