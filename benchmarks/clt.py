"""Central limit theorem of embeddings: slope, normality and coverage of standard errors, for every encoder and pooling.

Populations are known exactly: the cells of a group (simulated, held out from training) or all real cells, of which sets
are drawn with replacement. A set is given by how often each cell was drawn, which is the same to an embedding. On real
cells there are half-splits of donors too, whose halves have the same embedding but for chance.
"""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

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
from scgde.uncertainty._regions import region_shapes

#: Training populations; populations held out from training and their cells; replicates of each; trials of coverage.
N_TRAINING, N_HELD_OUT, N_CELLS, N_REPLICATES, N_TRIALS = 300, 40, 500, 100, 2000

#: Cells of a set. Normality and coverage are judged from 100 on.
SIZES = (10, 100, 1000, 10_000)

#: Encoders with networks, judged on real cells.
NEURAL = ("resnet", "deepsets", "attention")

#: Leading entries of the embedding that are judged, and size of the code, of which all is judged.
N_LEADING = 5

#: Sets of real cells in memory at a time, and cells of any sets at a time: small networks on few cells take their time
#: for everything but the cells.
N_AT_ONCE, BATCH_SIZE = 50, 16_384

#: Cells of each half of a donor, and trials of half-splits and of draws from all real cells: the largest sets take the
#: most time.
HALVES, N_SPLITS, REAL_TRIALS = (100, 250), 1000, {100: 1000, 1000: 1000, 10_000: 500}


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
    encoding = encode_groups(module, x, sets, n_sets, weight=counts, batch_size=BATCH_SIZE)
    return module.embedding(encoding.coordinates, encoding.code).numpy()


def coverage(error: np.ndarray, groups: Dispersion) -> tuple[float, float]:
    """Shares of marginal 95% intervals, and of F-corrected 95% regions, that hold the population's value."""
    covariance = groups.covariance
    se = np.sqrt(np.einsum("nii->ni", covariance))
    marginal = (np.abs(error) <= t.ppf(0.975, groups.df) * se).mean()
    inverse = np.linalg.pinv(region_shapes(groups, 0.95), hermitian=True)
    region = np.einsum("ni,nij,nj->n", error, inverse, error) <= 1
    return 100 * float(marginal), 100 * float(region.mean())


def spread_of(module, x, sets, counts, n_sets, part: slice) -> Dispersion:
    """How the embeddings of sets vary, by their cells alone."""
    options = {"counts": True, "entries": part, "degrees": True, "batch_size": BATCH_SIZE}
    return dispersion(module, x, sets, n_sets, weight=counts, **options)


def populations(module, groups: list[np.ndarray], m: int, part: slice, n_replicates: int, n_trials: int, rng) -> tuple:
    """Draw sets of ``m`` cells of each population: errors of embeddings, and coverage in each population's trials."""
    errors, covered, n = [], [], n_trials // len(groups)
    for x in groups:
        truth = embed(module, x, np.zeros(len(x), dtype=int), np.ones(len(x)), 1)
        cells, sets, counts = draw(x, m, n_replicates, rng)
        errors.append((embed(module, cells, sets, counts, n_replicates) - truth)[:, part])
        if n:
            some = sets < n
            cells, sets, counts = cells[some], sets[some], counts[some]
            found = spread_of(module, cells, sets, counts, n, part)
            covered.append(coverage(errors[-1][:n], found))
    return np.stack(errors), covered


def train(adata: ad.AnnData, seed: int, steps: int, **options: Any) -> GDE:
    """A trained model, in silence."""
    model = GDE(adata, seed=seed, **options)
    model.train(max_steps=steps, accelerator="cpu", enable_progress_bar=False)
    return model


def measure(model: GDE, held_out: list[np.ndarray], part: slice, seed: int, n_replicates: int, n_trials: int) -> Record:
    """Judge the embeddings of populations that were held out."""
    spread, normal, covered, rng = [], [], {}, np.random.default_rng([seed, 1])
    for m in SIZES:
        trials = n_trials if m >= 100 else 0
        errors, own = populations(model.module, held_out, m, part, n_replicates, trials, rng)
        spread.append(errors.std(1).ravel())
        if m >= 100:
            normal += [shapiro(e).pvalue < 0.05 for group in errors for e in group.T]
            covered[m] = np.mean(own, axis=0)
    # The slope of each group and entry.
    slope = np.polyfit(np.log(SIZES[1:]), np.log(np.array(spread)[1:]), 1)[0]
    return {
        "slope, m>=100": float(slope.mean()),
        "Shapiro-Wilk rejections (%)": 100 * float(np.mean(normal)),
        **coverages(covered),
    }


def coverages(covered: dict[int, np.ndarray]) -> Record:
    """Names of the measured coverages."""
    kinds = ("marginal intervals", "F-corrected regions")
    return {f"{kind}, m={m} (%)": float(value[i]) for i, kind in enumerate(kinds) for m, value in covered.items()}


def measure_real(model: GDE, m: int, part: slice, seed: int, n_trials: int) -> Record:
    """Draws of ``m`` cells with replacement from all cells of real donors as the population."""
    x, rng = np.asarray(model.adata.obsm["X_pca"], dtype=np.float32), np.random.default_rng([seed, m])
    module, found = model.module, []
    truth = embed(module, x, np.zeros(len(x), dtype=int), np.ones(len(x)), 1)[:, part]
    for _ in range(0, n_trials, N_AT_ONCE):
        cells, sets, counts = draw(x, m, N_AT_ONCE, rng)
        error = embed(module, cells, sets, counts, N_AT_ONCE)[:, part] - truth
        found.append(coverage(error, spread_of(module, cells, sets, counts, N_AT_ONCE, part)))
    return coverages({m: np.mean(found, axis=0)})


def measure_halves(model: GDE, m: int, part: slice, seed: int, n_trials: int) -> Record:
    """Two sets of ``m`` different cells of a donor, each donor in turn: coverage of 0 by their difference."""
    x, rng = np.asarray(model.adata.obsm["X_pca"], dtype=np.float32), np.random.default_rng([seed, m, 1])
    donors = [np.flatnonzero(model.adata.obs["donor"] == name) for name in model.adata.obs["donor"].unique()]
    sets, found = np.repeat(np.arange(2 * N_AT_ONCE), m), []
    for start in range(0, n_trials, N_AT_ONCE):
        own = [rng.permutation(donors[(start + i) % len(donors)])[: 2 * m] for i in range(N_AT_ONCE)]
        cells, ones = x[np.concatenate(own)], np.ones(len(sets))
        z = embed(model.module, cells, sets, ones, 2 * N_AT_ONCE)[:, part]
        spread = spread_of(model.module, cells, sets, ones, 2 * N_AT_ONCE, part)
        found.append(held_by_both(z, spread))
    return coverages({m: np.mean(found, axis=0)})


def held_by_both(z: np.ndarray, spread: Dispersion) -> tuple[float, float]:
    """Coverage of 0 by the difference between each set and the next one."""
    assert spread.df is not None
    error, covariance = z[::2] - z[1::2], spread.covariance
    variance = np.einsum("nii->ni", covariance)
    a, b = variance[::2], variance[1::2]
    # Welch & Satterthwaite.
    df = (a + b) ** 2 / (a**2 / spread.df[::2] + b**2 / spread.df[1::2])
    marginal = (np.abs(error) <= t.ppf(0.975, df) * np.sqrt(a + b)).mean()
    degrees = spread.n_effective - 1
    table = hotelling(error, covariance[::2], covariance[1::2], degrees[::2], degrees[1::2])
    return 100 * float(marginal), 100 * float((table["p_value"] >= 0.05).mean())


def measure_covid(report: Report, real: ad.AnnData, encoders: list[str], seed: int, steps: int, *, quick: bool) -> None:
    """Statistics and codes of real cells; a code has :data:`N_LEADING` entries."""
    judged: list[tuple[str, str, int, dict]] = [("statistics", "moments", 1, {})]
    if not quick:
        judged += [(name, name, steps, {"n_latent": 4 * N_LEADING}) for name in NEURAL if name in encoders]
    sizes, halves = (REAL_TRIALS, dict.fromkeys(HALVES, N_SPLITS)) if not quick else ({100: 1}, {100: 1})
    for label, encoder, n_steps, options in judged:
        wanted = {f"COVID {label}, m={m} {seed}": (measure_real, m, n) for m, n in sizes.items()}
        wanted |= {f"COVID {label}, halves of {m} {seed}": (measure_halves, m, n) for m, n in halves.items()}
        if all(key in report.results for key in wanted):
            continue
        model = train(real, seed, n_steps, encoder=encoder, **options)
        first = 0 if label == "statistics" else model.module.n_coordinates
        part = slice(first, first + N_LEADING)
        for key, (judge, m, n) in wanted.items():
            report.measure(key, partial(judge, model, m, part, seed, n))


def main() -> None:
    """Measure the statistics and every encoder, then real cells where there are any."""
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
    path = Path(os.environ.get("SCGDE_DATA", "")) / "covid_pbmc_20donors.h5ad"
    real = ad.read_h5ad(path) if path.exists() else None
    if real is not None:
        GDE.setup_anndata(real, groupby="donor", use_rep="X_pca")
    sizes = {"n_latent": 4 * N_LEADING, "n_components": 5}
    for seed in arguments.seeds:
        # The statistics are closed form, and the same with every encoder: that of the cheapest one is not looked at.
        if real is not None:
            measure_covid(report, real, arguments.encoders, seed, arguments.steps, quick=arguments.quick)
        statistics = train(adata, seed, 1, encoder="moments", **sizes)
        judge = partial(measure, held_out=held_out, seed=seed, n_replicates=n_replicates, n_trials=n_trials)
        report.measure(f"statistics {seed}", partial(judge, statistics, part=slice(N_LEADING)))
        for name, kwargs in cases():
            key = " ".join([name, *([kwargs["pooling"]] if "pooling" in kwargs else []), str(seed)])
            if name not in arguments.encoders or key in report.results:
                continue
            model = train(adata, seed, arguments.steps, encoder=name, encoder_kwargs=kwargs, **sizes)
            report.measure(key, partial(judge, model, part=slice(model.module.n_coordinates, None)))
    report.show()


if __name__ == "__main__":
    main()
