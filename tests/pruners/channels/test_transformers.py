"""What is cut out of the transformers of the tasks, and that it is right."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.costs.operations import count_operations
from pruners.channels import shrink, trace_channels
from pruners.channels.gating import Gates, verify_shrink
from pruners.channels.units import Channels
from tasks.attention import Sizes
from tasks.images.vit import vit
from tasks.ptb.transformer import Transformer
from tests.helpers.cutting import assert_same_trajectory, cut, parameters
from tests.helpers.networks import Case

WORDS, LENGTH = 13, 7


def decoder(**changes: Any) -> Case:
    sizes = Sizes(**{"head_width": 4, "heads": 6, "blocks": 2, **changes})
    return Case(
        lambda: Transformer(WORDS, sizes, LENGTH),
        lambda: (torch.randint(WORDS, (2, LENGTH), generator=torch.Generator().manual_seed(0)),),
        groups=1 + 2 * 2,
        forward=lambda model, tokens: model(tokens)[0],
    )


CASES = {
    "decoder": decoder(positions="rotary"),
    "decoder with learned positions": decoder(positions="learned"),
    "decoder with grouped queries": decoder(positions="rotary", key_heads=3),
    "decoder with a single head of keys": decoder(positions="learned", key_heads=1),
    "vit": Case(
        lambda: vit(4, 5, side=8, blocks=2, channels=1, strides=(1, 2)),
        lambda: (
            torch.randn(3, 1, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0)),
        ),
        groups=3 + 2 * 2,
    ),
}


# What is cut


def test_heads_feed_forward_layers_and_the_stream_of_a_decoder() -> None:
    case = CASES["decoder"]
    graph = trace_channels(case.model(), case.inputs(), forward=case.forward)
    hidden = {f"blocks.{block}.expand": 4 * 24 for block in range(2)}
    heads = {f"blocks.{block}.attention.query": 6 for block in range(2)}
    assert graph.sizes() == {"embedding": 24, **heads, **hidden}


def test_a_head_goes_from_queries_keys_values_and_output() -> None:
    case = CASES["decoder"]
    graph = trace_channels(case.model(), case.inputs(), forward=case.forward)
    members = {
        f"{member.tensor.removeprefix('blocks.0.attention.')}:{member.dim}": member.index[
            1
        ].tolist()
        for member in graph["blocks.0.attention.query"].members
    }
    second = [4, 5, 6, 7]
    assert members == {
        "query.weight:0": second,
        "key.weight:0": second,
        "value.weight:0": second,
        "output.weight:1": second,
    }


def test_queries_that_share_keys_go_together() -> None:
    case = CASES["decoder with grouped queries"]
    graph = trace_channels(case.model(), case.inputs(), forward=case.forward)
    group = graph["blocks.0.attention.query"]
    rows = {member.tensor.split(".")[-2]: len(member.index[0]) for member in group.members}
    assert group.size == 3
    assert rows == {"query": 2 * 4, "key": 4, "value": 4, "output": 2 * 4}


def test_a_vision_transformer_loses_channels_of_its_stem_besides() -> None:
    case = CASES["vit"]
    graph = trace_channels(case.model(), case.inputs())
    assert graph.sizes() == {
        "stem.0": 8,
        "stem.3": 16,
        "stem.6": 16,
        **{f"blocks.{block}.attention.query": 4 for block in range(2)},
        **{f"blocks.{block}.expand": 32 for block in range(2)},
    }
    members = {member.tensor for member in graph["stem.6"].members}
    assert {"positions.vectors", "blocks.1.contract.weight", "classifier.weight"} <= members


def test_only_words_and_places_stay_and_a_single_head_of_keys() -> None:
    single = {
        f"blocks.{n}.attention.{kind}.weight:0" for n in range(2) for kind in ("key", "value")
    }
    for name, case in CASES.items():
        graph = trace_channels(case.model(), case.inputs(), forward=case.forward)
        assert len(graph.groups) == case.groups
        stays = graph.pinned.keys() - (single if "single" in name else set())
        assert stays <= {
            "embedding.weight:0", "vocabulary.weight:0", "vocabulary.bias:0", "positions.weight:0",
            "positions.vectors:0", "classifier.weight:0", "classifier.bias:0", "stem.0.weight:1",
            *(f"stem.{layer}.weight:{axis}" for layer in (0, 3, 6) for axis in (2, 3)),
        }  # fmt: skip


# That it is right


@pytest.mark.parametrize("fraction", [0, 0.2, 0.5])
@pytest.mark.parametrize("name", CASES)
def test_shrunk_equals_masked(name: str, fraction: float) -> None:
    case = CASES[name]
    dense, graph, keep, smaller, again = cut(case, fraction)
    for training in (True, False):
        dense.train(training)
        smaller.train(training)
        verify_shrink(
            dense, graph, keep, smaller, case.inputs(), forward=case.forward, tolerance=1e-10
        )
    assert parameters(smaller) < parameters(dense)
    assert again.sizes() == {group: len(kept) for group, kept in keep.items()}


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("name", CASES)
def test_training_goes_on_as_if_masked(name: str, optimizer: str) -> None:
    assert_same_trajectory(CASES[name], optimizer)


def test_a_cut_decoder_still_ties_its_words() -> None:
    _, _, _, smaller, _ = cut(CASES["decoder"], 0.5)
    assert smaller.vocabulary.weight is smaller.embedding.weight
    assert smaller.embedding.weight.shape == (WORDS, 12)


# Gates


@pytest.mark.parametrize("name", CASES)
def test_every_channel_has_a_gate_that_changes_nothing(name: str) -> None:
    case = CASES[name]
    model, inputs = case.model().eval(), case.inputs()
    graph = trace_channels(model, inputs, forward=case.forward)
    gates = Gates(model, graph)
    assert set(gates.values) == set(graph.sizes())
    with torch.no_grad():
        (expected,) = case.run(model, inputs)
        with gates:
            (found,) = case.run(model, inputs)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"decoder with a single head of keys"}))
def test_a_gate_of_zero_removes_heads_and_hidden_units(name: str) -> None:
    """In the stream it does not: normalisation still counts the channel that it reads as zero.

    Neither does it with a single head of keys and values: the gate only stands on its queries.
    """
    case = CASES[name]
    model, inputs = case.model().eval(), case.inputs()
    graph = trace_channels(model, inputs, forward=case.forward)
    inner = [group for group in graph.groups if "query" in group.name or "expand" in group.name]
    keep = {group.name: list(range(1, group.size)) or [0] for group in inner}
    smaller = copy.deepcopy(model)
    shrink(smaller, graph, keep)
    gates = Gates(model, graph)
    with torch.no_grad(), gates:
        for group in inner:
            if group.size > 1:
                gates.values[group.name][0] = 0
        (gated,) = case.run(model, inputs)
    (cut_out,) = case.run(smaller, inputs)
    torch.testing.assert_close(gated, cut_out.detach(), rtol=0, atol=1e-12)


# Costs


def by_hand(heads: int, key_heads: int, hidden: int, width: int, blocks: int = 2) -> int:
    """Return the multiply-accumulates of a decoder of heads of width 4 for a window."""
    queries_and_output = 2 * LENGTH * width * 4 * heads
    keys_and_values = 2 * LENGTH * width * 4 * key_heads
    attention = 2 * LENGTH * LENGTH * 4 * heads
    feed_forward = 2 * LENGTH * width * hidden
    vocabulary = LENGTH * width * WORDS
    return blocks * (queries_and_output + keys_and_values + attention + feed_forward) + vocabulary


def macs(model: nn.Module) -> int:
    tokens = torch.zeros(1, LENGTH, dtype=torch.long)
    return count_operations(model, lambda: model(tokens), {}).dense_macs


@pytest.mark.parametrize(
    ("name", "key_heads"), [("decoder", 6), ("decoder with grouped queries", 3)]
)
def test_both_products_of_attention_are_counted_before_and_after_a_cut(
    name: str, key_heads: int
) -> None:
    dense, _, _, smaller, _ = cut(CASES[name], 0.5)
    assert macs(dense) == by_hand(6, key_heads, 96, 24)
    kept = key_heads // 2
    assert macs(smaller) == by_hand(6 // key_heads * kept, kept, 48, 12)


def test_what_a_cut_would_leave_is_counted_with_attention() -> None:
    """A budget of multiply-accumulates asks for this number at each number of channels."""
    case = CASES["decoder"]
    model = case.model()
    tokens = torch.zeros(1, LENGTH, dtype=torch.long)
    units = Channels(model, lambda network: network(tokens)[0])
    kept = units.alive()
    kept["blocks.0.attention.query"][:5] = False
    without_five_heads = 5 * 4 * (4 * LENGTH * 24 + 2 * LENGTH * LENGTH)
    assert macs(units.prospect(kept).network()) == by_hand(6, 6, 96, 24) - without_five_heads


def test_the_largest_removal_leaves_a_network_that_runs() -> None:
    for case in CASES.values():
        model, inputs = case.model(), case.inputs()
        graph = trace_channels(model, inputs, forward=case.forward)
        shrink(model, graph, {name: [0] for name in graph.sizes()})
        (output,) = case.run(model, inputs)
        assert isinstance(output, Tensor)
        assert output.isfinite().all()
