"""Peak memory beyond what the process held before."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.profiler import ProfilerActivity, profile, record_function

_PROCESS = Path("/proc/self")
_RESET_HIGH_WATER_MARK = "5"
_SUSPICIOUS_BYTES = 1 << 20
_BETWEEN = "another measurement of memory began in between"


class PeakMemory:
    """The most memory in use since the last `start`, beyond what was in use at construction.

    Build it before the model, so that model, gradients and optimizer all count. On a GPU it reads
    torch's allocator for that device. On a CPU it reads the resident memory of the process, which
    only Linux reports.

    Memory used between `pause` and `resume` does not count, and neither does memory that stays
    behind: loaded libraries, and freed memory that was not returned to the system.

    A process has one high-water mark, so phases do not nest: `start` ends the phase of any other
    `PeakMemory`, whose `peak` is then None with a reason. Only `part` measures within a phase.

    Args:
        device: where the model will live.
    """

    _running: ClassVar[PeakMemory | None] = None

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._unavailable: str | None = None
        self._held = 0
        self._held_at_first = 0
        self._highest = 0
        self._highest_of_all = 0
        self._paused_at: int | None = None
        self._part: _Part | None = None
        PeakMemory._running = self
        with self._noting_failure():
            gc.collect()
            self._give_back()
            self._held = self._held_at_first = self._in_use()
            self._reset()

    def start(self) -> None:
        """Begin a phase: reset the peak to the memory in use."""
        is_first = PeakMemory._running is self
        PeakMemory._running = self
        self._highest, self._paused_at = 0, None
        with self._noting_failure():
            if is_first:
                self._highest_of_all = max(self._highest_of_all, self._mark())
            self._collect_young()
            self._give_back()
            self._reset()

    def pause(self) -> None:
        """Stop counting."""
        if PeakMemory._running is not self or self._paused_at is not None:
            return
        with self._noting_failure():
            self._note_peak()
            self._collect_young()
            self._give_back()
            self._paused_at = self._in_use()

    def resume(self) -> None:
        """Continue counting."""
        if PeakMemory._running is not self or self._paused_at is None:
            return
        with self._noting_failure():
            self._highest_of_all = max(self._highest_of_all, self._mark())
            self._collect_young()
            self._give_back()
            if self._in_use() - self._paused_at > _SUSPICIOUS_BYTES:
                gc.collect()  # garbage freed later would be subtracted from the phase
                self._give_back()
            stayed = self._in_use() - self._paused_at
            self._held += stayed
            if self._part is not None:
                self._part.held += stayed
            self._paused_at = None
            self._reset()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop counting in a context, which may be within another."""
        if self._paused_at is not None:
            yield
            return
        self.pause()
        try:
            yield
        finally:
            self.resume()

    @contextlib.contextmanager
    def part(self) -> Iterator[Callable[[], Measured]]:
        """Measure a part of the phase; parts neither nest nor begin in a pause.

        Yields:
            Returns, after the part, its peak beyond what was in use when it began, in bytes.
        """
        part = _Part()
        with self._noting_failure():
            self._note_peak()
            self._give_back()
            part.held = self._in_use()
            self._reset()
        self._part = part
        try:
            yield lambda: self._measured(part.highest)
        finally:
            with self._noting_failure():
                self._note_peak()
            self._part = None

    def _note_peak(self) -> None:
        mark = self._mark()
        self._highest_of_all = max(self._highest_of_all, mark)
        self._highest = max(self._highest, mark - self._held)
        if self._part is not None:
            self._part.highest = max(self._part.highest, mark - self._part.held)

    def peak(self) -> Measured:
        """Return the peak of the phase so far, in bytes."""
        highest = self._highest
        if PeakMemory._running is not self:
            return Measured(None, _BETWEEN)
        if self._paused_at is None:
            with self._noting_failure():
                highest = max(highest, self._mark() - self._held)
        return self._measured(highest)

    def peak_of_all(self) -> Measured:
        """Return the peak since construction, pauses included: the memory that a machine needs."""
        highest = self._highest_of_all
        if PeakMemory._running is not self:
            return Measured(None, _BETWEEN)
        with self._noting_failure():
            highest = max(highest, self._mark())
        return self._measured(highest - self._held_at_first)

    def _measured(self, highest: int) -> Measured:
        if self._unavailable is not None:
            return Measured(None, self._unavailable)
        return Measured(max(highest, 0))

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._unavailable = f"the process's peak memory is not available here: {error}"

    def _collect_young(self) -> None:
        """Free recent reference cycles; a full collection takes 0.2 s."""
        gc.collect(1)

    def _give_back(self) -> None:
        """Return freed memory to the system."""
        if self._device.type != "cuda":
            with contextlib.suppress(AttributeError):
                ctypes.CDLL(None).malloc_trim(0)

    def _reset(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            (_PROCESS / "clear_refs").write_text(_RESET_HIGH_WATER_MARK)

    def _in_use(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        return _status("VmRSS")

    def _mark(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return _status("VmHWM")


@dataclass
class _Part:
    """A part of a phase: the memory in use when it began, and its peak beyond that."""

    held: int = 0
    highest: int = 0


def _status(field: str) -> int:
    """Return a size from the process's status file, in bytes."""
    for line in (_PROCESS / "status").read_text().splitlines():
        name, _, kibibytes = line.partition(":")
        if name == field:
            return int(kibibytes.split()[0]) * 1024
    raise OSError(f"the kernel does not report {field}")


@dataclass(frozen=True)
class Measured:
    """A measured number; or None, with the reason why it could not be measured."""

    value: int | float | None
    reason: str | None = None


_MARK = "harness: memory counts here"
_ALLOCATION = "[memory]"


class Allocations:
    """Records all CPU allocations in its context, and returns the peak of the parts that count.

    ::

        with Allocations() as allocations:
            network = build()
            with allocations.counting():
                step(network)
        allocations.peak()
    """

    def __init__(self) -> None:
        # Silences the profiler's library, which reads this when it is first used.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)

    def __enter__(self) -> Allocations:
        gc.collect()  # or memory allocated earlier would be freed within the context
        self._profile.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._profile.__exit__(*raised)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the peak within this context."""
        with record_function(_MARK):
            yield

    def peak(self) -> Measured:
        """Return the largest number of bytes allocated at once in the parts that count.

        None with a reason if this version of torch does not report allocations.
        """
        try:
            profiler: Any = self._profile.profiler
            events = profiler.kineto_results.events()
            marks = [event for event in events if event.name() == _MARK]
            changes = sorted(
                (event.start_ns(), event.nbytes())
                for event in events
                if event.name() == _ALLOCATION and event.device_type().name == "CPU"
            )
            stretches = [(mark.start_ns(), mark.start_ns() + mark.duration_ns()) for mark in marks]
        except AttributeError as error:
            return Measured(None, f"torch {torch.__version__} does not report allocations: {error}")
        times = [when for when, _ in changes]
        in_use = list(accumulate(size for _, size in changes))
        counted = [
            size
            for when, size in zip(times, in_use, strict=True)
            if any(begin <= when <= end for begin, end in stretches)
        ]
        if not counted:
            return Measured(None, f"torch {torch.__version__} has reported no allocations")
        return Measured(max(counted))
