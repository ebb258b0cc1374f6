"""Finding the channels of large networks, and what cutting them brings."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from benchmarks.embedded import CPU
from benchmarks.measurement import Comparison, in_new_process
from harness.costs.memory import PeakMemory
from harness.costs.meter import CostMeter
from harness.engine.final_costs import measure as measure_network
from harness.network import build_task, save_network
from harness.pruning.event import PruningEvents
from harness.pruning.scoring_cost import ScoringCost
from harness.registry import Registry
from harness.spec import plan
from harness.training.trainer import Trainer
from pruners.channels.tracing import trace_channels
from pruners.channels.units import Channels
from pruners.criteria import crop
from pruners.distributions import whole_network
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
    """Of tracing."""
    bytes: float
    """Peak memory of both."""


def trace() -> list[Comparison]:
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


SPARSITY = 0.98
NETWORK = {"model": "vgg16_official", "width": "64", "batch_size": "128"}
"""51 million weights, images of 32x32 in a hundred classes."""

PAPER = {"step_ms": (46, 114), "peak_step_bytes": (0.23, 1.03), "disk_bytes": (36, 1745)}
"""Batch time in ms, memory in GB and "disk" in millions of bits, on a GPU: CroP-S and dense."""


def vgg16() -> list[Comparison]:
    """Cut the VGG16 of the EarlyCroP paper at initialisation, and compare its costs with dense."""
    dense, cut = in_new_process(_costs, 0.0), in_new_process(_costs, SPARSITY)
    units = {"step_ms": ("ms", 1.0), "peak_step_bytes": ("MB", 1e6), "disk_bytes": ("MB", 1e6)}
    lines = []
    for cost, (unit, scale) in units.items():
        published = PAPER[cost][0] / PAPER[cost][1]
        name = f"VGG16 {cost}, CroP-S / dense (paper {published:.2f})"
        lines.append(Comparison(name, cut[cost] / scale, dense[cost] / scale, unit, None))
    return lines


def _costs(sparsity: float) -> dict[str, Any]:
    """Return the costs of the network at a sparsity, in a process that has done nothing else."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    wanted = plan(Registry(), "cifar100", "crop_s", sparsity=SPARSITY, overrides=NETWORK)
    task = build_task(wanted, CPU)
    trainer = Trainer(task, 0, "equal")
    if sparsity > 0:
        channels = Channels(trainer.model, task.forward)
        trainer.units["channels"] = channels
        meter = CostMeter(CPU, measure_energy=False)
        events = PruningEvents(
            trainer,
            task.scoring_batches(0),
            wanted.conditions,
            meter.instrument,
            ScoringCost(meter, task),
        )
        events.prune(channels, crop, [sparsity], whole_network, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        save_network(Path(folder), trainer.model, trainer.units)
        return measure_network(Path(folder), wanted, (), "cpu", 1)
