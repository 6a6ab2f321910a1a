"""What every metric promises; a new entry of METRICS is tested by itself."""

import numpy as np
import pytest
import torch

from scgde.metrics import METRICS, pairwise

# The U-statistic of the energy distance depends on the number of cells; all others read the empirical measure only.
NOT_PLUG_IN = {"energy"}

metrics = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.standard_normal((60, 3)), 1.5 * rng.standard_normal((45, 3)) + 1


@metrics
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_and_torch_agree_in_both_precisions(metric, dtype, clouds):
    x, y = (cells.astype(dtype) for cells in clouds)
    expected = metric(*clouds)
    assert isinstance(metric(x, y), float)
    assert metric(x, y) == pytest.approx(expected, rel=1e-5)
    assert metric(torch.as_tensor(x), torch.as_tensor(y)) == metric(x, y)


@pytest.mark.gpu
@metrics
def test_cuda_agrees_with_the_cpu(metric, clouds):
    x, y = (torch.as_tensor(cells) for cells in clouds)
    assert metric(x.cuda(), y.cuda()) == pytest.approx(metric(x, y), rel=1e-9)


@metrics
def test_far_from_the_origin_in_single_precision(metric, clouds):
    near, far = (metric(*((cells + shift).astype(np.float32) for cells in clouds)) for shift in (0, 100))
    assert far == pytest.approx(near, rel=1e-3)


@metrics
def test_symmetric_and_blind_to_the_order_of_cells(metric, clouds):
    x, y = clouds
    assert metric(y, x) == pytest.approx(metric(x, y), rel=1e-9)
    shuffled = np.random.default_rng(1).permutation(x)
    assert metric(shuffled, y) == pytest.approx(metric(x, y), rel=1e-9)


@pytest.mark.parametrize("name", [name for name in METRICS if name not in NOT_PLUG_IN])
def test_duplicated_cells_change_nothing(name, clouds):
    x, y = clouds
    assert METRICS[name](np.repeat(x, 3, axis=0), y) == pytest.approx(METRICS[name](x, y), rel=1e-9)


@pytest.mark.parametrize("name", [name for name in METRICS if name not in NOT_PLUG_IN])
def test_zero_to_itself(name, clouds):
    x, _ = clouds
    assert METRICS[name](x, x) == pytest.approx(0, abs=1e-12)


@metrics
def test_a_wider_or_moved_group_is_farther(metric, clouds):
    x, _ = clouds
    other = np.random.default_rng(2).standard_normal((60, 3))
    assert abs(metric(x, other)) < metric(x, other + 1) < metric(x, other + 3)
    assert metric(x, other) < metric(x, 4 * other)


@metrics
def test_single_cells_work(metric):
    assert metric(np.zeros((1, 2)), np.array([[3.0, 4.0]])) > 0


@metrics
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((5, 2)), "x has 2 features and y has 3"),
        (np.zeros((0, 3)), r"shape \(0, 3\): expected \(n_cells, n_features\)"),
        (np.zeros(3), r"shape \(3,\)"),
        (np.full((5, 3), np.nan), "15 values that are NaN or infinite"),
        (np.full((5, 3), np.inf), "15 values that are NaN or infinite"),
    ],
)
def test_bad_input_is_named(metric, x, message):
    with pytest.raises(ValueError, match=message):
        metric(x, np.zeros((4, 3)))


@metrics
def test_inputs_stay_as_they_are(metric, clouds):
    x, y = clouds
    copies = x.copy(), y.copy()
    x.flags.writeable = False
    metric(x[::-1], y)
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(y, copies[1])


@metrics
def test_integers_and_half_precision_are_read_as_floats(metric):
    x, y = np.array([[0, 1], [2, 5], [3, 3]]), np.array([[4, 4], [1, 0]])
    assert metric(x, y) == metric(x.astype(float), y.astype(float))
    assert metric(torch.as_tensor(x).half(), torch.as_tensor(y).half()) == pytest.approx(metric(x, y), rel=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_pairwise_holds_every_pair(name, clouds):
    groups = [*clouds, clouds[0] - 2]
    distances = pairwise(groups, metric=name)
    assert distances.shape == (3, 3)
    np.testing.assert_array_equal(distances, distances.T)
    np.testing.assert_array_equal(np.diag(distances), 0)
    assert distances[0, 2] == METRICS[name](groups[0], groups[2])
    assert distances[1, 2] == METRICS[name](groups[1], groups[2])


def test_pairwise_takes_a_function_and_shows_progress(clouds, capsys):
    distances = pairwise(clouds, metric=lambda x, y: float(len(x) + len(y)), progress=True)
    assert distances[0, 1] == 105
    assert "pairs of groups" in capsys.readouterr().err
    pairwise(clouds)
    assert capsys.readouterr().err == ""


def test_pairwise_names_unknown_metrics_and_bad_groups(clouds):
    with pytest.raises(ValueError, match=r"metric='energie' is unknown: choose from \['energy'"):
        pairwise(clouds, metric="energie")
    with pytest.raises(ValueError, match=r"groups 0 \(x\) and 2 \(y\): y has shape \(0, 3\)"):
        pairwise([*clouds, np.zeros((0, 3))])
