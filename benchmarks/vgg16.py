"""What CroP-S makes of the talk's VGG16: its costs at 98 % beside those of the dense network."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.laboratory import CPU
from benchmarks.measurement import Comparison, in_new_process
from harness.engine.final_costs import measure as measure_network
from harness.network import build_task, save_network
from harness.pruning.event import PruningEvents
from harness.registry import Registry
from harness.spec import plan
from harness.training.trainer import Trainer
from pruners.channels.units import Channels
from pruners.criteria import crop
from pruners.distributions import whole_network

SPARSITY = 0.98
NETWORK = {"model": "vgg16_official", "width": "64", "batch_size": "128"}
"""51 million weights, images of 32x32 in a hundred classes."""

TALK = {"step_ms": (46, 114), "peak_step_bytes": (0.23, 1.03), "disk_bytes": (36, 1745)}
"""Batch time in ms, memory in GB and "disk" in millions of bits, on a GPU: CroP-S and dense."""


def measure() -> list[Comparison]:
    """Prune at initialisation, since what is left costs the same however it is trained."""
    dense, cut = in_new_process(_costs, 0.0), in_new_process(_costs, SPARSITY)
    units = {"step_ms": ("ms", 1.0), "peak_step_bytes": ("MB", 1e6), "disk_bytes": ("MB", 1e6)}
    lines = []
    for cost, (unit, scale) in units.items():
        talk = TALK[cost][0] / TALK[cost][1]
        name = f"VGG16 {cost}, CroP-S / dense (talk {talk:.2f})"
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
        batches = task.scoring_batches(0)
        events = PruningEvents(trainer, batches, wanted.conditions, contextlib.nullcontext)
        events.prune(channels, crop, [sparsity], whole_network, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        save_network(Path(folder), trainer.model, trainer.units)
        return measure_network(Path(folder), wanted, (), "cpu", 1)
