from __future__ import annotations

import torch
from torch import Tensor

from harness.costs.memory import Allocations, Measured


def numbers(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.float32)


def test_the_peak_is_what_is_there_and_what_is_added_to_the_byte() -> None:
    with Allocations() as allocations:
        model = numbers(1000)
        with allocations.counting():
            first = numbers(2000)
            both = torch.add(first, first)
            del first
            last = numbers(500)
            del both
        del model, last
    assert allocations.peak() == Measured(4 * (1000 + 2000 + 2000))


def test_what_operations_need_within_themselves_counts() -> None:
    """The logarithm of a sum of exponentials needs a tensor as large as its input."""
    with Allocations() as allocations:
        inputs = torch.ones(10_000)
        with allocations.counting():
            torch.logsumexp(inputs, 0)
    peak = allocations.peak().value
    assert peak is not None
    assert peak >= 2 * 40_000


def test_what_is_outside_of_the_counted_parts_is_no_peak() -> None:
    with Allocations() as allocations:
        numbers(10**6)
        with allocations.counting():
            numbers(10)
        numbers(10**6)
        with allocations.counting():
            numbers(30)
    assert allocations.peak() == Measured(120)


def test_what_was_there_before_does_not_count_and_neither_does_its_end() -> None:
    before = numbers(10**6)
    with Allocations() as allocations, allocations.counting():
        numbers(10)
        del before
        numbers(5)
    assert allocations.peak() == Measured(40)


def test_nothing_counted_is_no_zero() -> None:
    with Allocations() as allocations:
        numbers(10)
    peak = allocations.peak()
    assert peak.value is None
    assert "no allocations" in (peak.reason or "")


def test_a_torch_that_tells_something_else_is_a_reason() -> None:
    with Allocations() as allocations, allocations.counting():
        numbers(10)
    allocations._profile.profiler = None
    peak = allocations.peak()
    assert peak.value is None
    assert "does not report allocations" in (peak.reason or "")
