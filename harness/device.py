"""The device that a run uses."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import RequestError, nearest

if TYPE_CHECKING:
    import torch

_NAME = re.compile(r"cpu|cuda(:\d{1,2})?")


def find_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is the first GPU, or the CPU if there is none.

    Raises:
        RequestError: this machine has no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if not _NAME.fullmatch(name):
        meant = name.lower().replace("gpu", "cuda")
        hint = nearest(name, ("auto", "cpu", "cuda", "cuda:1"))
        if _NAME.fullmatch(meant):
            hint = f"; did you mean {meant!r}?"
        raise RequestError(f"unknown device {name!r}{hint}")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            there = f"{count or 'no'} GPU{'' if count == 1 else 's'}"
            raise RequestError(f"device {name!r} is not there: this machine has {there}")
    return device


def describe_device(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return _processor()


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
