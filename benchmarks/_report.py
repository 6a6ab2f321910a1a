"""What every benchmark shares: its options, results that are kept as they come, and a table with where it ran."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import scgde

#: Measured values by name.
Record = dict[str, float]


def parser(description: str, *, steps: int | None) -> argparse.ArgumentParser:
    """Options of every benchmark: ``--seeds``, ``--steps``, ``--json`` and ``--quick``."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds (default: 0 1 2)")
    options.add_argument("--steps", type=int, default=steps, help=f"training steps (default: {steps or 'by task'})")
    options.add_argument("--json", type=Path, help="file to keep the results in; a later run goes on from it")
    options.add_argument("--quick", action="store_true", help="one seed and little data: does it run?")
    return options


def environment() -> dict[str, Any]:
    """Device, threads, cores and versions: what a number depends on besides the code."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    packages = ("torch", "lightning", "scvi-tools", "anndata", "numpy")
    return {
        "device": device,
        "torch threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "scgde": scgde.__version__,
        **{name: version(name) for name in packages},
    }


class Report:
    """Results by key (a seed, a method), kept in a JSON file as they come and printed as a table.

    Parameters
    ----------
    title
        First line of the output.
    settings
        What else the numbers depend on.
    path
        JSON file, or None. Results that it has are not measured again.
    """

    def __init__(self, title: str, settings: dict[str, Any], path: Path | None) -> None:
        self.head = {"title": title, "settings": settings, "environment": environment()}
        self.path, self.results = path, {}
        if path is not None and path.exists():
            earlier = json.loads(path.read_text())
            self.results = earlier.pop("results")
            if earlier != self.head:
                msg = f"{path} has results of other settings or of another machine: name another file, or delete it."
                raise SystemExit(msg)

    def measure(self, key: str, function: Callable[[], Record]) -> Record:
        """Result of ``key``: the one that is kept, else that of ``function``."""
        if key not in self.results:
            self.results[key] = function()
            if self.path is not None:
                self.path.write_text(json.dumps({**self.head, "results": self.results}, indent=1) + "\n")
        return self.results[key]

    def show(self, by: str = "column") -> None:
        """Print the results.

        Parameters
        ----------
        by
            "column": a column per key, with the median of several. "row": a row per key (methods, mostly).
        """
        print(f"# {self.head['title']}")
        for line in (self.head["settings"], self.head["environment"]):
            print("; ".join(f"{name} {value}" for name, value in line.items()))
        columns = dict(self.results)
        names = list(dict.fromkeys(name for record in columns.values() for name in record))
        if by == "row":
            rows = [["", *names], *([key, *(_number(record.get(n)) for n in names)] for key, record in columns.items())]
            _print(rows)
            return
        if len(columns) > 1:
            columns["median"] = {
                name: statistics.median(record[name] for record in self.results.values() if name in record)
                for name in names
            }
        rows = [["", *columns], *([name, *(_number(c.get(name)) for c in columns.values())] for name in names)]
        _print(rows)


def _print(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))


def _number(value: float | None) -> str:
    """Three significant digits, or as many as the whole part has."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"
