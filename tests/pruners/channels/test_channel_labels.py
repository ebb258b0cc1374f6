"""Unions of labels, and labels of tensors that are viewed in another shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruners.channels.labels import FIXED, FREE, LabelledTensors, LabelSets, free
from pruners.channels.rules.shapes import reshape
from pruners.channels.sizes import Call


def test_united_labels_have_one_root() -> None:
    sets = LabelSets()
    a, b, c = sets.fresh(2), sets.fresh(2), sets.fresh(2)
    sets.unite(a, b)
    sets.unite(b[:1], c[1:])
    roots = sets.roots(np.concatenate([a, b, c]))
    assert roots[0] == roots[2] == roots[5]
    assert roots[1] == roots[3]
    assert len(set(roots.tolist())) == 3


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=15))
def test_roots_are_the_smallest_label_that_is_connected(pairs: list[tuple[int, int]]) -> None:
    sets = LabelSets()
    labels = sets.fresh(10)
    smallest = list(range(10))
    for first, second in pairs:
        sets.unite(labels[[first]], labels[[second]])
        low, high = sorted((smallest[first], smallest[second]))
        smallest = [low if root == high else root for root in smallest]
        assert sets.roots(labels).tolist() == smallest


def test_pinned_channels_give_the_first_reason() -> None:
    sets = LabelSets()
    a, b = sets.fresh(2), sets.fresh(2)
    sets.pin(a[1:], "an output")
    sets.unite(a, b)
    sets.pin(b, "an input")
    assert sets.pinned() == {0: "an input", 1: "an output"}


def test_a_union_with_a_fixed_size_pins() -> None:
    trace = LabelledTensors()
    labels = trace.sets.fresh(3)
    assert trace.unite(free(3), labels).tolist() == labels.tolist()
    assert not trace.sets.pinned()
    trace.unite(labels, np.array([FREE, FIXED, FREE]))
    assert list(trace.sets.pinned()) == [1]


def test_broadcasting_a_single_channel_pins_it_and_couples_nothing() -> None:
    trace = LabelledTensors()
    one, many = trace.sets.fresh(1), trace.sets.fresh(4)
    (result,) = trace.broadcast([4], [one], [many])
    assert result.tolist() == many.tolist()
    assert list(trace.sets.pinned()) == one.tolist()


def test_merging_axes_repeats_labels_and_splitting_undoes_it() -> None:
    trace = LabelledTensors()
    channels = trace.sets.fresh(3)
    (_, merged) = reshape(trace, [free(2), channels, free(4)], (2, 12))
    assert merged.tolist() == np.repeat(channels, 4).tolist()
    axes = reshape(trace, [free(2), merged], (2, 3, 2, 2))
    assert [axis.tolist() for axis in axes[1:]] == [channels.tolist(), [FIXED] * 2, [FIXED] * 2]
    assert len(set(trace.sets.roots(channels).tolist())) == 3


def test_splitting_ties_the_same_offset_of_all_parts() -> None:
    trace = LabelledTensors()
    trace.call = Call(torch.flatten)
    channels = trace.sets.fresh(6)
    _, inner = reshape(trace, [channels], (2, 3))
    assert trace.sets.roots(channels).tolist() == [0, 1, 2, 0, 1, 2]
    assert trace.sets.roots(inner).tolist() == [0, 1, 2]


def merged_and_met() -> tuple[LabelledTensors, Any, Any, Any]:
    """Return the labels of two axes, and of an axis of the same channels as both merged."""
    trace = LabelledTensors()
    trace.call = Call(torch.flatten)
    heads, features = trace.sets.fresh(2), trace.sets.fresh(3)
    (merged,) = reshape(trace, [heads, features], (6,))
    trace.unite(merged, met := trace.sets.fresh(6))
    return trace, heads, features, met


def test_a_position_of_two_merged_labelled_axes_goes_with_either() -> None:
    trace, heads, features, met = merged_and_met()
    trace.sets.settle()
    assert not trace.sets.pinned()
    assert trace.sets.channels(met).tolist() == [
        np.repeat(heads, 3).tolist(),
        np.tile(features, 2).tolist(),
    ]
    stays = trace.sets.without(np.array([heads[0], features[2]]))[met]
    assert stays.tolist() == [False] * 3 + [True, True, False]


def test_parts_of_products_that_meet_are_the_same_channels() -> None:
    trace, heads, features, met = merged_and_met()
    others, more = trace.sets.fresh(2), trace.sets.fresh(3)
    (merged,) = reshape(trace, [others, more], (6,))
    trace.unite(merged, met)
    trace.sets.settle()
    assert trace.sets.roots(others).tolist() == trace.sets.roots(heads).tolist()
    assert trace.sets.roots(more).tolist() == trace.sets.roots(features).tolist()


def test_a_product_that_is_one_of_its_parts_goes_with_that_part_only() -> None:
    trace, heads, features, met = merged_and_met()
    trace.unite(met, np.tile(features, 2))
    trace.sets.settle()
    assert set(trace.sets.roots(heads).tolist()) == trace.sets.pinned().keys()
    assert trace.sets.channels(met).tolist() == [np.tile(features, 2).tolist()]


def test_of_products_of_different_numbers_of_parts_only_the_last_parts_go() -> None:
    trace, heads, _, met = merged_and_met()
    a, b, c = trace.sets.fresh(2), trace.sets.fresh(3), trace.sets.fresh(1)
    parts = np.stack([np.repeat(a, 3), np.tile(b, 2), np.tile(c, 6)])
    trace.unite(trace.sets.product(parts), met)
    trace.sets.settle()
    pinned = trace.sets.pinned()
    assert {*heads.tolist(), *a.tolist(), *b.tolist()} <= pinned.keys()


def test_merged_axes_that_are_split_again_have_their_own_labels_and_none_is_pinned() -> None:
    trace = LabelledTensors()
    trace.call = Call(torch.flatten)
    heads, features = trace.sets.fresh(2), trace.sets.fresh(3)
    (merged,) = reshape(trace, [heads, features], (6,))
    again = reshape(trace, [merged], (2, 3))
    assert [axis.tolist() for axis in again] == [heads.tolist(), features.tolist()]
    trace.sets.settle()
    assert not trace.sets.pinned()


def test_a_position_merged_with_a_pinned_axis_follows_the_other_axis() -> None:
    trace = LabelledTensors()
    trace.call = Call(torch.flatten)
    channels, kernel = trace.sets.fresh(2), trace.sets.fresh(3)
    (merged,) = reshape(trace, [channels, kernel], (6,))
    trace.unite(merged, met := trace.sets.fresh(6))
    trace.pin(kernel, "the extent of a kernel")
    trace.sets.settle()
    assert trace.sets.roots(met).tolist() == np.repeat(trace.sets.roots(channels), 3).tolist()
    assert trace.sets.without(channels[:1])[met].tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize("shape", [(2, 1, 3), (1, 2, 3), (2, 3, 1)])
def test_axes_of_one_position_come_and_go(shape: Any) -> None:
    trace = LabelledTensors()
    channels = trace.sets.fresh(3)
    axes = reshape(trace, [free(2), channels], shape)
    assert [axis.tolist() for axis in axes if len(axis) == 3] == [channels.tolist()]
    assert [len(axis) for axis in axes] == list(shape)
