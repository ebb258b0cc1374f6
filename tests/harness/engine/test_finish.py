"""How a run's status is found."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from harness.engine.finish import _status


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(("weight", "status"), [(0.0, "collapsed"), (1.0, "done")])
def test_a_network_that_ignores_its_input_has_collapsed_whatever_the_batch_size(
    batch_size: int, weight: float, status: str
) -> None:
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, weight)
    batches = torch.randn(5, batch_size, 3, generator=torch.Generator().manual_seed(0))
    task = SimpleNamespace(
        scoring_batches=lambda seed: list(batches), outputs=lambda model, batch: model(batch)
    )
    plan: Any = SimpleNamespace(spec=SimpleNamespace(seed=0))
    trainer: Any = SimpleNamespace(task=task, model=model)
    assert _status(plan, trainer)[0] == status
