"""Intervals of predicted numbers hold what they say; p-values of new groups are uniform."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats


def cohort(rng, n_groups, prefix, noise):
    """Donors of 5 to 60 cells; the number follows one of two shifts, with an error of its own."""
    y, other = rng.normal(size=(2, n_groups))
    codes = np.repeat(np.arange(n_groups), rng.integers(5, 60, n_groups))
    x = rng.normal(size=(len(codes), 4))
    x[:, 0] += y[codes]
    x[:, 1] += other[codes]
    age = 50 + 10 * y + noise(rng, n_groups)
    obs = pd.DataFrame({"donor": [f"{prefix}{i:04d}" for i in codes], "age": age[codes]})
    return AnnData(x.astype(np.float32), obs=obs.set_axis([f"{prefix}{i}" for i in range(len(codes))])), age


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise",
    [lambda rng, n: 3 * rng.normal(size=n), lambda rng, n: 3 * rng.standard_t(2, size=n)],
    ids=["normal", "heavy tails"],
)
def test_intervals_cover_nine_of_ten(make_model, noise):
    """2,000 donors in 20 cohorts with 120 labels each: the error of the mean coverage is .009, the error rate 0.001.

    The coverage of one cohort varies by .04, since its labels set the width of all of its intervals.
    """
    covered = []
    for seed in range(20):
        rng = np.random.default_rng([seed, 7])
        model = make_model(cohort(rng, 120, "d", noise)[0], labels=["age"], steps=10, train={"validation_size": 0.0})
        new, age = cohort(rng, 100, "n", noise)
        predicted = model.predict("age", new, key_added=None)
        covered.append(((predicted["lower"] <= age) & (age <= predicted["upper"])).mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("held_out", [0, 150])
def test_p_values_are_uniform_for_groups_like_those_of_training(make_model, held_out):
    """The error rate is 0.001; p-values lie on a grid, and a jitter down to the next makes them continuous."""
    rng = np.random.default_rng(held_out)
    adata, _ = cohort(rng, 300, "d", lambda *_: 0)
    model = make_model(adata, steps=20, train={"validation_size": held_out / 300})
    scores = model.fitted_["novelty"]["scores"]
    assert len(scores) == (held_out or 300)
    new, _ = cohort(rng, 300, "n", lambda *_: 0)
    model.get_group_embedding(new)
    p = new.uns["gde"]["groups"]["p_value"].to_numpy()
    p = p - np.random.default_rng(0).random(len(p)) / (len(scores) + 1)
    distance = stats.kstest(p, "uniform").statistic / np.sqrt(1 / len(scores) + 1 / len(p))
    assert distance < stats.kstwobign.isf(0.001)
    new.X[:] *= 3
    model.update_labels(adata, ["age"])
    with pytest.warns(UserWarning, match="lie far from those that the model was trained on"):
        far = model.predict("age", new, key_added=None)["p_value"]
    assert (far <= 0.05).mean() > 0.5
