"""Sizes that modules keep in attributes follow the channels, or pin them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import RequestError
from pruners.channels.gating import verify_shrink
from pruners.channels.groups import ChannelGraph
from pruners.channels.shrinking import shrink
from pruners.channels.tracing import trace_channels
from pruners.channels.units import Channels
from tests.helpers.cutting import assert_same_trajectory, parameters
from tests.helpers.networks import Case


class Conv1D(nn.Module):
    """A layer as in GPT-2, whose width is a number."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.nf, self.weight = outgoing, nn.Parameter(torch.randn(incoming, outgoing))

    def forward(self, x: Tensor) -> Any:
        return (x.view(-1, x.shape[-1]) @ self.weight).view(*x.shape[:-1], self.nf)


class SplitSizes(nn.Module):
    """Parts of different widths with a convolution each, as in MixNet or FasterNet."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.first, self.last = [3, 5], nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.parts = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1) for n in self.sizes)

    def forward(self, x: Tensor) -> Any:
        parts = self.first(x).split(self.sizes, 1)
        return self.last(torch.cat([conv(p) for conv, p in zip(self.parts, parts, strict=True)], 1))


class Heads(nn.Module):
    """Attention whose numbers were computed when it was built, as in most libraries."""

    def __init__(
        self,
        width: int = 12,
        heads: int = 3,
        outgoing: int = 2,
        merged: Any = lambda self: self.embed_dim,
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = width, heads, width // heads
        self.scaling, self.merged = self.head_dim**-0.5, merged
        self.first, self.qkv = nn.Linear(4, width), nn.Linear(width, 3 * width)
        self.out, self.last = nn.Linear(width, width), nn.Linear(width, outgoing)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attention = (query @ key.transpose(-2, -1) * self.scaling).softmax(-1)
        mixed = (attention @ value).transpose(1, 2).reshape(batch, length, self.merged(self))
        return self.last(x + self.out(mixed))


class Rotated(nn.Module):
    """Rotates the halves of a part whose width is a number; the rest is unchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.first, self.last = 6, nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        turned, rest = x[..., : self.part], x[..., self.part :]
        left, right = turned[..., : self.part // 2], turned[..., self.part // 2 :]
        return self.last(torch.cat([-right, left, rest], -1))


class Sizes(nn.Module):
    """One use of a number between two layers."""

    def __init__(self, between: Callable[..., Any], outgoing: int = 8, **numbers: Any) -> None:
        super().__init__()
        self.__dict__.update(numbers)
        self.first, self.between, self.last = nn.Linear(4, 8), between, nn.Linear(outgoing, 2)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.between(self, self.first(x)))


def inputs(*shape: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(*shape, dtype=torch.float64)


def traced(model: Any, x: Any) -> ChannelGraph:
    torch.manual_seed(0)
    model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return trace_channels(model, x)


def assert_follows(model: Any, x: Tensor, groups: Any) -> None:
    """Cut a network in half twice, compare each time, train it, and build it again."""
    graph = traced(model, x)
    assert graph.sizes() == groups
    assert trace_channels(model, x.to("meta")).to_json() == graph.to_json()
    assert ChannelGraph.from_json(graph.to_json()).to_json() == graph.to_json()
    assert_same_trajectory(Case(lambda: copy.deepcopy(model), lambda: (x,), 0), "momentum")
    dense, smaller = model, copy.deepcopy(model)
    for _ in range(2):
        keep = {g.name: torch.randperm(g.size)[: (g.size + 1) // 2] for g in graph.groups}
        smaller_graph = shrink(smaller, graph, keep)
        verify_shrink(dense, graph, keep, smaller, x, tolerance=1e-10)
        assert parameters(smaller) < parameters(dense) or max(graph.sizes().values()) == 1
        dense, smaller, graph = smaller, copy.deepcopy(smaller), smaller_graph


def reasons(model: Any, x: Tensor) -> str:
    with pytest.raises(RequestError, match="no channel that can be removed"):
        traced(model, x)
    wider = nn.Sequential(model, nn.ReLU(), nn.Linear(2, 3), nn.Linear(3, 2)).double()
    return trace_channels(wider, x).pinned["0.first.weight:0"]


def test_the_width_of_a_layer_can_be_a_number() -> None:
    model: Any = nn.Sequential(Conv1D(4, 8), nn.ReLU(), Conv1D(8, 2))
    assert_follows(model, inputs(3, 5, 4), {"0": 8})
    graph = trace_channels(model, inputs(3, 5, 4))
    shrink(model, graph, {"0": [0, 3, 4]})
    assert (model[0].nf, model[2].nf) == (3, 2)
    assert type(model[0].nf) is int


def test_split_sizes_in_a_list_follow_and_the_list_is_a_new_one() -> None:
    model: Any = SplitSizes()
    sizes = model.sizes
    groups = {"first": 3, "first#2": 5, "last": 3, "last#2": 5}
    assert_follows(model, inputs(2, 3, 4, 4), groups)
    graph = trace_channels(model, inputs(2, 3, 4, 4))
    shrink(model, graph, {"first": [0], "first#2": [0, 1, 4]})
    assert model.sizes == [1, 3]
    assert sizes == [3, 5]


@pytest.mark.parametrize(
    "merged",
    [
        lambda self: self.embed_dim,
        lambda self: self.num_heads * self.head_dim,
        lambda self: self.head_dim * self.num_heads,
        lambda self: -1,
    ],
)
def test_whole_heads_and_the_features_within_them_can_be_removed(merged: Any) -> None:
    model: Any = Heads(merged=merged)
    assert_follows(model, inputs(2, 5, 4), {"first": 12, "qkv": 3, "qkv#2": 4})
    graph = trace_channels(model, inputs(2, 5, 4))
    kinds = ["residual width", "attention heads", "head width"]
    assert [group.kind for group in graph.groups] == kinds
    shrink(model, graph, {"qkv": [1], "qkv#2": [0, 3]})
    assert (model.num_heads, model.head_dim) == (1, 2)
    assert model.qkv.weight.shape == (3 * 1 * 2, 12)
    assert model.out.weight.shape == (12, 1 * 2)
    assert model(inputs(2, 5, 4)).shape == (2, 5, 2)


def test_heads_whose_number_is_written_in_the_code_lose_features_only() -> None:
    model: Any = Heads(merged=lambda self: self.head_dim * 3)
    assert_follows(model, inputs(2, 5, 4), {"first": 12, "qkv": 4})
    graph = trace_channels(model, inputs(2, 5, 4))
    assert "written in the code" in graph.whole["attention heads"]
    shrink(model, graph, {"qkv": [0, 3]})
    assert (model.num_heads, model.head_dim) == (3, 2)
    assert model(inputs(2, 5, 4)).shape == (2, 5, 2)


def test_slices_at_numbers_and_at_their_halves_follow() -> None:
    assert_follows(Rotated(), inputs(3, 4), {"first": 3, "first#2": 2})


@pytest.mark.parametrize(
    ("between", "numbers", "outgoing", "groups"),
    [
        (lambda m, x: x.unflatten(-1, (2, m.half)).flatten(-2), {"half": 4}, 8, [4]),
        (lambda m, x: x.view(len(x), m.width // 2, 2).flatten(-2), {"width": 8}, 8, [4]),
        (lambda m, x: x.split((m.a, m.width - m.a), -1)[1], {"a": 3, "width": 8}, 5, [3, 5]),
        (lambda m, x: x.split([m.a, m.b], -1)[0], {"a": 3, "b": 5}, 3, [3, 5]),
        (lambda m, x: x.narrow(-1, m.a, m.b), {"a": 3, "b": 5}, 5, [3, 5]),
        (lambda m, x: x + torch.zeros(m.width, device=x.device), {"width": 8}, 8, [8]),
        (lambda m, x: x + x.new_zeros(1).expand(m.width), {"width": 8}, 8, [8]),
        (lambda m, x: x + x.new_zeros(1).repeat(m.width), {"width": 8}, 8, [8]),
        (lambda m, x: F.layer_norm(x, (m.width,)), {"width": 8}, 8, [8]),
        (lambda m, x: F.rms_norm(x, (m.width,)), {"width": 8}, 8, [8]),
        (lambda m, x: x.view(m.shape), {"shape": (3, 8)}, 8, [8]),
        (lambda m, x: x.view(-1, m.widths["out"]), {"widths": {"out": 8}}, 8, [8]),
        (lambda m, x: x.view(-1, sum(m.parts)), {"parts": [3, 5]}, 8, [3, 5]),
    ],
)
def test_numbers_that_are_used_as_sizes_follow(
    between: Callable[..., Any], numbers: Any, outgoing: int, groups: Any
) -> None:
    model = Sizes(between, outgoing, **numbers)
    graph = traced(model, inputs(3, 4))
    assert sorted(graph.sizes().values()) == groups
    assert_follows(model, inputs(3, 4), graph.sizes())


@pytest.mark.parametrize(
    ("between", "numbers"),
    [
        (lambda m, x: x.view(-1, m.width) * m.width**-0.5, {"width": 8}),
        (lambda m, x: x.view(-1, m.width) / m.width, {"width": 8}),
        (lambda m, x: x.view(-1, m.width) / math.sqrt(m.width), {"width": 8}),
        (lambda m, x: x.view(-1, m.width) / np.sqrt(m.width), {"width": 8}),
        (lambda m, x: x.view(-1, m.width) * float(m.width), {"width": 8}),
        (lambda m, x: x.view(-1, m.width) * int(m.width), {"width": 8}),
        (lambda m, x: x.view(-1, m.width) * (m.width > 6), {"width": 8}),
        (lambda m, x: x.view(-1, m.width) + torch.tensor(m.width), {"width": 8}),
        (lambda m, x: x.view(-1, m.width).roll(m.width, 0), {"width": 8}),
        (lambda m, x: x.view(-1, m.a * m.b) * m.a * m.b, {"a": 4, "b": 2}),
    ],
)
def test_numbers_with_another_use_pin_the_axes_of_their_size(
    between: Callable[..., Any], numbers: Any
) -> None:
    reason = reasons(Sizes(between, **numbers), inputs(3, 4))
    assert "used as a number" in reason or "compared with a number" in reason


def test_a_comparison_pins_unless_both_sizes_change_alike() -> None:
    def checked(model: Any, x: Tensor) -> Any:
        assert x.shape[-1] == model.width
        assert model.width > 0
        return x

    assert_follows(Sizes(checked, width=8), inputs(3, 4), {"first": 8})

    def choosing(model: Any, x: Tensor) -> Any:
        return x.view(-1, model.width) if model.width == 8 else x

    assert "compared" in reasons(Sizes(choosing, width=8), inputs(3, 4))


def test_two_axes_with_one_number_stay_equally_long() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.left, self.right = 6, nn.Linear(4, 6), nn.Linear(4, 6)
            self.last, self.other = nn.Linear(6, 2), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Any:
            left = self.left(x).view(-1, self.width)
            return self.last(left) + self.other(self.right(x).view(-1, self.width))

    assert_follows(Shared(), inputs(3, 4), {"left": 6})


def test_a_number_that_is_also_a_fixed_size_pins() -> None:
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.first, self.last = 6, nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Any:
            return self.last(self.first(x.view(self.width, 4)).view(-1, self.width))

    assert "outside" in reasons(Square(), inputs(6, 4))


def test_normalisation_without_a_scale_counts_the_remaining_channels() -> None:
    for norm in (nn.LayerNorm, nn.RMSNorm):
        model = nn.Sequential(
            nn.Linear(4, 8), norm(8, elementwise_affine=False), nn.Linear(8, 6),
            norm(6, elementwise_affine=False), nn.Linear(6, 2),
        )  # fmt: skip
        assert_follows(model, inputs(3, 4), {"0": 8, "2": 6})
        graph = trace_channels(model, inputs(3, 4))
        shrink(model, graph, {"0": [2, 5, 7]})
        assert model[1].normalized_shape == (3,)


def test_the_transformer_of_torch_updates_its_width() -> None:
    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Linear(6, 16), nn.Linear(16, 5)
            self.body = nn.Transformer(16, 4, 1, 1, 24, batch_first=True)

        def forward(self, x: Tensor, y: Tensor) -> Any:
            return self.out(self.body(self.embed(x), self.embed(y)))

    model, x = Translator(), (inputs(2, 7, 6), inputs(2, 5, 6))
    graph = traced(model, x)
    hidden = {f"body.{part}.layers.0.linear1": 24 for part in ("encoder", "decoder")}
    assert graph.sizes() == {"embed": 4, **hidden}
    smaller, keep = copy.deepcopy(model), dict.fromkeys(hidden, range(1, 24, 2))
    shrink(smaller, graph, keep)
    verify_shrink(model, graph, keep, smaller, x, tolerance=1e-10)
    shrink(model, graph, {"embed": [0, 2]})
    assert model.body.d_model == 8
    assert model(*x).shape == (2, 5, 5)


def test_tracing_does_not_change_the_numbers() -> None:
    model: Any = Heads().double().eval()
    before = {**vars(model)}
    traced(model, inputs(2, 5, 4))
    assert all(vars(model)[name] is value for name, value in before.items())


def test_a_saved_network_gets_its_numbers_back() -> None:
    torch.manual_seed(0)
    x = inputs(2, 5, 4)

    def forward(model: Any) -> Any:
        return model(x)

    model, fresh = Heads().double(), Heads().double()
    fresh.load_state_dict(model.state_dict())
    units = Channels(model, forward)
    optimizer = torch.optim.Adam(model.parameters())
    target_network = copy.deepcopy(model)
    for kept in (3, 2):
        some = {name: torch.arange(len(mask)) < kept for name, mask in units.alive().items()}
        units.apply(model, optimizer, [target_network], some)
    again = Channels(fresh, forward)
    again.restore(fresh, units.state())
    assert fresh.head_dim == model.head_dim == target_network.head_dim == 2
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), model(x))


def test_a_model_with_other_numbers_is_refused() -> None:
    model: Any = nn.Sequential(Conv1D(4, 8), Conv1D(8, 2))
    graph = traced(model, inputs(3, 4))
    model[0].nf = 7
    with pytest.raises(RequestError, match=r"another model's: '0\.nf' is 7 here and 8 there"):
        shrink(model, graph, {"0": [0]})
    assert model[0].weight.shape == (4, 8)
