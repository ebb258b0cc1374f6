"""Peak memory: of the process, of the allocator of a GPU, and of the allocations of torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from harness.costs import memory
from harness.costs.memory import Allocations, Measured, PeakMemory

CPU = torch.device("cpu")
MIB = 1024**2

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports peak memory")


def allocate(mebibytes: int) -> torch.Tensor:
    return torch.ones(mebibytes * MIB, dtype=torch.uint8)


def mebibytes(measured: Measured) -> float:
    assert measured.value is not None, measured.reason
    return measured.value / MIB


@needs_linux
def test_the_peak_is_the_memory_that_was_added_even_if_it_was_freed() -> None:
    held_before = allocate(50)
    peak = PeakMemory(CPU)
    model = allocate(32)
    del model
    assert mebibytes(peak.peak()) == pytest.approx(32, abs=6)
    del held_before


@needs_linux
def test_a_new_phase_forgets_the_peak_but_not_the_model() -> None:
    peak = PeakMemory(CPU)
    model = allocate(32)
    allocate(64)
    assert mebibytes(peak.peak()) == pytest.approx(96, abs=6)
    peak.start()
    assert mebibytes(peak.peak()) == pytest.approx(32, abs=6)
    allocate(16)
    assert mebibytes(peak.peak()) == pytest.approx(48, abs=6)
    del model


@needs_linux
def test_memory_freed_before_the_phase_counts_when_it_is_reused() -> None:
    def many_small() -> list[bytearray]:
        return [bytearray(2000) for _ in range(20_000)]

    small = many_small()
    last = bytearray(2000)  # keeps the heap from shrinking by itself
    del small
    peak = PeakMemory(CPU)
    small = many_small()
    assert mebibytes(peak.peak()) > 30
    del small, last


@needs_linux
def test_phases_do_not_nest() -> None:
    outer = PeakMemory(CPU)
    PeakMemory(CPU)
    assert outer.peak() == Measured(None, "another measurement of memory began in between")
    outer.start()
    assert outer.peak().value is not None


def test_without_proc_there_is_a_reason_and_no_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "missing")
    measured = PeakMemory(CPU).peak()
    assert measured.value is None
    assert "not available here" in (measured.reason or "")


def test_a_peak_that_may_not_be_reset_gives_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "status").write_text("VmHWM:\t 900 kB\nVmRSS:\t 800 kB\n")
    (tmp_path / "clear_refs").mkdir()  # cannot be written to
    monkeypatch.setattr(memory, "_PROCESS", tmp_path)
    measured = PeakMemory(CPU).peak()
    assert measured.value is None
    assert "clear_refs" in (measured.reason or "")


class Allocator:
    """Stands in for the allocator of torch on a GPU."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = self.most = 100
        patch.setattr(torch.cuda, "memory_allocated", lambda device: self.now)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.most)
        patch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)

    def reset(self, device: object) -> None:
        self.most = self.now

    def take(self, size: int, left: int) -> None:
        """Allocate ``size`` bytes and free all but ``left``."""
        self.most = max(self.most, self.now + size)
        self.now += left


def test_memory_taken_in_a_pause_does_not_count_and_neither_does_memory_it_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allocator = Allocator(monkeypatch)
    peak = PeakMemory(torch.device("cuda"))
    allocator.take(10, left=10)
    peak.pause()
    allocator.take(1000, left=30)
    assert peak.peak() == Measured(10)
    peak.resume()
    allocator.take(20, left=0)
    peak.pause()
    allocator.take(0, left=-5)
    peak.resume()
    allocator.take(15, left=0)
    assert peak.peak() == Measured(30)
    assert peak.peak_of_all() == Measured(1010)
    peak.start()
    assert peak.peak() == Measured(10)
    assert peak.peak_of_all() == Measured(1010)


def test_pausing_twice_is_pausing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator = Allocator(monkeypatch)
    peak = PeakMemory(torch.device("cuda"))
    peak.resume()
    peak.pause()
    allocator.take(1000, left=30)
    peak.pause()
    peak.resume()
    allocator.take(7, left=0)
    assert peak.peak() == Measured(7)


def test_a_pause_within_another_ends_with_the_outer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    allocator = Allocator(monkeypatch)
    peak = PeakMemory(torch.device("cuda"))
    with peak.paused():
        with peak.paused():
            allocator.take(1000, left=0)
        allocator.take(2000, left=0)
    allocator.take(7, left=0)
    assert peak.peak() == Measured(7)


def test_the_peak_on_a_gpu_comes_from_the_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 350)
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(str(device))
    )
    peak = PeakMemory(torch.device("cuda:1"))
    assert peak.peak() == Measured(250)
    assert calls == ["cuda:1"]


# What torch reports of its allocations on a processor


def numbers(count: int) -> torch.Tensor:
    return torch.empty(count, dtype=torch.float32)


def test_the_peak_of_allocations_is_exact_to_the_byte() -> None:
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


def test_the_scratch_memory_of_an_operation_counts() -> None:
    """The logarithm of a sum of exponentials needs a tensor as large as its input."""
    with Allocations() as allocations:
        inputs = torch.ones(10_000)
        with allocations.counting():
            torch.logsumexp(inputs, 0)
    peak = allocations.peak().value
    assert peak is not None
    assert peak >= 2 * 40_000


def test_allocations_outside_the_counted_parts_do_not_count() -> None:
    with Allocations() as allocations:
        numbers(10**6)
        with allocations.counting():
            numbers(10)
        numbers(10**6)
        with allocations.counting():
            numbers(30)
    assert allocations.peak() == Measured(120)


def test_memory_from_before_does_not_count_and_neither_does_freeing_it() -> None:
    before = numbers(10**6)
    with Allocations() as allocations, allocations.counting():
        numbers(10)
        del before
        numbers(5)
    assert allocations.peak() == Measured(40)


def test_no_counted_part_gives_a_reason_and_no_zero() -> None:
    with Allocations() as allocations:
        numbers(10)
    peak = allocations.peak()
    assert peak.value is None
    assert "no allocations" in (peak.reason or "")


def test_a_torch_that_reports_no_allocations_gives_a_reason() -> None:
    with Allocations() as allocations, allocations.counting():
        numbers(10)
    allocations._profile.profiler = None
    peak = allocations.peak()
    assert peak.value is None
    assert "does not report allocations" in (peak.reason or "")


@needs_linux
def test_a_part_has_a_peak_of_its_own_beyond_what_was_held() -> None:
    peak = PeakMemory(CPU)
    model = allocate(32)
    allocate(64)
    with peak.part() as part:
        allocate(16)
        peak.pause()
        allocate(128)  # does not count
        kept = allocate(8)
        peak.resume()
        allocate(24)
    assert mebibytes(part()) == pytest.approx(24, abs=6)
    assert mebibytes(peak.peak()) == pytest.approx(96, abs=6)
    assert mebibytes(peak.peak_of_all()) == pytest.approx(32 + 128, abs=8)
    del model, kept
