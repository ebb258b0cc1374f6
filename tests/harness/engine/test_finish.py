"""How the status of a trained network is found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.engine.finish import final_status


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    ("weight", "status"), [(0.0, "collapsed"), (1.0, "done"), (float("nan"), "diverged")]
)
def test_a_network_that_ignores_its_input_has_collapsed_whatever_the_batch_size(
    batch_size: int, weight: float, status: str
) -> None:
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, weight)
    batches = torch.randn(5, batch_size, 3, generator=torch.Generator().manual_seed(0))
    assert final_status(model, list(batches))[0] == status
