"""2:4 sparsity on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.sparse_kernels import SPARSE_2_4, SparseExecution
from harness.sparse_kernels.semi_structured import (
    FIRST_CAPABILITY,
    is_two_of_four,
    semi_structured_reason,
)

HAS_KERNELS = torch.cuda.is_available() and torch.cuda.get_device_capability() >= FIRST_CAPABILITY


def two_of_four(rows: int, columns: int) -> torch.Tensor:
    return torch.tensor([True, False, True, False]).repeat(rows, columns // 4)


def test_two_of_each_four_neighbors_may_survive() -> None:
    mask = two_of_four(3, 8)
    assert is_two_of_four(mask)
    assert is_two_of_four(torch.zeros(3, 8, dtype=torch.bool))
    mask[1, 5] = True
    assert not is_two_of_four(mask)
    assert not is_two_of_four(torch.zeros(3, 6, dtype=torch.bool))


@pytest.mark.parametrize(
    ("module", "mask", "reason"),
    [
        (nn.LSTMCell(4, 4), two_of_four(4, 8), "LSTMCell has no sparse kernel on a GPU"),
        (
            nn.Linear(8, 4),
            torch.ones(4, 8, dtype=torch.bool),
            "its mask is not 2:4, and a GPU has no other sparse kernel that pays",
        ),
        (
            nn.Linear(8, 4),
            two_of_four(4, 8),
            "2:4 kernels are for half precision, not torch.float32",
        ),
        (nn.Linear(8, 4).half(), two_of_four(4, 8), "this device has no 2:4 kernel"),
    ],
)
def test_where_there_is_no_such_kernel_it_is_said_why(
    module: nn.Module, mask: torch.Tensor, reason: str
) -> None:
    assert semi_structured_reason(module, {"weight": mask}) == reason


@pytest.mark.skipif(not HAS_KERNELS, reason="needs a GPU with 2:4 kernels")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_inference_on_tensor_cores_equals_dense_inference(dtype: torch.dtype) -> None:
    model = nn.Linear(256, 128).to("cuda", dtype)
    mask = two_of_four(128, 256).cuda()
    model.weight.data *= mask
    rows = torch.randn(64, 256, device="cuda", dtype=dtype)
    with torch.no_grad():
        expected = model(rows)
        with SparseExecution(model, {"weight": mask}) as execution:
            assert execution.kernels == {"": SPARSE_2_4}
            torch.testing.assert_close(model(rows), expected, rtol=2e-2, atol=2e-2)
            model.weight.mul_(2)
            torch.testing.assert_close(model(rows), 2 * expected - model.bias, rtol=2e-2, atol=2e-2)
