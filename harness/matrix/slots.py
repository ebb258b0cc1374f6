"""This machine's devices, divided between the runs that are at work at one time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import RequestError
from harness.matrix.executor import Resources
from harness.matrix.pressure import available, total
from harness.text import size

BYTES_PER_RUN = 10**9
"""What a run is taken to need until one like it has been seen."""


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time."""

    device: str
    """As ``--device`` takes it, within the environment."""
    environment: Mapping[str, str]
    """To be set before torch looks for devices."""
    threads: int
    runs_on_device: int
    """How many slots there are on the same device."""


def visible_gpus(count: int) -> list[str]:
    """Return what ``CUDA_VISIBLE_DEVICES`` calls the GPUs, of which torch sees so many."""
    chosen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return ([name for name in chosen if name] or [str(number) for number in range(count)])[:count]


def divide(resources: Resources, gpus: Sequence[str]) -> list[Slot]:
    """Return the slots.

    Args:
        resources: how many are wanted, and where.
        gpus: those that are visible, as ``CUDA_VISIBLE_DEVICES`` calls them.

    Raises:
        RequestError: the device is not there, or what was asked for contradicts itself.
    """
    if resources.exclusive and (resources.jobs or 1) > 1:
        raise RequestError(
            f"--exclusive means one run at a time; --jobs {resources.jobs} asks for more"
        )
    chosen = _chosen(resources.device, gpus)
    cores = len(os.sched_getaffinity(0))
    jobs = 1 if resources.exclusive else resources.jobs or len(chosen) or _room(cores)
    threads = resources.threads or _threads(cores, jobs)
    if not chosen:
        return [Slot("cpu", {"CUDA_VISIBLE_DEVICES": ""}, threads, jobs)] * jobs
    placed = [chosen[number % len(chosen)] for number in range(jobs)]
    return [
        Slot("cuda:0", {"CUDA_VISIBLE_DEVICES": gpu}, threads, placed.count(gpu)) for gpu in placed
    ]


def _chosen(device: str, gpus: Sequence[str]) -> list[str]:
    """Return the GPUs to use, none for the CPU."""
    if device == "cpu":
        return []
    if device == "auto":
        return list(gpus)
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (index or "0").isdecimal():
        raise RequestError(f"unknown device {device!r}; known: auto, cpu, cuda, cuda:1 ...")
    if int(index or 0) >= len(gpus):
        raise RequestError(f"device {device!r} does not exist; GPUs of this machine: {len(gpus)}")
    return [gpus[int(index)]] if index else list(gpus)


def _room(cores: int) -> int:
    """Return for how many runs on the CPU there are cores and memory."""
    return max(1, min(cores, available() // BYTES_PER_RUN))


def _threads(cores: int, jobs: int) -> int:
    """Return a run's share of the cores, or fewer if the user says so in the usual way."""
    share = max(1, cores // jobs)
    most = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(most)) if most.isdecimal() and int(most) else share


def too_large(needed: int) -> str | None:
    """Return why a run of that many bytes can never be begun here, None if it can."""
    if needed <= total():
        return None
    return f"such a run needs {size(needed)} of memory, and this machine has {size(total())}"
