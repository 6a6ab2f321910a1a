"""What drives the prediction of a label: the influence of each cell, and the genes that change along the label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scgde._constants import KEY
from scgde._validation import check_columns, unknown_key
from scgde.data._genes import gene_space
from scgde.prediction._heads import LinearMap
from scgde.prediction._predictor import differentiate

if TYPE_CHECKING:
    from scgde import GDE

#: Units of changes: those of genes, or of the representation.
SPACES = ("genes", "rep")

#: Ends of the line along which genes change, in standard deviations of the score over groups.
REACH = 1.0


def attribute_cells(
    model: GDE,
    label: str | np.ndarray,
    adata: AnnData | None = None,
    *,
    outcome: Any = None,
    batch_size: int | None = None,
    key_added: str | None = f"{KEY}_influence",
) -> pd.Series:
    """Influence of each cell on the score of its group: how the score changes with the weight of the cell.

    The score is that of :meth:`scgde.GDE.predict`: the log odds of ``outcome`` against the other classes, the rank, or
    the value. The influence of a cell is the derivative of its group's score in the share of cells that are like it. It
    is positive for cells that speak for the outcome; its mean over a group is 0.

    Parameters
    ----------
    model
        A trained model that has learned ``label``, by ``labels=`` of its setup or by
        :meth:`scgde.GDE.update_labels`.
    label
        Name of the label; or the weights (n_latent,) of a linear score of one's own.
    adata
        Cells; by default the training data.
    outcome
        Class, or column of a multi-label attribute, that the score speaks for; by default the last one.
    batch_size
        Cells in memory at a time.
    key_added
        Column of ``.obs`` to write; None writes nothing.

    Returns
    -------
    One value per cell, in units of the score; NaN for cells without a group.

    Raises
    ------
    KeyError
        For a label or an outcome that the model has not learned, with near matches.
    RuntimeError
        Before training.
    ValueError
        For weights of another size, and a label that cannot be predicted.

    Notes
    -----
    The influence function of the embedding (Hampel, 1974; Fishman, Gowri et al., 2025, theorem 2), times the derivative
    of the score by the embedding.

    Examples
    --------
    >>> influence = attribute_cells(model, "disease")
    >>> influence_by_type(adata, "cell_type")
    """
    # scvi-tools takes seconds to import, which baselines do not need.
    from scgde.models._blocks import BATCH_SIZE, GroupedRows
    from scgde.models._influence import MAX_GROUPS, Influence

    model._check_trained()
    model._check_disjoint("attribute_cells")
    score = Score(model, label, outcome)
    adata, obs = model._read(adata)
    x, found = model.representation.read(adata), np.full(adata.n_obs, np.nan)
    rows, size = GroupedRows.from_codes(obs.index.codes, len(obs.index), obs.weight), batch_size or BATCH_SIZE
    by_z = score(model._encode(adata, obs, None, batch_size).z.cpu().double().numpy())[1]
    for start in range(0, len(rows), MAX_GROUPS):
        stop = min(start + MAX_GROUPS, len(rows))
        some, direction = rows.select(start, stop), torch.from_numpy(by_z[start:stop, None])
        influence = Influence(model.module, some, x, size, directions=direction)
        for (places, mass, group), block in zip(some.chunks(size), influence.blocks(), strict=True):
            values = influence.of(block.x, torch.from_numpy(group))[..., 0].cpu().double().numpy()
            found[places[mass > 0]] = values[mass > 0]
    series = pd.Series(found, index=adata.obs_names, name=key_added or "influence")
    if key_added is not None:
        adata.obs[key_added] = series
    return series


def influence_by_type(
    adata: AnnData, cell_type_key: str, *, key: str = f"{KEY}_influence", groupby: str | None = None
) -> pd.DataFrame:
    """Influence summarised by cell type, the most influential first.

    Parameters
    ----------
    adata
        Cells with a column of :func:`attribute_cells`.
    cell_type_key
        Column with cell types.
    key
        Column with the influence.
    groupby
        Column with the groups, to count each of them equally; by default cells count equally.

    Returns
    -------
    One row per cell type: the share of cells (``share``), their mean influence (``mean``), their mean absolute
    influence (``mean_absolute``), and the part of the total absolute influence that they hold (``part``).

    Raises
    ------
    KeyError
        For a column that ``adata`` lacks, with near matches.
    """
    check_columns(adata, [cell_type_key], "cell_type_key")
    check_columns(adata, [key], "key")
    frame = pd.DataFrame({"type": adata.obs[cell_type_key], "influence": adata.obs[key]})
    weight = pd.Series(1.0, index=frame.index)
    if groupby is not None:
        check_columns(adata, [groupby], "groupby")
        weight = 1 / adata.obs.groupby(groupby, observed=True)[key].transform("count")
    frame = frame.assign(weight=weight).dropna()
    frame = frame.assign(signed=frame["weight"] * frame["influence"])
    frame = frame.assign(absolute=frame["signed"].abs())
    total = frame.groupby("type", observed=True)[["weight", "signed", "absolute"]].sum()
    table = pd.DataFrame(
        {
            "share": total["weight"] / total["weight"].sum(),
            "mean": total["signed"] / total["weight"],
            "mean_absolute": total["absolute"] / total["weight"],
            "part": total["absolute"] / max(total["absolute"].sum(), 1e-300),
        }
    )
    return table.rename_axis(cell_type_key).sort_values("part", ascending=False)


def attribute_genes(
    model: GDE,
    label: str | np.ndarray,
    adata: AnnData | None = None,
    *,
    outcome: Any = None,
    n_cells: int = 2000,
    space: str = "genes",
    seed: int = 0,
) -> pd.Series:
    """Change of mean expression that goes with a label: cells generated at both ends of its direction are compared.

    The direction is that in which embeddings of groups differ where their scores do, ``Cov(z, score) / sd(score)``, and
    not the score's weights, which also cancel what has nothing to do with the label. From one standard deviation of the
    score below the mean embedding to one above, cells come from the same noise.

    Parameters
    ----------
    model, label, outcome
        As in :func:`attribute_cells`.
    adata
        Groups whose embeddings tell the direction; by default those of training.
    n_cells
        Cells to generate at each end.
    space
        "genes", or "rep" for features of the representation.
    seed
        Seed of the noise.

    Returns
    -------
    One value per gene (or feature), in its units, the largest changes first: how much more of it cells have per
    standard deviation of the score.

    Raises
    ------
    KeyError, RuntimeError, ValueError
        As :func:`attribute_cells`; also where the model cannot give genes back.

    Notes
    -----
    Source of the direction: Haufe et al., "On the interpretation of weight vectors of linear models in multivariate
    neuroimaging" (2014).
    """
    model._check_trained()
    if space not in SPACES:
        msg = f"space={space!r}: expected one of {SPACES}."
        raise ValueError(msg)
    scores = Score(model, label, outcome)
    z = model.get_group_embedding(adata, key_added=None)
    mean = z.to_numpy(dtype=np.float64).mean(axis=0)
    deviation = z.to_numpy(dtype=np.float64) - mean
    score = scores(z.to_numpy(dtype=np.float64))[0]
    score = score - score.mean()
    step = REACH * (deviation.T @ score) / (len(z) * max(float(score.std()), 1e-300))
    ends = pd.DataFrame(mean + np.stack([-step, step]), columns=z.columns, dtype=np.float32)
    # Statistics are read back from the embedding: what is not in it has no direction.
    cells = model.interpolate(ends.iloc[0], ends.iloc[1], 2, n_cells=n_cells, seed=seed, exact_moments=False)
    x, names = np.asarray(cells.X), cells.var_names
    if space == "genes":
        genes = gene_space(model.representation, model.adata)
        x, names = (x, names) if genes is None else (genes.restore(x), genes.var_names)
    low, high = (part.mean(axis=0, dtype=np.float64) for part in np.split(x, 2))
    change = pd.Series((high - low) / (2 * REACH), index=names, name="change")
    return change.iloc[np.argsort(-change.abs().to_numpy(), kind="stable")]


class Score:
    """The score of one outcome as a function of embeddings.

    Parameters
    ----------
    model, label, outcome
        As in :func:`attribute_cells`.
    """

    def __init__(self, model: GDE, label: str | np.ndarray, outcome: Any) -> None:
        if isinstance(label, str):
            self.coef, self.blocks = _coefficients(model, label, outcome), model.module.blocks
            return
        self.coef, self.blocks = np.asarray(label, dtype=np.float64), lambda z: [z]
        if self.coef.shape != (model.options["n_latent"],) or not np.isfinite(self.coef).all():
            msg = f"The score's weights have shape {self.coef.shape}: expected ({model.options['n_latent']},), finite."
            raise ValueError(msg)

    def __call__(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(groups,) scores of embeddings (groups, latent), but for a constant, and their derivatives by these."""
        scores, by_z = differentiate(LinearMap(self.coef[:, None], np.zeros(1)), z, self.blocks)
        return scores[:, 0], by_z[..., 0]


def _coefficients(model: GDE, label: str, outcome: Any) -> np.ndarray:
    """(features,) coefficients of the score of one outcome."""
    fitted = model._fitted_label(label)
    classes = list(fitted["label"]["classes"])
    place = len(classes) - 1
    if outcome is not None:
        if outcome not in classes:
            raise KeyError(unknown_key(outcome, classes, f"the outcomes of {label!r} (outcome=)").args[0])
        place = classes.index(outcome)
    kind = fitted["label"]["kind"]
    coef = np.asarray(fitted["parts"][place if kind == "multilabel" else 0]["linear"][0], dtype=np.float64)
    if kind == "multilabel":
        return coef[:, 1] - coef[:, 0]
    if coef.shape[1] == 1:
        return coef[:, 0]
    return coef[:, place] - np.delete(coef, place, axis=1).mean(axis=1)
