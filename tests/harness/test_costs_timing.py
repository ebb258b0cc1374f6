from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from harness.costs.timing import time_call

CPU = torch.device("cpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_short_call_is_repeated_at_least_fifty_times():
    timing = time_call(lambda: time.sleep(0.002), CPU)
    assert timing.median_ms == pytest.approx(2.5, abs=0.6)
    assert 0 <= timing.interquartile_range_ms < timing.median_ms
    assert timing.repetitions >= 50


def test_the_time_for_a_long_call_is_bounded():
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.05)

    timing = time_call(call, CPU, at_most_seconds=0.4)
    assert 50 <= timing.median_ms < 80
    assert 3 <= timing.repetitions <= 7
    assert timing.repetitions < calls <= 9


def test_even_the_longest_call_is_repeated():
    assert time_call(lambda: time.sleep(0.01), CPU, at_most_seconds=0).repetitions == 3


def test_the_spread_is_that_of_the_middle_half():
    durations = iter([0.01] * 10 + [0.01, 0.02] * 1000)  # the first ten warm up
    timing = time_call(lambda: time.sleep(next(durations)), CPU)
    assert timing.interquartile_range_ms == pytest.approx(10, abs=1)


def test_the_first_calls_are_not_counted():
    durations = iter([0.02] * 10 + [0.01] * 1000)
    assert time_call(lambda: time.sleep(next(durations)), CPU).median_ms < 15


@pytest.mark.usefixtures("two_threads")
def test_denormals_are_flushed_by_all_workers_and_only_while_timing():
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormals")
    tiny = torch.full((1 << 18,), 1e-40)
    assert (tiny * 1).count_nonzero() == len(tiny)  # torch's workers exist from here on
    left: set[float] = set()
    time_call(lambda: left.add((tiny * 1).count_nonzero().item()), CPU, at_most_seconds=0.01)
    assert left == {0}
    assert (tiny * 1).count_nonzero() == len(tiny)


@pytest.mark.usefixtures("two_threads")
def test_torch_keeps_its_number_of_threads():
    seen: set[int] = set()
    time_call(lambda: seen.add(torch.get_num_threads()), CPU, at_most_seconds=0.01)
    assert seen == {2}
    assert torch.get_num_threads() == 2


def test_what_the_call_raises_comes_through():
    with pytest.raises(ZeroDivisionError):
        time_call(lambda: 1 / 0, CPU)
