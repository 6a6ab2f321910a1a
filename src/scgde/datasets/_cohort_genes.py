"""What all simulated cohorts share: cell types, gene programmes, baseline expression, batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

# Cell types with their mean proportions in a healthy donor.
CELL_TYPES = {"CD4 T": 0.30, "CD8 T": 0.20, "CD14 monocyte": 0.22, "B": 0.12, "NK": 0.12, "Dendritic": 0.04}
# `interferon` carries the label of the channel "shift", `activation` and `stress` that of "covariance", `emergent` that
# of "rare" (it is silent elsewhere); `cycling` never carries a label.
PROGRAMMES = ("interferon", "activation", "stress", "cycling", "emergent")
_GENES_PER_SET = 16
MIN_GENES = _GENES_PER_SET * (len(CELL_TYPES) + len(PROGRAMMES))


@dataclass(frozen=True)
class CohortGenes:
    """Constants of the simulation for a number of genes.

    Attributes
    ----------
    base
        Expected share of each gene in a cell's counts, shape (types, genes); rows sum to 1.
    loadings
        Log fold change per unit of programme score, shape (programmes, genes).
    batch_shift
        Log fold change of each gene in each batch, shape (batches, genes).
    inverse_dispersion
        Shape parameter of the negative binomial, shape (genes,).
    sets
        Name of the marker set or programme of each gene, shape (genes,).
    twin
        For each gene the one it shares its baseline and its donor and batch shifts with (itself for most), (genes,).
    """

    base: np.ndarray
    loadings: np.ndarray
    batch_shift: np.ndarray
    inverse_dispersion: np.ndarray
    sets: np.ndarray
    twin: np.ndarray


@cache
def cohort_genes(n_genes: int, n_batches: int) -> CohortGenes:
    """Draw the constants, always from seed 7: cohorts of different seeds hold new donors of one population.

    In `activation` and `stress`, each gene that rises with the score has a twin that falls with it. Flipping the sign
    of one score then only swaps twins, so the sign of the correlation between the two programmes changes the law of no
    single gene, not even after division by the total counts of the cell.

    Parameters
    ----------
    n_genes
        Number of genes, at least :data:`MIN_GENES`.
    n_batches
        Number of batches; the first ones are the same for any number.
    """
    rng = np.random.default_rng(7)
    n_types = len(CELL_TYPES)
    names = [f"markers of {name}" for name in CELL_TYPES] + list(PROGRAMMES)
    sets = np.array(["none"] * n_genes, dtype=object)
    sets[: len(names) * _GENES_PER_SET] = np.repeat(names, _GENES_PER_SET)

    log_base = rng.normal(0, 1, n_genes) + 0.15 * rng.standard_normal((n_types, n_genes))
    for k in range(n_types):
        log_base[k, sets == names[k]] += 2.0
    loadings = np.zeros((len(PROGRAMMES), n_genes))
    twin = np.arange(n_genes)
    for p, programme in enumerate(PROGRAMMES):
        genes = np.flatnonzero(sets == programme)
        log_base[:, genes] = 0.5 * rng.standard_normal(len(genes))
        loadings[p, genes] = rng.uniform(0.7, 1.3, len(genes))
        if programme in {"activation", "stress"}:
            twin[genes[1::2]] = genes[::2]
            loadings[p, genes[1::2]] = -loadings[p, genes[::2]]
    log_base[:, sets == "emergent"] -= 2.0
    base = np.exp(log_base[:, twin])
    batch_shift = 0.25 * np.stack([np.random.default_rng([7, b]).standard_normal(n_genes) for b in range(n_batches)])
    return CohortGenes(
        base=base / base.sum(axis=1, keepdims=True),
        loadings=loadings,
        batch_shift=batch_shift[:, twin],
        inverse_dispersion=rng.uniform(2, 8, n_genes)[twin],
        sets=sets,
        twin=twin,
    )
