"""Operations whose rules let channels pass, or pin them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import RequestError
from pruners.channels import trace_channels
from tests.helpers.cutting import Between, assert_right, images


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has none")
def test_matrices_of_experts_stay_because_their_kernel_allows_few_widths() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.up = nn.Linear(4, 16), nn.Parameter(torch.randn(2, 16, 8))
            self.last = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Any:
            ends = torch.tensor([3, 5], dtype=torch.int32)
            return self.last(torch._grouped_mm(self.first(x), self.up, offs=ends))

    with pytest.raises(RequestError, match=r"first.weight:0: a kernel that takes multiples of 16"):
        trace_channels(Experts(), torch.randn(5, 4))


def test_parameters_that_are_never_used_stay_whole() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
            self.token = nn.Parameter(torch.zeros(1, 8))

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
            x = self.first(x)
            return self.last(x if mask is None else torch.where(mask, self.token, x))

    assert assert_right(Masked(), torch.randn(3, 4).double()) == {"first": 8}
    assert trace_channels(Masked(), torch.zeros(3, 4)).pinned["token:1"] == (
        "the traced pass never uses it"
    )


@pytest.mark.parametrize(
    "add",
    [
        lambda x, rows, new: x.index_add(0, rows, new),
        lambda x, rows, new: x.index_copy(0, rows, new),
        lambda x, rows, new: x.index_put((rows,), new, accumulate=True),
        lambda x, rows, new: x.scatter_add(0, rows[:, None].expand_as(new), new),
        lambda x, rows, new: torch.where(x > 0, x, 0) + new,
    ],
)
def test_messages_are_added_row_by_row(add: Any) -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.message = nn.Linear(4, 8), nn.Linear(8, 8)
            self.last = nn.Linear(8, 2)

        def forward(self, x: Tensor, source: Tensor, target: Tensor) -> Any:
            x = self.first(x)
            return self.last(add(torch.zeros_like(x), target, self.message(x[source])))

    edges = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 0])
    assert assert_right(Graph(), torch.randn(4, 4).double(), *edges).get("first") == 8


def test_setting_masked_values_to_a_number_pins_nothing() -> None:
    def without_negatives(x: Tensor) -> Any:
        x = x.clone()
        x[x < 0] = 0
        return x

    assert assert_right(Between(without_negatives), images()) == {"first": 8}


ALONG_OTHER_AXES = {
    "fft": lambda x: torch.fft.rfft2(x).abs(),
    "complex": lambda x: torch.complex(x, x).abs(),
    "polar": lambda x: torch.polar(x, x).real,
    "view_as_complex": lambda x: torch.view_as_complex(x.unflatten(3, (-1, 2))).abs(),
    "rot90": lambda x: x.rot90(1, (2, 3)),
    "diagonal": lambda x: x.diagonal(0, 2, 3)[..., None],
    "aminmax": lambda x: torch.stack(torch.aminmax(x, dim=3), 3),
    "kthvalue": lambda x: x.kthvalue(2, 3, keepdim=True)[0],
    "sort": lambda x: x.sort(3)[0],
    "argsort": lambda x: x * x.argsort(2),
    "topk": lambda x: x.topk(2, 3)[0],
    "triu": lambda x: x.triu(),
    "quantile": lambda x: x.quantile(0.5, 3, keepdim=True),
    "median": lambda x: x.median(3, keepdim=True)[0],
    "cummax": lambda x: x.cummax(3)[0],
    "matrix_exp": lambda x: torch.matrix_exp(x),
    "cross": lambda x: torch.linalg.cross(x[..., :3], x[..., 3:]),
    "rrelu": F.rrelu,
    "bucketize": lambda x: torch.bucketize(x, torch.arange(4.0)).double(),
    "count_nonzero": lambda x: x.count_nonzero((2, 3))[..., None, None] * x,
    "diag_embed": lambda x: x.mean((2, 3)).diag_embed()[..., None].sum(2, keepdim=True),
    "mse_loss": lambda x: F.mse_loss(x, x.flip(3), reduction="none"),
    "var_mean": lambda x: torch.cat(torch.var_mean(x, (2, 3), keepdim=True), 3),
    "out": lambda x: torch.mul(x.detach(), 2, out=torch.empty_like(x)) + x,
    "normal": lambda x: x + 0 * torch.normal(0.0, 1.0, (x.shape[1], 1, 1)),
    "unfold": lambda x: x.unfold(-2, 2, 2).sum(-1),
    "index_fill": lambda x: x.index_fill(2, torch.tensor([0]), 0.0),
    "repeat": lambda x: x + x.new_ones(1, 1, 1, 1).repeat(1, x.shape[1], 1, 1),
}


@pytest.mark.parametrize("name", ALONG_OTHER_AXES)
def test_operations_along_other_axes_let_channels_pass(name: str) -> None:
    assert assert_right(Between(ALONG_OTHER_AXES[name]), images()) == {"first": 8}


def test_regions_and_deformed_kernels_are_followed() -> None:
    ops = pytest.importorskip("torchvision.ops")

    class Regions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.offset = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 18, 3, padding=1)
            self.deformed = ops.DeformConv2d(8, 6, 3, padding=1)
            self.last = nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            x = self.deformed(x, self.offset(x))
            boxes = torch.tensor([[0, 0.0, 0.0, 3.0, 3.0]], dtype=x.dtype)
            return self.last(ops.roi_align(x, boxes, 2))

    assert assert_right(Regions(), images()) == {"first": 8, "deformed": 6}


def test_a_loss_inside_the_network_keeps_its_classes() -> None:
    class Learning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Any:
            return F.cross_entropy(self.last(self.first(x)), torch.tensor([0, 4, 2]))

    model = Learning()
    graph = trace_channels(model, torch.randn(3, 4))
    assert graph.sizes() == {"first": 8}
    assert "classes" in graph.pinned["last.weight:0"]
