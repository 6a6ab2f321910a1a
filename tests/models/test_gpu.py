"""Models on a GPU do what they do on the CPU."""

import numpy as np
import pytest

from scgde import GDE

pytestmark = pytest.mark.gpu

GPU = {"accelerator": "gpu", "devices": 1}


@pytest.mark.parametrize("n_vars", [2, 8], ids=["full", "diagonal"])
def test_training_on_a_gpu_gives_the_embedding_of_the_cpu(make_adata, make_model, n_vars):
    adata = make_adata(n_vars=n_vars)
    z, on_gpu = (
        model.get_group_embedding(key_added=None).to_numpy()
        for model in (make_model(adata, steps=30), make_model(adata, steps=30, train=GPU))
    )
    np.testing.assert_allclose(on_gpu, z, atol=1e-4 * z.std(0).max())


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision(make_adata, make_model, precision):
    model = make_model(make_adata(), train={**GPU, "precision": precision})
    assert np.isfinite(model.history["train_loss"].to_numpy()).all()


@pytest.mark.parametrize("n_vars", [2, 8], ids=["full", "diagonal"])
def test_a_model_stays_on_the_gpu_and_all_methods_run_there(make_adata, make_model, tmp_path, n_vars):
    setup = {"batch_key": "library", "weight_key": "mass", "labels": ["age"]}
    model = make_model(make_adata(n_vars=n_vars), train=GPU, **setup)
    assert model.device.type == "cuda"
    z, se = model.get_group_embedding(return_se=True, key_added=None)
    assert z.shape == se.shape
    assert model.group_covariance().shape == (6, 6, 6)
    assert model.sample("donor_1", 40, batch="b").shape == (40, n_vars)
    assert model.interpolate("donor_1", "donor_2", 3, n_cells=40).n_obs == 120
    assert model.transport("donor_1", "donor_2", return_trajectory=True, n_steps=3).n_obs == 90
    assert model.predict("age", key_added=None).shape[0] == 6
    model.save(tmp_path / "model")
    loaded = GDE.load(tmp_path / "model", adata=model.adata)
    np.testing.assert_allclose(loaded.get_group_embedding(key_added=None), z, atol=1e-4)
