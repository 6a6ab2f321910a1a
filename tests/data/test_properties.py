"""Whatever the groups look like (one cell or 10,000, unsorted, empty categories, mixed types, weights of 0), it holds."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from scgde.data import GroupedCells, GroupSampler
from scgde.data._datamodule import training_counts
from scgde.data._fields import Setup
from scgde.data._groups import GroupIndex
from scgde.data._sampler import N_FOLDS
from scgde.models._fitting import split_groups
from scgde.models._inference import encode_groups
from scgde.models._module import GDEModule
from scgde.models._results import per_cell, write_embedding

# The same examples in every run: a failure is one of the code, not of the draw.
QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FEW = settings(QUICK, max_examples=15)

sizes = st.lists(
    st.one_of(st.integers(1, 6), st.integers(1, 60), st.sampled_from([1, 9, 10, 11, 999, 10_000])),
    min_size=2,
    max_size=7,
)
names = st.one_of(
    st.lists(st.text("aZ0 é|/,", max_size=4), min_size=7, max_size=7, unique=True),
    st.lists(st.integers(-5, 50), min_size=7, max_size=7, unique=True),
    st.lists(st.floats(-2, 2, width=16).map(lambda v: v + 0.0), min_size=7, max_size=7, unique=True),
    st.just([0, "0", 1.5, "b", (1, 2), "", -3]),
)


def column(sizes, names, *, kind, seed):
    """Cells in random order, and how many each value of the column has."""
    values = [names[i] for i, size in enumerate(sizes) for _ in range(size)]
    order = np.random.default_rng(seed).permutation(len(values))
    made = pd.Series(np.array([*values, None], dtype=object)[:-1][order])
    if kind == "categorical":
        made = pd.Series(pd.Categorical(made, categories=[*reversed(names)]))  # with categories of no cell
    if kind == "missing":
        made[0] = None
    return made


columns = st.builds(
    column, sizes, names, kind=st.sampled_from(["plain", "categorical", "missing"]), seed=st.integers(0, 99)
)


# --- groups -------------------------------------------------------------------------------------------------------------


@QUICK
@given(columns, st.integers(0, 99))
def test_groups(values, seed):
    assume(values.notna().sum() > 1)
    index = GroupIndex.from_obs(pd.DataFrame({"g": values}), ["g"])
    assert len(index.names) == len(set(map(repr, index.names))) == values.nunique()
    for code, value in zip(index.codes, values, strict=True):
        assert (code < 0) if pd.isna(value) else (index.names[code] == value)
    assert (index.counts > 0).all()
    assert index.counts.sum() == values.notna().sum()
    # In another order of the cells the groups are the same.
    order = np.random.default_rng(seed).permutation(len(values))
    other = GroupIndex.from_obs(pd.DataFrame({"g": values.iloc[order].reset_index(drop=True)}), ["g"])
    assert other.names == index.names
    np.testing.assert_array_equal(other.codes, index.codes[order])


@QUICK
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), min_size=2, max_size=60))
def test_groups_of_two_columns(rows):
    index = GroupIndex.from_obs(pd.DataFrame(rows, columns=["g", "h"]), ["g", "h"])
    assert index.names == sorted(set(rows))
    assert [index.names[code] for code in index.codes] == rows


@QUICK
@given(sizes, st.integers(0, 99), st.booleans())
def test_cells_sorted_by_group(sizes, seed, massless):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(-1, len(sizes) - 1), sizes))
    weight = np.where(rng.uniform(size=len(codes)) < 0.3, 0.0, rng.uniform(size=len(codes)))
    x = np.arange(len(codes), dtype=np.float32)[:, None]  # each cell is its own number
    cells = GroupedCells.from_arrays(x, codes, len(sizes), weight if massless else None, None, seed)
    for group in range(len(sizes)):
        own = cells.x[cells.offsets[group] : cells.offsets[group + 1], 0].long().numpy()
        expected = np.flatnonzero((codes == group) & ((weight > 0) | (not massless)))
        np.testing.assert_array_equal(np.sort(own), expected)


# --- sampler ------------------------------------------------------------------------------------------------------------


@QUICK
@given(
    sizes,
    st.integers(1, 8),
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(0, 2**31),
    st.integers(0, 10**6),
    st.integers(1, 3),
)
def test_sampler(sizes, batch_size, encoded, scored, seed, step, world_size):
    counts, groups = torch.tensor(sizes), torch.arange(len(sizes))
    assume(min(batch_size, len(sizes)) >= world_size)
    ranks = [GroupSampler(counts, groups, batch_size, encoded, scored, seed, r, world_size) for r in range(world_size)]
    own = [rank.groups_of(step) for rank in ranks]
    together = torch.cat(own)
    assert len({len(group) for group in own}) == 1  # as much work for each
    assert len(together.unique()) == len(together) > 0
    one = GroupSampler(counts, groups, batch_size, encoded, scored, seed).groups_of(step)
    assert set(together.tolist()) <= set(one.tolist())
    for rank, group in zip(ranks, own, strict=True):
        fold, encode, share, score, share_score = rank.cells_of(step, group)
        count = counts[group]
        assert encode.shape == share.shape == (len(group), encoded)
        assert score.shape == share_score.shape == (len(group), scored)
        for position, weight in ((encode, share), (score, share_score)):
            assert ((position >= 0) & (position < count[:, None])).all()
            assert (weight >= 0).all()
            torch.testing.assert_close(weight.sum(1), torch.ones(len(group)))
            for row, mass in zip(position, weight, strict=True):  # no cell is drawn twice
                assert len(row[mass > 0].unique()) == (mass > 0).sum()
        n_folds = count.clamp(max=N_FOLDS)
        for i in range(len(group)):
            if count[i] > 1:  # what is scored has not been encoded
                start, stop = (
                    int(fold[i]) * int(count[i]) // int(n_folds[i]),
                    (int(fold[i]) + 1) * int(count[i]) // int(n_folds[i]),
                )
                used = share_score[i] > 0
                assert ((score[i][used] >= start) & (score[i][used] < stop)).all()
                used = share[i] > 0
                assert not ((encode[i][used] >= start) & (encode[i][used] < stop)).any()


@QUICK
@given(sizes, st.integers(1, 8), st.integers(0, 99))
def test_a_pass_of_the_sampler(sizes, batch_size, seed):
    sampler = GroupSampler(torch.tensor(sizes), torch.arange(len(sizes)), batch_size, 4, 4, seed)
    seen = torch.cat([sampler.groups_of(step) for step in range(sampler.steps_per_pass)])
    assert len(seen.unique()) == len(seen) > len(sizes) - sampler.batch_size


@QUICK
@given(
    st.lists(st.sampled_from([0.0, 1e-6, 0.5, 1.0, 300.0]), min_size=2, max_size=30),
    st.integers(1, 8),
    st.integers(0, 99),
)
def test_sampler_by_weight(weights, batch_size, seed):
    """Groups of weight 0 are never seen, no group twice in a step, and what is drawn too rarely counts more."""
    assume(sum(weights) > 0)
    weight, groups = torch.tensor(weights), torch.arange(len(weights))
    sampler = GroupSampler(torch.full((len(groups),), 9), groups, batch_size, 4, 4, seed, group_weight=weight)
    for step in range(5):
        group = sampler.groups_of(step)
        assert len(group.unique()) == len(group) == sampler.batch_size
        assert (weight[group] > 0).all()
    probability, factor = sampler.probability, sampler.importance(groups)
    assert ((probability >= 0) & (probability <= 1 + 1e-9)).all()
    assert float(probability.sum()) == pytest.approx(sampler.batch_size)
    # In expectation each group counts by its weight.
    share = (probability * factor / sampler.batch_size).float()
    torch.testing.assert_close(share, weight / len(groups), rtol=1e-4, atol=1e-9)


# --- splits -------------------------------------------------------------------------------------------------------------


@QUICK
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=50), st.one_of(st.none(), st.floats(0, 0.99)), st.integers(0, 99)
)
def test_splits(times, validation_size, seed):
    """Donors with several times each: they are on one side as a whole."""
    obs = pd.DataFrame([(f"d{i}", t) for i, n in enumerate(times) for t in range(n)], columns=["g", "t"])
    obs = obs.sample(frac=1, random_state=seed, ignore_index=True)
    adata = AnnData(np.zeros((len(obs), 1), np.float32), obs=obs.set_axis(obs.index.astype(str)))
    read = Setup(groupby="g", time_key="t").read(adata, training=True)
    try:
        split = split_groups(read, validation_size, seed)
    except ValueError as error:
        assert "at least two" in str(error)  # noqa: PT017
        assert round((validation_size or 0.1) * len(times)) > 0
        return
    everything = np.concatenate(list(split.values()))
    assert sorted(everything) == list(range(len(read.index)))
    assert len(split["train"]) >= 2
    assert not set(read.unit[split["train"]]) & set(read.unit[split["validation"]])
    if validation_size is not None:
        assert len(set(read.unit[split["validation"]])) == round(validation_size * len(times))
    again = split_groups(read, validation_size, seed)
    assert all(np.array_equal(split[part], again[part]) for part in split)


@QUICK
@given(sizes)
def test_every_group_keeps_cells_to_train_on(sizes):
    counts = torch.tensor(sizes)
    for held in (counts[:0], torch.arange(len(sizes))):
        left = training_counts(counts, held)
        assert ((left >= 1) & (left <= counts)).all()
        assert (left >= 0.8 * counts).all()


# --- encoder ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def module():
    built = GDEModule()
    widths = {"encoder_kwargs": {"width": 8}, "generator_kwargs": {"width": 8}}
    sizes = {"n_features": 3, "n_components": 2, "n_coordinates": 4, "n_code": 2, "n_batch": 0}
    built.build(**sizes, encoder="resnet", generator="flow", seed=0, **widths)
    return built.eval()


@FEW
@given(
    st.lists(st.sampled_from([1, 2, 3, 7, 40, 300, 10_000]), min_size=1, max_size=5),
    st.integers(0, 99),
    st.sampled_from([1, 7, 1000]),
)
def test_encoder(module, sizes, seed, batch_size):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = rng.normal(size=(len(codes), 3)).astype(np.float32)

    def z(x, codes, weight=None, size=None):
        return encode_groups(module, x, codes, len(sizes), weight=weight, batch_size=size).z.cpu().numpy()

    expected = z(x, codes)
    assert np.isfinite(expected).all()
    order = rng.permutation(len(codes))
    near = {"rtol": 1e-3, "atol": 1e-3}
    np.testing.assert_allclose(z(x[order], codes[order]), expected, **near)  # the order of the cells
    np.testing.assert_allclose(z(np.repeat(x, 3, 0), np.repeat(codes, 3)), expected, **near)  # every cell three times
    np.testing.assert_allclose(z(x, codes, weight=np.full(len(x), 7.0)), expected, **near)  # the unit of mass
    np.testing.assert_allclose(z(x, codes, size=batch_size), expected, **near)  # what is in memory at a time
    # Cells without mass, and cells of no group, are as if they were not there.
    more, far = (
        np.concatenate([codes, codes, np.full(4, -1)]),
        np.concatenate([x, 50 + x, np.full((4, 3), 9, np.float32)]),
    )
    weight = np.concatenate([np.ones(len(x)), np.zeros(len(x)), np.ones(4)])
    np.testing.assert_allclose(z(far, more, weight=weight), expected, **near)


# --- results ------------------------------------------------------------------------------------------------------------


@FEW
@given(columns, st.booleans())
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_results_can_be_written_and_read(tmp_path, values, same_names):
    # h5ad itself holds no column of several types.
    assume(values.nunique() > 1 and len({type(value) for value in values.dropna()}) == 1)
    cells = pd.DataFrame({"g": values.to_numpy() if values.dtype == object else values.array})
    if isinstance(values.dropna().iloc[0], int | float) and values.dtype == object:
        cells["g"] = pd.to_numeric(cells["g"])
    cell_names = ["cell" if same_names else str(i) for i in range(len(cells))]
    adata = AnnData(np.zeros((len(cells), 1), np.float32), obs=cells.set_axis(cell_names))
    obs = Setup(groupby="g", drop_ungrouped=True).read(adata, training=True)
    z = np.arange(2.0 * len(obs.index), dtype=np.float32).reshape(-1, 2)
    write_embedding(adata, "gde", z, obs, {"seed": 0}, write_obsm=True)
    expected = np.where((obs.index.codes >= 0)[:, None], z[obs.index.codes], np.nan)
    np.testing.assert_array_equal(per_cell(z, obs.index.codes), expected)
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    entry = anndata.read_h5ad(path).uns["gde"]
    np.testing.assert_array_equal(entry["embedding"], z)
    assert entry["groups"]["g"].tolist() == obs.index.names
    assert entry["groups"]["n_cells"].sum() == values.notna().sum()
