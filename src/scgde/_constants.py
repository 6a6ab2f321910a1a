"""Every key that the package reads from or writes to an AnnData, and the names of settings kept with a model."""

#: Default names of results: ``.uns[KEY]`` and ``.obsm["X_" + KEY]``.
KEY, TDE_KEY = "gde", "tde"

#: Entries of ``.uns[KEY]``.
EMBEDDING, STANDARD_ERRORS, GROUPS, SETTINGS = "embedding", "se", "groups", "settings"
PREDICTIONS = "predictions"

#: Names of overlapping groups: an entry of ``.uns[membership_key]``.
GROUP_NAMES = "names"

#: Column of generated cells with the position on an interpolation or transport path.
PATH_TIME = "t"

#: Columns of transported cells.
SOURCE, TARGET = "source", "target"

#: Values of the column named by ``split_key``.
SPLITS = ("train", "validation", "test")

#: Where scanpy keeps principal components.
PCA_KEY = "X_pca"

#: Entry of ``.uns`` that says how a collection on disk was made.
COLLECTION = "collection"

#: X is read as it is up to this many variables; above, its principal components are.
MAX_X_FEATURES = 50

#: Number of principal components that a model computes.
N_COMPONENTS = 50
