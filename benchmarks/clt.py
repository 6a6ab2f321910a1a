"""Central limit theorem of embeddings: slope, normality and coverage of standard errors, for every encoder and pooling.

Populations are known exactly: the cells of a group (simulated, held out from training) or all real cells, of which sets
are drawn with replacement. A set is given by how often each cell was drawn, which is the same to an embedding.
"""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from collections import defaultdict
from pathlib import Path

import anndata as ad
import numpy as np
from _report import Record, Report, parser
from scipy.stats import shapiro, t

from scgde import GDE
from scgde.datasets import simulate_populations
from scgde.models._inference import encode_groups
from scgde.models._influence import Dispersion, dispersion
from scgde.nn.encoders import ENCODERS, POOLINGS
from scgde.uncertainty import hotelling

#: Training populations; populations held out from training and their cells; replicates of each; trials of coverage.
N_TRAINING, N_HELD_OUT, N_CELLS, N_REPLICATES, N_TRIALS = 300, 40, 500, 100, 2000

#: Cells of a set. Normality and coverage are judged from 100 on.
SIZES = (10, 100, 1000, 10_000)

#: Leading entries of the embedding that are judged, and size of the code, of which all is judged.
N_LEADING = 5

#: Sets of real cells in memory at a time.
N_AT_ONCE = 40


def cases() -> list[tuple[str, dict]]:
    """Encoders, and poolings of the neural ones."""
    found = []
    for name in ENCODERS:
        known = inspect.signature(ENCODERS[name].__init__).parameters
        options = {"width": 32} if "width" in known else {}
        poolings = [{"pooling": pooling} for pooling in POOLINGS] if "pooling" in known else [{}]
        found += [(name, {**options, **pooling}) for pooling in poolings]
    return found


def draw(x: np.ndarray, m: int, n_sets: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sets of ``m`` cells of a population: cells that were drawn, their sets, and how often they were drawn."""
    counts = rng.multinomial(m, np.full(len(x), 1 / len(x)), size=n_sets)
    sets, rows = np.nonzero(counts)
    return x[rows], sets, counts[sets, rows]


def embed(module, x, sets, counts, n_sets) -> np.ndarray:
    """Embeddings of sets, float64."""
    encoding = encode_groups(module, x, sets, n_sets, weight=counts)
    return module.embedding(encoding.coordinates, encoding.code).numpy()


def coverage(error: np.ndarray, groups: Dispersion) -> tuple[float, float]:
    """Shares of marginal 95% intervals, and of F-corrected 95% regions, that hold the population's value."""
    covariance = groups.covariance
    se = np.sqrt(np.einsum("nii->ni", covariance))
    marginal = (np.abs(error) <= t.ppf(0.975, groups.df) * se).mean()
    table = hotelling(error, covariance, 0 * covariance, groups.joint_df, np.full(len(error), np.inf))
    return 100 * float(marginal), 100 * float((table["p_value"] >= 0.05).mean())


def populations(module, groups: list[np.ndarray], m: int, n_replicates: int, n_trials: int, rng) -> tuple:
    """Draw sets of ``m`` cells of each population: errors of embeddings, and those of the trials, part by part."""
    errors, trials = [], defaultdict(list)
    for x in groups:
        truth = embed(module, x, np.zeros(len(x), dtype=int), np.ones(len(x)), 1)
        cells, sets, counts = draw(x, m, n_replicates, rng)
        errors.append(embed(module, cells, sets, counts, n_replicates) - truth)
        n = n_trials // len(groups)
        if n:
            some = sets < n
            cells, sets, counts = cells[some], sets[some], counts[some]
            for part, own in parts(module).items():
                found = dispersion(module, cells, sets, n, weight=counts, counts=True, entries=own, degrees=True)
                trials[part].append((errors[-1][:n], found))
    return np.stack(errors), trials


def parts(module) -> dict[str, slice]:
    """Entries of the embedding that are judged together."""
    n_coordinates = module.n_coordinates
    return {"z": slice(N_LEADING), "code": slice(n_coordinates, n_coordinates + N_LEADING)}


def measure(name: str, options: dict, adata, held_out, seed: int, steps: int, n_replicates: int, n_trials) -> Record:
    """Train on populations, and judge the embeddings of others."""
    model = GDE(adata, encoder=name, encoder_kwargs=options, n_latent=4 * N_LEADING, n_components=5, seed=seed)
    model.train(max_steps=steps, accelerator="cpu", enable_progress_bar=False)
    module, rng = model.module, np.random.default_rng([seed, 1])
    spread, normal = defaultdict(list), defaultdict(list)
    record: Record = {}
    for m in SIZES:
        errors, trials = populations(module, held_out, m, n_replicates, n_trials if m >= 100 else 0, rng)
        for part, own in parts(module).items():
            judged = errors[:, :, own]
            spread[part].append(judged.std(1))
            if m >= 100:
                normal[part] += [shapiro(e).pvalue < 0.05 for group in judged for e in group.T if e.std() > 0]
                covered = [coverage(error[:, own], found) for error, found in trials[part]]
                marginal, region = np.mean(covered, axis=0)
                record |= {f"{part}: marginal, m={m} (%)": marginal, f"{part}: region, m={m} (%)": region}
    first: Record = {}
    for part in parts(module):
        # The slope of each group and entry; entries that do not vary have none.
        sd = np.array(spread[part])[1:].reshape(len(SIZES) - 1, -1)
        slopes = np.polyfit(np.log(SIZES[1:]), np.log(sd[:, (sd > 0).all(0)]), 1)[0]
        first[f"{part}: slope, m>=100"] = float(slopes.mean())
        first[f"{part}: Shapiro-Wilk rejections (%)"] = 100 * float(np.mean(normal[part]))
    return {**first, **record}


def measure_real(path: Path, seed: int, steps: int, n_trials: int) -> Record:
    """Draws with replacement from all cells of real donors as the population: leading entries of z, default model."""
    adata = ad.read_h5ad(path)
    GDE.setup_anndata(adata, groupby="donor", use_rep="X_pca")
    model = GDE(adata, seed=seed)
    model.train(max_steps=steps, accelerator="cpu", enable_progress_bar=False)
    module, x, rng = model.module, np.asarray(adata.obsm["X_pca"], dtype=np.float32), np.random.default_rng([seed, 2])
    leading = slice(N_LEADING)
    truth = embed(module, x, np.zeros(len(x), dtype=int), np.ones(len(x)), 1)[:, leading]
    record: Record = {}
    for m in SIZES[1:]:
        covered = []
        for _ in range(0, n_trials, N_AT_ONCE):
            cells, sets, counts = draw(x, m, N_AT_ONCE, rng)
            error = embed(module, cells, sets, counts, N_AT_ONCE)[:, leading] - truth
            found = dispersion(
                module, cells, sets, N_AT_ONCE, weight=counts, counts=True, entries=leading, degrees=True
            )
            covered.append(coverage(error, found))
        marginal, region = np.mean(covered, axis=0)
        record |= {f"z: marginal, m={m} (%)": marginal, f"z: region, m={m} (%)": region}
    return record


def main() -> None:
    """Measure every encoder, then real cells where there are any."""
    options = parser(__doc__.splitlines()[0], steps=300)
    options.add_argument("--encoders", nargs="+", default=list(ENCODERS), help="encoders (default: all)")
    options.set_defaults(seeds=[0])
    arguments = options.parse_args()
    n_replicates, n_trials, n_held_out = N_REPLICATES, N_TRIALS, N_HELD_OUT
    if arguments.quick:
        n_replicates, n_trials, n_held_out = 20, 40, 4
        arguments.steps, arguments.seeds = min(20, arguments.steps), arguments.seeds[:1]
    # Lightning's remarks on the machine are not results.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    settings = {
        "populations": "mixture2",
        "training groups": N_TRAINING,
        "held-out groups": n_held_out,
        "replicates": n_replicates,
        "trials per m": n_trials,
        "steps": arguments.steps,
    }
    report = Report("Central limit theorem of embeddings", settings, arguments.json)
    adata = simulate_populations("mixture2", N_TRAINING, 200, seed=0)
    GDE.setup_anndata(adata, groupby="group", use_rep="X")
    held_out = list(simulate_populations("mixture2", n_held_out, N_CELLS, seed=9001).X.reshape(n_held_out, N_CELLS, -1))
    steps = arguments.steps
    for seed in arguments.seeds:
        for name, kwargs in cases():
            if name in arguments.encoders:
                key = " ".join([name, kwargs.get("pooling", ""), str(seed)]).replace("  ", " ")
                report.measure(
                    key,
                    lambda name=name, kwargs=kwargs, seed=seed: measure(
                        name, kwargs, adata, held_out, seed, steps, n_replicates, n_trials
                    ),
                )
    path = Path(os.environ.get("SCGDE_DATA", "")) / "covid_pbmc_20donors.h5ad"
    if path.exists():
        for seed in arguments.seeds:
            report.measure(f"COVID {seed}", lambda seed=seed: measure_real(path, seed, steps, n_trials))
    report.show()


if __name__ == "__main__":
    main()
