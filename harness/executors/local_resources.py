"""This machine's devices, cores and memory, divided between concurrent runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.errors import RequestError
from harness.matrix.executor import Resources
from harness.text import size

BYTES_PER_RUN = 10**9
"""Memory assumed for a run until a similar run is known."""

_CONTAINER = Path("/sys/fs/cgroup")
_RESERVED = 0.05
"""Share of all memory that is left to the rest of the machine."""


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time.

    Attributes:
        device: as ``--device`` takes it, within the environment.
        environment: variables to set before torch looks for devices.
        threads: of the run.
        runs_on_device: number of slots on the same device.
    """

    device: str
    environment: Mapping[str, str]
    threads: int
    runs_on_device: int


def visible_gpus(count: int) -> list[str]:
    """Return the names that ``CUDA_VISIBLE_DEVICES`` gives to the GPUs.

    Args:
        count: the number of GPUs that torch sees.
    """
    chosen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return ([name for name in chosen if name] or [str(number) for number in range(count)])[:count]


def divide(resources: Resources, gpus: Sequence[str]) -> list[Slot]:
    """Return the slots of this machine.

    Args:
        resources: how many slots are requested, and on which device.
        gpus: the visible ones, as ``CUDA_VISIBLE_DEVICES`` names them.

    Raises:
        RequestError: the device does not exist, or the request contradicts itself.
    """
    if resources.exclusive and (resources.jobs or 1) > 1:
        raise RequestError(
            f"--exclusive means one run at a time, but --jobs {resources.jobs} asks for more"
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
    """Return the GPUs to use; none stands for the CPU."""
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
    """Return how many runs fit into the cores and the memory."""
    return max(1, min(cores, available_memory() // BYTES_PER_RUN))


def _threads(cores: int, jobs: int) -> int:
    """Return a run's share of the cores, or fewer if ``OMP_NUM_THREADS`` says so."""
    share = max(1, cores // jobs)
    most = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(most)) if most.isdecimal() and int(most) else share


def why_too_large(needed: int) -> str | None:
    """Return why a run of that many bytes can never start here; None if it can."""
    if needed <= total_memory():
        return None
    return f"such a run needs {size(needed)} of memory, and this machine has {size(total_memory())}"


def total_memory() -> int:
    """Return the memory of the machine, or of the container that this process is in, in bytes."""
    limit = _container_limit()
    physical = int(psutil.virtual_memory().total)
    return physical if limit is None else min(physical, limit)


def available_memory() -> int:
    """Return how many bytes runs may still use; 0 before the kernel begins to kill processes."""
    free = int(psutil.virtual_memory().available)
    limit = _container_limit()
    if limit is not None:
        free = min(free, limit - _container_use())
    return max(0, free - int(_RESERVED * total_memory()))


def memory_of(process: int) -> int:
    """Return how many bytes a process and all its descendants use."""
    used = 0
    try:
        family = [first := psutil.Process(process), *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            used += int(member.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return used


def _container_use() -> int:
    """Return the container's memory use without cached files, which the kernel can drop."""
    pairs = map(str.split, (_CONTAINER / "memory.stat").read_text().splitlines())
    cached = {name: int(value) for name, value in pairs}["inactive_file"]
    return int((_CONTAINER / "memory.current").read_text()) - cached


def _container_limit() -> int | None:
    """Return the memory limit of this process's container; None if there is none."""
    file = _CONTAINER / "memory.max"
    text = file.read_text().strip() if file.exists() else "max"
    return None if text == "max" else int(text)
