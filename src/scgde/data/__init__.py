"""AnnData to groups to batches."""

from scgde.data._batch import GroupBatch
from scgde.data._cells import GroupedCells
from scgde.data._collection import open_collection, write_collection
from scgde.data._datamodule import GroupDataModule
from scgde.data._fields import GroupedObs, Setup, chosen_representation, fingerprint, setup_fields
from scgde.data._groups import GroupIndex
from scgde.data._kernel_groups import kernel_groups
from scgde.data._representation import Representation
from scgde.data._sampler import GroupSampler

__all__ = [
    "GroupBatch",
    "GroupDataModule",
    "GroupIndex",
    "GroupSampler",
    "GroupedCells",
    "GroupedObs",
    "Representation",
    "Setup",
    "chosen_representation",
    "fingerprint",
    "kernel_groups",
    "open_collection",
    "setup_fields",
    "write_collection",
]
