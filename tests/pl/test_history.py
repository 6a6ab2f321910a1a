"""Training curves."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scgde import pl


def _history(**curves):
    return {
        name: pd.DataFrame({name: values}, index=pd.RangeIndex(len(values), name="epoch"))
        for name, values in curves.items()
    }


@pytest.fixture
def recorded():
    return _history(
        train_loss_step=[9.0] * 6, train_loss=[3.0, 2.0, 1.0], validation_loss=[3.0, 1.5, 2.0], lr=[0.1, 0.1, 0.1]
    )


def _curves(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_losses_by_epoch_and_the_best_epoch(recorded, legend, assert_inside):
    for model in (recorded, SimpleNamespace(history=recorded)):
        ax = pl.history(model)
        assert legend(ax) == ["train loss", "validation loss", "best: epoch 1"]
        np.testing.assert_array_equal(_curves(ax)["validation loss"].get_ydata(), [3, 1.5, 2])
        assert (_curves(ax)["best: epoch 1"].get_xdata()[0], _curves(ax)["best: epoch 1"].get_ydata()[0]) == (1, 1.5)
        assert _curves(ax)["train loss"].get_color() != _curves(ax)["validation loss"].get_color()
        assert_inside(ax.figure)


def test_keys_best_and_epochs_without_validation(recorded, legend):
    recorded["validation_loss"].iloc[1] = np.nan
    assert legend(pl.history(recorded)) == ["train loss", "validation loss", "best: epoch 2"]
    assert legend(pl.history(recorded, best="max"))[-1] == "best: epoch 0"
    assert legend(pl.history(recorded, best=None)) == ["train loss", "validation loss"]
    assert legend(pl.history(recorded, keys="lr")) == ["lr"]
    recorded["train_loss_epoch"] = recorded["train_loss"]
    assert legend(pl.history(recorded))[:2] == ["validation loss", "train loss"]
    assert legend(pl.history({"elbo": recorded["lr"]})) == ["elbo"]


def test_smoothing_keeps_the_recorded_curve_behind(recorded, legend):
    ax = pl.history(recorded, smooth=3)
    np.testing.assert_allclose(_curves(ax)["train loss"].get_ydata(), [2.5, 2, 1.5])
    assert legend(ax) == ["train loss", "validation loss", "best: epoch 1"]
    assert len([line for line in ax.lines if line.get_label() == "_recorded"]) == 2


def test_one_epoch_is_a_point(recorded):
    ax = pl.history({key: frame.iloc[:1] for key, frame in recorded.items()})
    assert _curves(ax)["train loss"].get_marker() == "o"
    np.testing.assert_array_equal(ax.get_xticks(), [0])


def test_many_curves_with_long_names(assert_inside, legend):
    ax = pl.history(
        _history(
            **{
                f"{part}_a_component_of_great_length_{i}": [1.0, 2.0]
                for i in range(6)
                for part in ("train", "validation")
            }
        )
    )
    assert len(legend(ax)) == 13
    assert len({line.get_color() for line in _curves(ax).values()}) == 13
    assert ax.get_window_extent().height > 0.4 * ax.figure.bbox.height
    assert_inside(ax.figure)


def test_bad_input(recorded):
    with pytest.raises(KeyError, match="Did you mean 'train_loss'"):
        pl.history(recorded, keys=["trainloss"])
    with pytest.raises(ValueError, match="Call `model.train"):
        pl.history(SimpleNamespace(history=None))
    with pytest.raises(ValueError, match="No finite value"):
        pl.history(_history(train_loss=[np.nan]))
    with pytest.raises(ValueError, match="`smooth` is 0"):
        pl.history(recorded, smooth=0)
