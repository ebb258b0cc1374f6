"""Transformers: which heads, widths and neurons can be removed, and what they are called."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruners.channels import ChannelGraph, ChannelGroup, shrink, trace_channels
from pruners.channels.composition import structures
from pruners.channels.kinds import HEAD_WIDTH, HEADS, NEURONS, OTHER, PATCHES, RESIDUAL
from tests.helpers.cutting import assert_right

WIDTH, HEADS_THERE, FEATURES, LENGTH = 12, 4, 6, 5


class Attention(nn.Module):
    """Attention whose queries share keys and values, two by two unless told otherwise."""

    def __init__(self, groups: int = 2, attend: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.head_dim, self.shared = FEATURES, HEADS_THERE // groups
        self.query = nn.Linear(WIDTH, HEADS_THERE * FEATURES)
        self.key = nn.Linear(WIDTH, groups * FEATURES, bias=False)
        self.value = nn.Linear(WIDTH, groups * FEATURES)
        self.out = nn.Linear(HEADS_THERE * FEATURES, WIDTH)
        self.attend = attend or plain

    def forward(self, x: Tensor) -> Any:
        shape = (*x.shape[:-1], -1, self.head_dim)
        each = (
            layer(x).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = self.attend(self, *each).transpose(1, 2)
        return self.out(mixed.reshape(*x.shape[:-1], -1))


class Block(nn.Module):
    """A pre-norm block and what is in front of it and behind it."""

    def __init__(self, attention: nn.Module, feed_forward: nn.Module) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(3))
        self.attention, self.feed_forward = attention, feed_forward

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        x = x + self.attention(self.norms[0](x))
        x = x + self.feed_forward(self.norms[1](x))
        return self.last(self.norms[2](x))


class Gated(nn.Module):
    """SwiGLU, or GEGLU with one matrix for both halves."""

    def __init__(self, *, halves: bool = False) -> None:
        super().__init__()
        self.halves = halves
        self.gate = nn.Linear(WIDTH, 16 if halves else 8)
        self.up, self.down = nn.Linear(WIDTH, 8), nn.Linear(8, WIDTH)

    def forward(self, x: Tensor) -> Any:
        if self.halves:
            up, gate = self.gate(x).chunk(2, -1)
            return self.down(up * F.gelu(gate))
        return self.down(F.silu(self.gate(x)) * self.up(x))


def repeated(x: Tensor, times: int) -> Tensor:
    batch, heads, length, features = x.shape
    x = x[:, :, None].expand(batch, heads, times, length, features)
    return x.reshape(batch, heads * times, length, features)


def plain(own: Any, query: Tensor, key: Tensor, value: Tensor, bias: Any = 0.0) -> Tensor:
    key, value = repeated(key, own.shared), repeated(value, own.shared)
    scores: Tensor = query @ key.transpose(-2, -1) / 2 + bias
    return scores.softmax(-1) @ value


def fused(own: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, scale=0.5, enable_gqa=True)


def rotary(own: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    angles = torch.arange(LENGTH, device=query.device)[:, None] * own.frequencies
    angles = torch.cat([angles, angles], -1)

    def turned(x: Tensor) -> Tensor:
        left, right = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return x * angles.cos() + torch.cat([-right, left], -1) * angles.sin()

    return plain(own, turned(query), turned(key), value)


def with_table(own: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    places = torch.arange(LENGTH, device=query.device)
    distances = (places[:, None] - places).abs()
    return plain(own, query, key, value, own.table[distances].permute(2, 0, 1))


def with_slopes(own: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    places = torch.arange(LENGTH, device=query.device)
    return plain(own, query, key, value, own.slopes[:, None, None] * places)


def block(attention: nn.Module | None = None, *, halves: bool = False) -> Block:
    torch.manual_seed(0)
    return Block(attention or Attention(), Gated(halves=halves))


def tokens() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, LENGTH, 3, dtype=torch.double)


def sizes_by_kind(model: nn.Module, x: Tensor) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for group in trace_channels(model.double(), x).groups:
        found.setdefault(group.kind, []).append(group.size)
    return found


def members_of(graph: ChannelGraph, kind: str, tensor: str) -> ChannelGroup:
    """Return the first group of a kind that has channels on a tensor."""
    return next(
        group
        for group in graph.groups
        if group.kind == kind and tensor in {member.tensor for member in group.members}
    )


ALL = {RESIDUAL: [WIDTH], HEADS: [2, 2], HEAD_WIDTH: [FEATURES], NEURONS: [8]}
"""Heads are the two groups, and the two queries in each of them."""


@pytest.mark.parametrize(("attend", "heads"), [(plain, [2, 2]), (fused, [2])])
def test_the_queries_of_a_group_go_with_its_keys_and_values(attend: Any, heads: Any) -> None:
    model = block(Attention(attend=attend))
    assert sizes_by_kind(model, tokens()) == {**ALL, HEADS: heads}
    assert_right(model, tokens())
    graph = trace_channels(model, tokens())
    groups = members_of(graph, HEADS, "attention.key.weight")
    shrink(model, graph, {groups.name: [1]})
    attention: Any = model.attention
    assert attention.query.weight.shape == (2 * FEATURES, WIDTH)
    assert attention.key.weight.shape == attention.value.weight.shape == (FEATURES, WIDTH)
    assert attention.out.weight.shape == (WIDTH, 2 * FEATURES)
    assert model(tokens()).shape == (2, LENGTH, 2)


def test_of_queries_that_share_a_single_key_each_goes_alone() -> None:
    model = block(Attention(groups=1))
    assert sizes_by_kind(model, tokens())[HEADS] == [4]
    assert_right(model, tokens())
    graph = trace_channels(model, tokens())
    shrink(model, graph, {members_of(graph, HEADS, "attention.query.weight").name: [0, 3]})
    attention: Any = model.attention
    assert attention.query.weight.shape == (2 * FEATURES, WIDTH)
    assert attention.key.weight.shape == (FEATURES, WIDTH)
    assert attention.shared == 2


def test_with_keys_of_their_own_each_head_goes_alone() -> None:
    assert sizes_by_kind(block(Attention(groups=4)), tokens())[HEADS] == [4]
    assert_right(block(Attention(groups=4)), tokens())


def test_rotary_embeddings_tie_pairs_of_features_and_lose_their_frequencies() -> None:
    attention = Attention(attend=rotary)
    attention.register_buffer("frequencies", torch.rand(FEATURES // 2))
    model = block(attention)
    assert_right(model, tokens())
    graph = trace_channels(model, tokens())
    assert members_of(graph, HEAD_WIDTH, "attention.frequencies").size == FEATURES // 2


@pytest.mark.parametrize(
    ("attend", "name", "shape"),
    [(with_table, "table", (LENGTH, HEADS_THERE)), (with_slopes, "slopes", (HEADS_THERE,))],
)
def test_biases_of_attention_are_cut_with_their_heads(attend: Any, name: str, shape: Any) -> None:
    attention = Attention(attend=attend)
    setattr(attention, name, nn.Parameter(torch.randn(shape)))
    model = block(attention)
    assert_right(model, tokens())
    assert members_of(trace_channels(model, tokens()), HEADS, f"attention.{name}").size == 2


def test_slopes_that_are_computed_from_the_number_of_heads_keep_the_heads() -> None:
    def computed(own: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        places = torch.arange(LENGTH, device=query.device)
        slopes = 2.0 ** -torch.arange(1, own.heads + 1, device=query.device)
        return plain(own, query, key, value, slopes[:, None, None] * places)

    attention = Attention(attend=computed)
    attention.heads = HEADS_THERE  # type: ignore[assignment]  # modules hold numbers, too
    model = block(attention)
    assert HEADS not in sizes_by_kind(model, tokens())
    assert HEADS in trace_channels(model, tokens()).whole
    assert_right(model, tokens())


@pytest.mark.parametrize("halves", [False, True])
def test_gated_neurons_go_with_their_gates(halves: bool) -> None:
    model = block(halves=halves)
    assert sizes_by_kind(model, tokens())[NEURONS] == [8]
    assert_right(model, tokens())


def test_windows_that_are_shifted_keep_all_kinds() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Attention()

        def forward(self, x: Tensor) -> Any:
            batch, length, width = x.shape
            windows = x.roll(-1, 1).reshape(batch * 2, length // 2, width)
            return self.inner(windows).reshape(batch, length, width).roll(1, 1)

    x = torch.randn(2, 6, 3, dtype=torch.double)
    assert sizes_by_kind(block(Windows()), x) == ALL
    assert_right(block(Windows()), x)


def test_a_class_token_and_positions_are_as_wide_as_the_residual_stream() -> None:
    class Pictures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.block = nn.Conv2d(3, WIDTH, 2, stride=2), block()
            self.block.first = nn.Identity()  # type: ignore[assignment]
            self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
            self.positions = nn.Parameter(torch.randn(1, 5, WIDTH))

        def forward(self, x: Tensor) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
            return self.block(x)[:, 0]

    model, x = Pictures(), torch.randn(2, 3, 4, 4, dtype=torch.double)
    assert sizes_by_kind(model, x) == ALL
    residual = members_of(trace_channels(model, x), RESIDUAL, "token")
    cut = {member.tensor for member in residual.members}
    assert {"token", "positions", "patches.weight", "block.norms.0.weight"} <= cut
    assert_right(model, x)


def test_patches_that_no_shortcut_passes_have_a_kind_of_their_own() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 2, stride=2), nn.ReLU(), nn.Conv2d(6, 2, 1))
    assert sizes_by_kind(model, torch.randn(1, 3, 4, 4, dtype=torch.double)) == {PATCHES: [6]}


def test_a_cache_of_keys_and_values_is_left_out_by_forward() -> None:
    class Cached(Attention):
        def forward(self, x: Tensor, cache: bool = True) -> Any:
            return (super().forward(x), self.key(x), self.value(x)) if cache else super().forward(x)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
            self.attention = Cached(groups=4)

        def forward(self, x: Tensor, cache: bool = True) -> Any:
            x = self.first(x)
            if not cache:
                return self.last(x + self.attention(x, cache=False))
            out, key, value = self.attention(x)
            return self.last(x + out), key, value

    def without_cache(model: nn.Module, x: Tensor) -> Any:
        return model(x, cache=False)

    torch.manual_seed(0)
    model = Model().double()
    kept = trace_channels(copy.deepcopy(model), tokens())
    assert {group.kind for group in kept.groups} == {RESIDUAL}
    found = trace_channels(model, tokens(), forward=without_cache)
    assert {group.kind for group in found.groups} == {RESIDUAL, HEADS, HEAD_WIDTH}
    assert_right(model, tokens(), forward=without_cache)


def test_heads_are_not_ranked_with_the_features_within_them() -> None:
    model = block(Attention(groups=4)).double()
    graph = trace_channels(model, tokens())
    classes = structures(model, graph)
    heads, features = (
        members_of(graph, kind, "attention.out.weight") for kind in (HEADS, HEAD_WIDTH)
    )
    assert [member.tensor for member in heads.members] == [m.tensor for m in features.members]
    assert classes[heads.name] != classes[features.name]


def test_groups_that_are_declared_have_no_kind() -> None:
    assert ChannelGroup("hidden", 3, ()).kind == OTHER
