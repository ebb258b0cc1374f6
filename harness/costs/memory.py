"""Peak memory, as what is added to what the process held before."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch

from harness.costs.measured import Measured

_PROCESS = Path("/proc/self")
_RESET_HIGH_WATER_MARK = "5"


class PeakMemory:
    """The most memory in use since the last `start`, beyond what was in use at construction.

    To be built before the model, so that model, gradients and optimiser all count. On a GPU it
    is the memory of torch's allocator on that device; elsewhere the resident memory of the
    process, known on Linux only.

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
        self.start()
        with self._noting_failure():
            self._held = self._in_use()

    def start(self) -> None:
        """Begin a phase: the peak is again what is in use now."""
        PeakMemory._running = self
        with self._noting_failure():
            self._reset()

    def peak(self) -> Measured:
        """Return the peak of the phase, in bytes."""
        highest = 0
        if PeakMemory._running is not self:
            return Measured(None, "another measurement of memory began in between")
        with self._noting_failure():
            highest = self._highest()
        if self._unavailable is not None:
            return Measured(None, self._unavailable)
        return Measured(max(highest - self._held, 0))

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._unavailable = f"the process's peak memory is not available here: {error}"

    def _reset(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        # What was freed but not yet given back to the system is not in use.
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        (_PROCESS / "clear_refs").write_text(_RESET_HIGH_WATER_MARK)

    def _in_use(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        return _status("VmRSS")

    def _highest(self) -> int:
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
