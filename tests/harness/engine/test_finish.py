"""How the status of a trained network is found."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from harness.engine.finish import final_status, is_collapsed


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


def test_a_network_with_a_constant_output_has_collapsed() -> None:
    silent = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.zeros_(cast(Tensor, silent[2].weight))
    inputs = torch.randn(16, 4)
    assert is_collapsed(silent(inputs))
    assert is_collapsed(torch.zeros(4, 3))
    nn.init.constant_(cast(Tensor, silent[2].weight), 0.01)
    assert not is_collapsed(silent(inputs))


def test_a_small_signal_counts_as_dependence_and_rounding_does_not() -> None:
    same = torch.tensor([[100.0, 1.0], [100.0, 1.0]])
    assert is_collapsed(same + torch.tensor([[0.0, 0.0], [3e-5, 0.0]]))
    assert not is_collapsed(same + torch.tensor([[0.0, 0.0], [3e-4, 0.0]]))


def test_a_network_that_diverged_has_not_collapsed() -> None:
    assert not is_collapsed(torch.full((2, 3), torch.nan))
    assert not is_collapsed(torch.tensor([[1.0], [torch.inf]]))


def test_collapse_cannot_be_told_from_one_sample() -> None:
    with pytest.raises(ValueError, match="two"):
        is_collapsed(torch.zeros(1, 3))
