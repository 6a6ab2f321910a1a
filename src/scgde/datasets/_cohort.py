"""Simulated single-cell cohorts: donors with a label that acts on their cells through named channels only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack

from ._cohort_genes import CELL_TYPES, MIN_GENES, PROGRAMMES, CohortGenes, cohort_genes

CHANNELS = ("composition", "shift", "covariance", "rare", "none")

_TYPE_NAMES = list(CELL_TYPES)
_LABELS = ["healthy", "disease"]
_TARGET_TOTAL = 2000.0  # median library size, and the total that counts are normalised to
_RARE_SHARE = 0.01

# Streams of random numbers: the donors' design does not depend on the channels, nor do labels on their noise.
_DESIGN, _NOISE, _DONOR = range(3)


class _Donor(NamedTuple):
    donor: str
    diseased: bool
    batch: int
    age: float
    n_cells: int


def simulate_cohort(
    n_donors: int = 60,
    n_cells: tuple[int, int] = (100, 600),
    *,
    n_genes: int = 500,
    channel: str | Sequence[str] = ("composition", "shift"),
    effect_size: float = 1.0,
    label_noise: float = 0.0,
    n_batches: int = 2,
    seed: int = 0,
) -> AnnData:
    """Simulate a cohort of healthy and diseased donors, as sparse counts.

    A donor has a random composition (Dirichlet), random scores of gene programmes in each cell type and random shifts
    of each gene; a cell has its own programme scores and library size; counts are negative binomial. Half of the donors
    are diseased, in every batch, and the disease acts only through the named channels.

    Parameters
    ----------
    n_donors
        Number of donors, at least two for each batch.
    n_cells
        Smallest and largest number of cells of a donor (log-uniform between them).
    n_genes
        Number of genes. Genes, cell types and batches are the same for all seeds, so that another seed gives new donors
        of the same population.
    channel
        One or several of :data:`CHANNELS`.

        - ``composition``: the odds of "CD14 monocyte" are multiplied by exp(1.2 `effect_size`);
        - ``shift``: in "CD4 T" the score of the programme "interferon" rises by `effect_size` (the counts of all other
          genes keep their law; normalised by the larger total, they fall slightly);
        - ``covariance``: in "CD8 T" the scores of "activation" and "stress" correlate by tanh(`effect_size`) in disease
          and by the negative of it in health; proportions and the law of every single gene stay the same;
        - ``rare``: a share 0.01 `effect_size` of a diseased donor's cells, all of them "B" in `cell_type`, express the
          programme "emergent" (never more than half of its "B" cells); `.obs["rare_state"]` marks them;
        - ``none``: nothing.
    effect_size
        Strength of every channel; 0 is no effect.
    label_noise
        Probability that the recorded label of a donor is the wrong one.
    n_batches
        Number of batches. Each donor is in one of them, and each multiplies the expression of every gene.
    seed
        Non-negative integer; the cohort is a function of it.

    Returns
    -------
    AnnData with `.layers["counts"]` (integer CSR); X = log1p(counts / total of the cell x 2,000) (float32, CSR);
    `.obs` with ``donor``, ``disease`` ("healthy", "disease"), ``age`` (years; lowers the share of "CD8 T" a little,
    unrelated to the disease), ``batch`` and ``cell_type``; `.var["gene_set"]`; and the settings in
    `.uns["simulate_cohort"]`.

    Raises
    ------
    ValueError
        For unknown channels and for numbers out of range.
    """
    channels = (channel,) if isinstance(channel, str) else tuple(channel)
    low, high = n_cells
    _check(channels, n_donors, low, high, n_genes, effect_size, label_noise, n_batches)
    genes = cohort_genes(n_genes, n_batches)
    donors = _design(n_donors, low, high, n_batches, np.random.default_rng([seed, _DESIGN]))
    effects = {name: effect_size * (name in channels) for name in CHANNELS}
    draws = [
        _draw_donor(donor, effects, genes, np.random.default_rng([seed, _DONOR, i])) for i, donor in enumerate(donors)
    ]
    flipped = np.random.default_rng([seed, _NOISE]).random(n_donors) < label_noise
    recorded = [donor._replace(diseased=donor.diseased != flip) for donor, flip in zip(donors, flipped, strict=True)]
    settings = {
        "n_donors": n_donors,
        "min_cells": low,
        "max_cells": high,
        "n_genes": n_genes,
        "channel": "+".join(channels),
        "effect_size": effect_size,
        "label_noise": label_noise,
        "n_batches": n_batches,
        "seed": seed,
    }
    return _assemble(pd.DataFrame(recorded), draws, genes, settings)


def _check(
    channels: tuple[str, ...],
    n_donors: int,
    low: int,
    high: int,
    n_genes: int,
    effect_size: float,
    label_noise: float,
    n_batches: int,
) -> None:
    unknown = [name for name in channels if name not in CHANNELS]
    if unknown or not channels:
        msg = f"channel={channels!r} names {unknown or 'nothing'}: choose one or several of {CHANNELS}."
        raise ValueError(msg)
    requirements = {
        f"n_batches={n_batches} must be at least 1": n_batches >= 1,
        f"n_donors={n_donors} must be at least {2 * n_batches}, so that each batch holds both labels": (
            n_donors >= 2 * n_batches
        ),
        f"n_cells={(low, high)} must be (smallest, largest) with 1 <= smallest <= largest": 1 <= low <= high,
        f"n_genes={n_genes} must be at least {MIN_GENES}, the markers and programmes": n_genes >= MIN_GENES,
        f"effect_size={effect_size} must be between 0 and 10": 0 <= effect_size <= 10,
        f"label_noise={label_noise} must be a probability": 0 <= label_noise <= 1,
    }
    broken = [text for text, holds in requirements.items() if not holds]
    if broken:
        msg = "; ".join(broken) + "."
        raise ValueError(msg)


def _design(n_donors: int, low: int, high: int, n_batches: int, rng: np.random.Generator) -> list[_Donor]:
    order = rng.permutation(n_donors)
    ages = rng.normal(52, 14, n_donors).clip(20, 90).round()
    sizes = np.exp(rng.uniform(np.log(low), np.log(high), n_donors)).round().astype(int)
    width = len(str(n_donors - 1))
    return [
        _Donor(f"donor_{i:0{width}d}", bool(rank % 2), int(rank) // 2 % n_batches, float(age), int(size))
        for i, (rank, age, size) in enumerate(zip(order, ages, sizes, strict=True))
    ]


def _draw_donor(
    donor: _Donor, effects: dict[str, float], genes: CohortGenes, rng: np.random.Generator
) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    """Draw one donor: counts (cells, genes), cell type of each cell, and whether it is in the rare state."""
    proportions = _proportions(donor, effects, rng)
    n_types, n_genes = genes.base.shape
    donor_scores = 0.3 * rng.standard_normal((n_types, len(PROGRAMMES)))
    gene_shift = 0.1 * rng.standard_normal((n_genes,))[genes.twin] + genes.batch_shift[donor.batch]

    cell_type = rng.choice(n_types, donor.n_cells, p=proportions)
    scores = donor_scores[cell_type] + _cell_scores(cell_type, donor.diseased, effects, rng)
    rare = _rare_cells(cell_type, proportions, effects["rare"] * donor.diseased, rng)
    scores[:, PROGRAMMES.index("emergent")] = 4.0 * rare

    library = _TARGET_TOTAL * np.exp(0.3 * rng.standard_normal((donor.n_cells, 1)))
    rate = library * genes.base[cell_type] * np.exp(scores @ genes.loadings + gene_shift)
    gamma = rng.standard_gamma(genes.inverse_dispersion, rate.shape) / genes.inverse_dispersion
    return csr_matrix(rng.poisson(rate * gamma).astype(np.int32)), cell_type, rare


def _proportions(donor: _Donor, effects: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    log_odds: np.ndarray = np.log(list(CELL_TYPES.values()))
    log_odds[_TYPE_NAMES.index("CD8 T")] -= 0.01 * (donor.age - 52)
    log_odds[_TYPE_NAMES.index("CD14 monocyte")] += 1.2 * effects["composition"] * donor.diseased
    expected = np.exp(log_odds) / np.exp(log_odds).sum()
    return rng.dirichlet(30 * expected)


def _cell_scores(
    cell_type: np.ndarray, diseased: bool, effects: dict[str, float], rng: np.random.Generator
) -> np.ndarray:
    noise = rng.standard_normal((len(cell_type), len(PROGRAMMES)))
    activation, stress = PROGRAMMES.index("activation"), PROGRAMMES.index("stress")
    correlation = np.tanh(effects["covariance"]) * (1 if diseased else -1)
    rows = cell_type == _TYPE_NAMES.index("CD8 T")
    noise[rows, stress] = correlation * noise[rows, activation] + np.sqrt(1 - correlation**2) * noise[rows, stress]
    scores = 0.5 * noise
    shifted = cell_type == _TYPE_NAMES.index("CD4 T")
    scores[shifted, PROGRAMMES.index("interferon")] += effects["shift"] * diseased
    return scores


def _rare_cells(cell_type: np.ndarray, proportions: np.ndarray, effect: float, rng: np.random.Generator) -> np.ndarray:
    host = _TYPE_NAMES.index("B")
    # A donor with very few host cells cannot reach the share: at most half of them are in the state.
    probability = min(0.5, _RARE_SHARE * effect / max(proportions[host], _RARE_SHARE))
    return (cell_type == host) & (rng.random(len(cell_type)) < probability)


def _assemble(donors: pd.DataFrame, draws: list, genes: CohortGenes, settings: dict) -> AnnData:
    counts = vstack([draw[0] for draw in draws], format="csr")
    x = counts.astype(np.float32)
    totals = np.asarray(x.sum(axis=1)).ravel().clip(min=1)
    x.data = np.log1p(x.data * np.repeat(_TARGET_TOTAL / totals, np.diff(x.indptr))).astype(np.float32)

    row = np.repeat(np.arange(len(donors)), donors["n_cells"])
    batches = [f"batch_{b}" for b in range(settings["n_batches"])]
    obs = pd.DataFrame(
        {
            "donor": _categorical(row, donors["donor"]),
            "disease": _categorical(donors["diseased"].to_numpy(int)[row], _LABELS),
            "age": donors["age"].to_numpy()[row],
            "batch": _categorical(donors["batch"].to_numpy()[row], batches),
            "cell_type": _categorical(np.concatenate([draw[1] for draw in draws]), _TYPE_NAMES),
        },
        index=[f"cell_{i}" for i in range(len(row))],
    )
    if "rare" in settings["channel"].split("+"):
        obs["rare_state"] = np.concatenate([draw[2] for draw in draws])
    width = len(str(len(genes.sets) - 1))
    var = pd.DataFrame(
        {"gene_set": pd.Categorical(genes.sets)}, index=[f"gene_{g:0{width}d}" for g in range(len(genes.sets))]
    )
    return AnnData(x, obs=obs, var=var, layers={"counts": counts}, uns={"simulate_cohort": settings})


def _categorical(codes: np.ndarray, names: Sequence[str] | pd.Series) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, pd.Index(names))
