"""Attributes of groups predicted from their cells: cross-validation by group, and baselines."""

from scgde.prediction._attribution import attribute_cells, attribute_genes, influence_by_type
from scgde.prediction._baselines import BASELINES
from scgde.prediction._cross_validate import CrossValidation, cross_validate
from scgde.prediction._features import FoldContext, FoldModel
from scgde.prediction._gde import GDEFeatures, GDEPredictions

__all__ = [
    "BASELINES",
    "CrossValidation",
    "FoldContext",
    "FoldModel",
    "GDEFeatures",
    "GDEPredictions",
    "attribute_cells",
    "attribute_genes",
    "cross_validate",
    "influence_by_type",
]
