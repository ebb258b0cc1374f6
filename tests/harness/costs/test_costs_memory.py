from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from harness.costs import memory
from harness.costs.memory import Measured, PeakMemory

CPU = torch.device("cpu")
MIB = 1024**2

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the mark is Linux's")


def allocate(mebibytes: int) -> torch.Tensor:
    return torch.ones(mebibytes * MIB, dtype=torch.uint8)


def mebibytes(measured: Measured) -> float:
    assert measured.value is not None, measured.reason
    return measured.value / MIB


@needs_linux
def test_the_peak_is_what_was_added_even_if_it_is_gone_again():
    held_before = allocate(50)
    peak = PeakMemory(CPU)
    model = allocate(32)
    del model
    assert mebibytes(peak.peak()) == pytest.approx(32, abs=6)
    del held_before


@needs_linux
def test_a_new_phase_forgets_the_peak_but_not_the_model():
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
def test_memory_freed_before_counts_again_when_it_is_used_again():
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
def test_phases_do_not_nest():
    outer = PeakMemory(CPU)
    PeakMemory(CPU)
    assert outer.peak() == Measured(None, "another measurement of memory began in between")
    outer.start()
    assert outer.peak().value is not None


def test_without_proc_there_is_a_reason_and_no_zero(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "missing")
    measured = PeakMemory(CPU).peak()
    assert measured.value is None
    assert "not available here" in (measured.reason or "")


def test_a_mark_that_may_not_be_reset_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "status").write_text("VmHWM:\t 900 kB\nVmRSS:\t 800 kB\n")
    (tmp_path / "clear_refs").mkdir()  # cannot be written to
    monkeypatch.setattr(memory, "_PROCESS", tmp_path)
    measured = PeakMemory(CPU).peak()
    assert measured.value is None
    assert "clear_refs" in (measured.reason or "")


class Allocator:
    """Stands in for torch's on a GPU."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = self.most = 100
        patch.setattr(torch.cuda, "memory_allocated", lambda device: self.now)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.most)
        patch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)

    def reset(self, device: object) -> None:
        self.most = self.now

    def take(self, size: int, left: int) -> None:
        """Allocate so many bytes and free all but some."""
        self.most = max(self.most, self.now + size)
        self.now += left


def test_a_pause_counts_neither_for_what_it_takes_nor_for_what_it_leaves(
    monkeypatch: pytest.MonkeyPatch,
):
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


def test_to_pause_twice_is_to_pause_once(monkeypatch: pytest.MonkeyPatch):
    allocator = Allocator(monkeypatch)
    peak = PeakMemory(torch.device("cuda"))
    peak.resume()
    peak.pause()
    allocator.take(1000, left=30)
    peak.pause()
    peak.resume()
    allocator.take(7, left=0)
    assert peak.peak() == Measured(7)


def test_on_a_gpu_the_allocator_is_asked(monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 350)
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(str(device))
    )
    peak = PeakMemory(torch.device("cuda:1"))
    assert peak.peak() == Measured(250)
    assert calls == ["cuda:1"]
