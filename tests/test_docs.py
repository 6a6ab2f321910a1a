"""The documentation names everything public, and every command and block of code in it runs."""

import ast
import re
import shlex
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import scgde
from scgde.cli import main
from scgde.datasets import simulate_clones
from scgde.models import GDE, TDE

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("[!_]*.md"))]

#: Folders with the parts of what is public, whose names are no promise.
PARTS = {"data", "models", "nn"}

#: Commands that install something or check this repository, which a test of it cannot do, and one that another test runs.
NOT_RUN = (
    ".ci/run",
    "mypy",
    "pre-commit ",
    "python -m pip ",
    "python -m pytest",
    "python benchmarks/",
    "ruff ",
    "sphinx-build ",
    "torchrun ",
    "scgde demo",  # tests/test_cli.py runs it
)


def public_names():
    """Names in ``__all__`` of public modules; read, not imported, as some need an extra."""
    package = Path(scgde.__file__).parent
    for file in sorted(package.rglob("*.py")):
        module = file.relative_to(package).with_suffix("").parts
        if module[0] in PARTS or any(part.startswith("_") and part != "__init__" for part in module):
            continue
        found = re.search(r"^__all__ = (\[.*?\])", file.read_text(encoding="utf-8"), flags=re.M | re.S)
        for name in ast.literal_eval(found[1]) if found else []:
            yield ".".join(["scgde", *(part for part in module if part != "__init__"), name])


def test_api_lists_every_public_name():
    listed = re.findall(
        r"^(?: +|.. py:data:: )(scgde\.[\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), flags=re.M
    )
    modules = {name.rpartition(".")[0] for name in listed}
    public = {name for name in public_names() if name not in modules and not name.endswith("__version__")}
    assert len(public) > 50
    assert public <= set(listed)
    assert len(listed) == len(set(listed))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the documentation reads, and training that stops at once."""
    adata, _ = simulate_clones(10, (12, 20), orphan_fraction=0.4, n_truth_cells=1, seed=0)
    donor = adata.obs["clone"].cat.codes.to_numpy() % 4
    adata.X[:, 0] += 3 * donor
    adata.obs["donor"] = np.array([f"donor_{i}" for i in range(4)])[donor]
    adata.obs["disease"] = np.array(["healthy", "ill"])[donor % 2]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    adata.write_h5ad(tmp_path / "clones.h5ad")
    adata.obs["donor"] = "new_" + adata.obs["donor"].astype(str)
    adata.write_h5ad(tmp_path / "new_donors.h5ad")

    for model in (GDE, TDE):
        train = model.train
        monkeypatch.setattr(
            model,
            "train",
            lambda self, *args, train=train, **kwargs: train(self, max_steps=1, enable_progress_bar=False),
        )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_commands(text):
    for line in text.replace("&&", "\n").splitlines():
        command = line.split("#")[0].strip()
        if not command or command.startswith(NOT_RUN):
            continue
        program, *arguments = shlex.split(command)
        assert program == "scgde", f"{command!r} is neither run nor known not to be"
        assert main(arguments) == 0, command


@pytest.mark.usefixtures("folder")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_blocks_run(page):
    """The blocks of a page run in their order, in one namespace."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert {language for language, _ in blocks} <= {"python", "bash"}
    namespace = {}
    for language, text in blocks:
        if language == "bash":
            run_commands(text)
        else:
            exec(compile(text, f"{page.name}:\n{text}", "exec"), namespace)
    plt.close("all")
