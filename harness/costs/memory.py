"""Peak memory, as what is added to what the process held before."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
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

    To be built before the model, so that model, gradients and optimiser all count. On a GPU it
    is the memory of torch's allocator on that device; elsewhere the resident memory of the
    process, known on Linux only.

    What happens between `pause` and `resume` does not count, and neither does what it leaves
    behind: libraries that it loaded, memory that was freed and not given back to the system.

    A process has one high-water mark, so phases do not nest: `start` ends the phase before, of
    whichever `PeakMemory`, whose `peak` is then None with a reason.

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
        PeakMemory._running = self
        with self._noting_failure():
            gc.collect()
            self._give_back()
            self._held = self._held_at_first = self._in_use()
            self._reset()

    def start(self) -> None:
        """Begin a phase: the peak is again what is in use now."""
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
        """Leave out what happens from here on."""
        if PeakMemory._running is not self or self._paused_at is not None:
            return
        with self._noting_failure():
            self._highest = max(self._highest, self._mark() - self._held)
            self._collect_young()
            self._give_back()
            self._paused_at = self._in_use()

    def resume(self) -> None:
        """Go on with the phase."""
        if PeakMemory._running is not self or self._paused_at is None:
            return
        with self._noting_failure():
            self._highest_of_all = max(self._highest_of_all, self._mark())
            self._collect_young()
            self._give_back()
            if self._in_use() - self._paused_at > _SUSPICIOUS_BYTES:
                gc.collect()  # what is freed only later would then be missing from the phase
                self._give_back()
            self._held += self._in_use() - self._paused_at
            self._paused_at = None
            self._reset()

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
        """Return the peak since construction, pauses included: what the machine must have."""
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
        """Free the cycles of what was made lately; going through everything takes 0.2 s."""
        gc.collect(1)

    def _give_back(self) -> None:
        """Give what was freed back to the system: it is not in use."""
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


def _status(field: str) -> int:
    """Return a size from the process's status file, in bytes."""
    for line in (_PROCESS / "status").read_text().splitlines():
        name, _, kibibytes = line.partition(":")
        if name == field:
            return int(kibibytes.split()[0]) * 1024
    raise OSError(f"the kernel tells no {field}")


@dataclass(frozen=True)
class Measured:
    """A measured number; None with a reason where it could not be had."""

    value: int | float | None
    reason: str | None = None


_MARK = "harness: memory counts here"
_ALLOCATION = "[memory]"


class Allocations:
    """Follows all allocations in its context, and has the peak of the parts that count.

    ::

        with Allocations() as allocations:
            network = build()
            with allocations.counting():
                step(network)
        allocations.peak()
    """

    def __init__(self) -> None:
        # The profiler's library is talkative otherwise; it reads this when it is first used.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)

    def __enter__(self) -> Allocations:
        gc.collect()  # so that nothing is freed meanwhile whose allocation was not seen
        self._profile.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._profile.__exit__(*raised)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Let the peak be among those of this context."""
        with record_function(_MARK):
            yield

    def peak(self) -> Measured:
        """Return the most bytes that were allocated at once, since the beginning, where it counts.

        None with a reason where this version of torch does not say.
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
            return Measured(None, f"torch {torch.__version__} does not tell allocations: {error}")
        times = [when for when, _ in changes]
        in_use = list(accumulate(size for _, size in changes))
        counted = [
            size
            for when, size in zip(times, in_use, strict=True)
            if any(begin <= when <= end for begin, end in stretches)
        ]
        if not counted:
            return Measured(None, f"torch {torch.__version__} has told no allocations")
        return Measured(max(counted))
