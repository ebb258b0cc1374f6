"""Sizes that the code reads from tensors are followed; numbers in the code pin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.errors import RequestError
from pruners.channels.tracing import trace_channels
from tests.helpers.cutting import reason, sizes


def test_slices_at_a_size_read_from_a_tensor_are_followed() -> None:
    assert sizes(lambda x: torch.cat([x, x], 1)[:, : x.shape[1]]) == [8]
    assert sizes(lambda x: torch.cat([x, x], 1)[:, -x.size(1) :]) == [8]
    assert sizes(lambda x: torch.cat([x, x], 1).split(x.size(1), 1)[1]) == [8]
    assert sizes(lambda x: x[:, : x.shape[1] // 2], outgoing=4) == [4]


def test_a_size_stands_for_its_own_axis_and_not_for_another_of_the_same_length() -> None:
    """The right half starts at the size of the left half, and has the size of the right one."""

    class Joined(nn.Module):
        def __init__(self, part: Any) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
            self.part, self.last = part, nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Any:
            left, right = self.left(x), self.right(x)
            return self.last(self.part(torch.cat([left, right], 1), left.size(1), right.size(1)))

    def names(part: Any) -> set[str]:
        return set(trace_channels(Joined(part), torch.zeros(2, 3, 4, 4)).sizes())

    assert names(lambda x, left, right: x[:, left:]) == {"left", "right"}
    assert names(lambda x, left, right: x[:, -right:]) == {"left", "right"}
    assert names(lambda x, left, right: x[:, right:]) == {"left"}, "as wide as each other"
    assert names(lambda x, left, right: x[:, -left:]) == {"left"}


def test_slices_at_a_number_are_pinned() -> None:
    assert "written in the code" in reason(lambda x: x[:, :6], outgoing=6)
    assert "written in the code" in reason(lambda x: x[:, ::3], outgoing=3)
    assert "written in the code" in reason(lambda x: x.split([6, 2], 1)[0], outgoing=6)
    assert "written in the code" in reason(lambda x: x[:, : x.shape[1] * 3 // 4], outgoing=6)
    assert "written in the code" in reason(lambda x: x.split(x.shape[1] * 3 // 4, 1)[0], outgoing=6)


def test_one_of_each_run_of_neighbours_ties_the_run() -> None:
    assert sizes(lambda x: torch.stack([-x[:, 1::2], x[:, ::2]], 2).flatten(1, 2)) == [4]
    assert sizes(lambda x: x[:, 2::4], outgoing=2) == [2]
    assert "written in the code" in reason(lambda x: x[:, 5::4], outgoing=1)
    assert "written in the code" in reason(lambda x: x[:, :6:2], outgoing=3)


def test_the_difference_of_two_sizes_is_followed() -> None:
    class Parts(nn.Module):
        def __init__(self, split: Any) -> None:
            super().__init__()
            self.first, self.split = nn.Conv2d(3, 8, 1), split
            self.part, self.rest = nn.Conv2d(3, 2, 1), nn.Conv2d(5, 2, 1)

        def forward(self, x: Tensor) -> Any:
            part, rest = self.split(self.first(x), self.part.in_channels)
            return self.part(part) + self.rest(rest)

    splits = [
        lambda x, size: x.split((size, x.shape[1] - size), 1),
        lambda x, size: (x[:, :size], x[:, size - x.shape[1] :]),
        lambda x, size: (x.narrow(1, 0, size), x.narrow(1, size, x.shape[1] - size)),
    ]
    for split in splits:
        graph = trace_channels(Parts(split), torch.zeros(2, 3, 4, 4))
        assert sorted(graph.sizes().values()) == [3, 5]
    with pytest.raises(RequestError, match="written in the code"):
        trace_channels(Parts(lambda x, size: x.split([3, 5], 1)), torch.zeros(2, 3, 4, 4))
    # Only the part whose size is written in the code is pinned.
    graph = trace_channels(Parts(lambda x, size: x.split([size, 5], 1)), torch.zeros(2, 3, 4, 4))
    assert graph.sizes() == {"first": 3}


def test_a_channel_that_only_lends_its_shape_pins_none() -> None:
    def positions(x: Tensor) -> Any:
        return x + torch.zeros(x[:, 3].shape[1]) + torch.zeros(x[:, :5].shape[-1])

    assert sizes(positions) == [8]


def test_channels_that_are_tied_to_one_are_pinned_with_the_module_that_ties_them() -> None:
    class Reversed(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x + torch.cat([x[:, x.shape[1] // 2 :], x[:, : x.shape[1] // 2]], 1).flip(1)

    shuffles = nn.Sequential(Reversed(), *[nn.ChannelShuffle(2) for _ in range(3)], Reversed())
    model: Any = nn.Sequential(
        nn.Conv2d(3, 8, 1), shuffles, nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)
    )
    graph = trace_channels(model, torch.zeros(2, 3, 4, 4))
    assert graph.sizes() == {"2": 4}
    assert graph.pinned["0.weight:0"].startswith("tied to the 7 others, in 1.")


def test_reshaping_to_sizes_read_from_a_tensor_is_followed() -> None:
    def groups_side_by_side(x: Tensor) -> Any:
        batch, channels, *rest = x.shape
        return x.view(batch, 2, channels // 2, *rest).flatten(1, 2)

    assert sizes(groups_side_by_side) == [4]
    assert sizes(lambda x: x.unflatten(1, (2, x.shape[1] // 2)).flatten(1, 2)) == [4]
    assert sizes(lambda x: x.reshape(2, -1, 6, 6)) == [8]
    assert sizes(lambda x: x.reshape(2, x.numel() // 72, 6, 6)) == [8]
    assert sizes(lambda x: x.flatten(1).view_as(x)) == [8]


def test_reshaping_to_numbers_is_pinned() -> None:
    assert "written in the code" in reason(lambda x: x.view(2, 8, 36).view(2, 8, 6, 6))
    assert "written in the code" in reason(lambda x: x.view(2, 2, 4, 6, 6).flatten(1, 2))


def test_new_tensors_are_as_large_as_the_code_says() -> None:
    assert sizes(lambda x: x + torch.zeros(2, x.shape[1], 1, 1)) == [8]
    assert sizes(lambda x: torch.einsum("bchw,cd->bdhw", x, torch.eye(x.shape[1]).to(x))) == [8]
    assert "outside" in reason(lambda x: x + torch.zeros(2, 8, 1, 1))
    assert "outside" in reason(lambda x: x + torch.arange(8)[:, None, None])
    assert "outside" in reason(lambda x: x + x.new_ones(1, 1, 1, 1).expand(-1, 8, -1, -1))
    assert "outside" in reason(lambda x: x + x.new_ones(1, 1, 1, 1).repeat(1, 8, 1, 1))


def test_sizes_that_the_code_reads_from_modules_are_followed() -> None:
    class State(nn.Module):
        def __init__(self, width: Callable[[Any], int]) -> None:
            super().__init__()
            self.cell, self.out = nn.GRUCell(3, 6), nn.Linear(6, 2)
            self.width = width

        def forward(self, x: Tensor) -> Any:
            return self.out(self.cell(x, torch.zeros(len(x), self.width(self))))

    state = State(lambda model: model.cell.hidden_size)
    assert trace_channels(state, torch.zeros(2, 3)).sizes() == {"cell": 6}
    assert type(state.cell.hidden_size) is int
    with pytest.raises(RequestError, match="no channel that can be removed"):
        trace_channels(State(lambda model: 6), torch.zeros(2, 3))
