"""How long it takes to find the channels of networks at their real size."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet, resnet50

from benchmarks.measurement import Comparison, in_new_process
from harness.costs.memory import PeakMemory
from pruners.channels.tracing import trace_channels

FCRN_SECONDS = 3.0
RESNEXT_SECONDS = 60.0
RESNEXT_BYTES = 2e9


class UpProjection(nn.Module):
    """Twice the size and half the channels (Laina et al. 2016, arXiv:1606.00373)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.first = nn.Conv2d(channels, half, 5, padding=2, bias=False)
        self.first_norm = nn.BatchNorm2d(half)
        self.second = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(half)
        self.projection = nn.Conv2d(channels, half, 5, padding=2, bias=False)
        self.projection_norm = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Put each value into the upper left corner of a 2x2 block of zeros, and convolve."""
        batch, channels, height, width = x.shape
        spread = x.new_zeros(batch, channels, 2 * height, 2 * width)
        spread[:, :, ::2, ::2] = x
        refined = F.relu(self.first_norm(self.first(spread)))
        refined = self.second_norm(self.second(refined))
        return F.relu(refined + self.projection_norm(self.projection(spread)))


def fcrn() -> nn.Module:
    """Return ResNet50 with four up-projections, in place of its pooling and classifier."""
    trunk = list(resnet50(weights=None).children())[:-2]
    between = (nn.Conv2d(2048, 1024, 1, bias=False), nn.BatchNorm2d(1024))
    upwards = [UpProjection(1024 // 2**step) for step in range(4)]
    return nn.Sequential(*trunk, *between, *upwards, nn.Conv2d(64, 1, 3, padding=1))


def resnext() -> nn.Module:
    """Return ResNeXt101-32x48d with its 829 million parameters, without their values."""
    with torch.device("meta"):
        model: nn.Module = ResNet(Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=48)
    return model


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
    model = fcrn() if name == "fcrn" else resnext()
    began = time.perf_counter()
    trace_channels(model, torch.zeros(1, 3, 64, 64, device="meta"))
    seconds = time.perf_counter() - began
    peak = memory.peak()
    if peak.value is None:
        raise RuntimeError(peak.reason)
    return Traced(seconds, peak.value)
