"""What the tests of the networks share: devices, and random mixtures."""

import pytest
import torch

from scgde.nn.mixtures import Mixtures
from scgde.nn.statistics import MAX_FULL_COVARIANCE

DEVICES = ["cpu"]
if torch.cuda.is_available():
    DEVICES.append(pytest.param("cuda", marks=pytest.mark.gpu))
if torch.backends.mps.is_available():
    DEVICES.append("mps")


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.fixture
def make_mixtures():
    """Random mixtures of well-conditioned components: full covariances up to 6 features, diagonal ones above."""

    def make(n_groups, n_components, n_features, *, spread=1.5, dtype=torch.float32):
        weight = torch.rand(n_groups, n_components, dtype=dtype) + 0.2
        mean = spread * torch.randn(n_groups, n_components, n_features, dtype=dtype)
        if n_features <= MAX_FULL_COVARIANCE:
            axes = torch.linalg.qr(torch.randn(n_groups, n_components, n_features, n_features, dtype=dtype)).Q
            sd = 0.4 + torch.rand(n_groups, n_components, n_features, dtype=dtype)
            root = (axes * sd[..., None, :]) @ axes.mT
        else:
            root = 0.4 + torch.rand(n_groups, n_components, n_features, dtype=dtype)
        return Mixtures(weight / weight.sum(1, keepdim=True), mean, root)

    return make
