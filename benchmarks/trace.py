"""How long it takes to find the channels of networks at their real size."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from benchmarks.measurement import Comparison, in_new_process
from harness.costs.memory import PeakMemory
from pruners.channels.tracing import trace_channels
from tasks.images.networks import NETWORKS
from tasks.nyu.model import FCRN

FCRN_SECONDS = 3.0
RESNEXT_SECONDS = 60.0
RESNEXT_BYTES = 2e9


def resnext() -> nn.Module:
    """Return ResNeXt101-32x48d with its 829 million parameters, without their values."""
    with torch.device("meta"):
        return NETWORKS["resnext101_32x48d"](width=64, classes=1000)


@dataclass(frozen=True)
class Traced:
    """What building and tracing a network costs."""

    seconds: float
    """Of tracing alone."""
    bytes: float
    """Peak memory of both."""


def measure() -> list[Comparison]:
    """Trace each network in a new process on one thread; the limits are absolute."""
    small = in_new_process(_measure, "fcrn")
    large = in_new_process(_measure, "resnext")
    return [
        Comparison("trace ResNet50-FCRN", small.seconds, FCRN_SECONDS, "s", 1),
        Comparison("trace ResNeXt101-32x48d", large.seconds, RESNEXT_SECONDS, "s", 1),
        Comparison("the same, memory", large.bytes / 1e6, RESNEXT_BYTES / 1e6, "MB", 1),
    ]


def _measure(name: Literal["fcrn", "resnext"]) -> Traced:
    """Build and trace one network, in a process that has done nothing else."""
    torch.set_num_threads(1)
    memory = PeakMemory(torch.device("cpu"))
    model = FCRN("resnet50", 64) if name == "fcrn" else resnext()
    began = time.perf_counter()
    trace_channels(model, torch.zeros(1, 3, 64, 64, device="meta"))
    seconds = time.perf_counter() - began
    peak = memory.peak()
    if peak.value is None:
        raise RuntimeError(peak.reason)
    return Traced(seconds, peak.value)
