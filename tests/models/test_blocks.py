"""Cells of groups in blocks."""

import pytest
import torch

from scgde.models._blocks import cells_at_a_time


@pytest.mark.parametrize(("device", "expected"), [("cpu", 4096), ("mps", 4096), ("cuda", 65_536)])
def test_chunks_suit_the_device_unless_the_user_says_otherwise(device, expected):
    assert cells_at_a_time(None, torch.device(device)) == expected
    assert cells_at_a_time(7, torch.device(device)) == 7
