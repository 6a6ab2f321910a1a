"""Every benchmark runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"

#: Scripts, and those among them that read the real data sets.
SCRIPTS = [
    "clt.py",
    "donors_real.py",
    "donors_simulated.py",
    "few_steps.py",
    "forecast_clones.py",
    "forecast_toy.py",
    "generate_cells.py",
    "generate_counts.py",
    "generate_populations.py",
    "gpu.py",
    "group_weighting.py",
    "large_group.py",
    "profile_step.py",
    "scale.py",
    "latent_geometry.py",
    "throughput.py",
    "time_interpolation.py",
    "transport_cells.py",
    "transport_populations.py",
    "two_groups.py",
]
REAL_DATA = {"donors_real.py", "generate_cells.py", "time_interpolation.py", "transport_cells.py"}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_quick(script, tmp_path, request):
    if script in REAL_DATA:
        request.getfixturevalue("data_dir")
    command = [sys.executable, str(FOLDER / script), "--quick", "--json", str(tmp_path / "results.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# ")
    assert list(tmp_path.glob("results*.json"))
