"""Small cohorts whose label acts in a known way."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData


@pytest.fixture(scope="session")
def make_cohort():
    """A factory of AnnData of donors; ``effect`` names what the label changes: the mean, the spread, or nothing."""

    def make(n_donors=24, n_cells=40, n_vars=4, *, effect="mean", size=3.0, seed=0):
        rng = np.random.default_rng([seed, n_donors])
        ill = rng.permutation(np.arange(n_donors) % 2)
        codes = rng.permutation(np.repeat(np.arange(n_donors), n_cells))
        x = rng.normal(size=(len(codes), n_vars)) + 0.3 * rng.normal(size=(n_donors, n_vars))[codes]
        dose = np.linspace(0, 1, n_donors)[rng.permutation(n_donors)]
        if effect == "mean":
            x[:, 0] += size * ill[codes]
        elif effect == "spread":
            # Exactly the same mean in each donor: what is left is the standard deviation.
            noise = rng.normal(size=(len(codes), n_vars))
            means = pd.DataFrame(noise).groupby(codes).transform("mean").to_numpy()
            x = (noise - means) * np.where(ill[codes] == 1, 2.0, 1.0)[:, None]
        elif effect == "dose":
            x[:, 0] += size * dose[codes]
        obs = pd.DataFrame(
            {
                "donor": pd.Categorical([f"d{i:02d}" for i in codes]),
                "disease": np.array(["healthy", "ill"])[ill[codes]],
                "dose": dose[codes],
                "stage": pd.Categorical.from_codes(np.floor(dose[codes] * 2.999).astype(int), ["I", "II", "III"], True),
                "family": np.array([f"f{i // 2}" for i in range(n_donors)])[codes],
                "cell_type": np.where(rng.random(len(codes)) < 0.2 + 0.5 * ill[codes], "T", "B"),
            },
            index=[f"cell{i}" for i in range(len(codes))],
        )
        return AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(n_vars)]))

    return make


@pytest.fixture(scope="session")
def mean_scores():
    """A function from a result to the mean over folds of one metric, by model."""

    def means(result, metric):
        summary = result.summary
        return summary[summary["metric"] == metric].set_index("model")["mean"]

    return means
