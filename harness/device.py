"""Where to run."""

from __future__ import annotations

import torch

from harness.errors import RequestError


def find_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is the first GPU, or else the CPU.

    Raises:
        RequestError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(f"unknown device {name!r}; known: auto, cpu, cuda, cuda:0 ...") from None
    if device.type not in ("cpu", "cuda"):
        raise RequestError(f"device {name!r} is not supported; known: auto, cpu, cuda")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise RequestError(f"device {name!r} is not there: this machine has {count} GPUs")
    return device
