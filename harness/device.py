"""The device that a run uses."""

from __future__ import annotations

import re

import torch

from harness.errors import RequestError, nearest


def find_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is the first GPU, or the CPU if there is none.

    Raises:
        RequestError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,2})?", name):
        hint = nearest(name, ("auto", "cpu", "cuda", "cuda:1"))
        raise RequestError(f"unknown device {name!r}{hint}")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            there = f"{count or 'no'} GPU{'' if count == 1 else 's'}"
            raise RequestError(f"device {name!r} is not there: this machine has {there}")
    return device
