"""Exported networks in the hands of a stranger: a process that lacks this project."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.export.program import network_inputs, outputs_of
from harness.network import load_finished
from harness.registry import Registry

SIZES = (1, 4)
"""How many samples the stranger computes at a time."""

PROJECT = ("harness", "tasks", "pruners", "reports", "benchmarks", "tests")
"""What the stranger has not."""

BEGINNING = """
import sys
from pathlib import Path
import numpy as np

for name in sys.argv[1].split(","):
    sys.modules[name] = None  # so that importing it fails

samples = np.load("samples.npz")
inputs = [samples[name] for name in samples.files]
results = {}
"""

WITH_TORCH = """
def results_of(batch):
    with torch.no_grad():
        return tensors(network(*map(torch.from_numpy, batch)))

def tensors(returned):
    if isinstance(returned, torch.Tensor):
        return [returned.numpy()]
    return [tensor for each in returned for tensor in tensors(each)]
"""

ENDING = """
for size in map(int, sys.argv[2].split(",")):
    for place, output in enumerate(results_of([each[:size] for each in inputs])):
        results[f"{size} {place}"] = output
np.savez("results.npz", **results)
"""

PLAIN = f"""
import torch
from load import load

network = load()
{WITH_TORCH}
"""

PT2 = f"""
import torch

network = torch.export.load("network.pt2").module()
{WITH_TORCH}
"""

ONNX = """
import onnxruntime

session = onnxruntime.InferenceSession("network.onnx")
names = [each.name for each in session.get_inputs()]

def results_of(batch):
    return session.run(None, dict(zip(names, batch)))
"""

USES: dict[str, tuple[str, tuple[str, ...]]] = {
    "safetensors": (PLAIN, ("safetensors",)),
    "hub": (PLAIN, ("safetensors",)),
    "pt2": (PT2, ("safetensors",)),
    "onnx": (ONNX, ("safetensors", "torch", "onnx", "onnxscript", "scipy")),
}
"""How each format is used, and which packages, besides the project, the stranger has not."""


def strangers_difference(
    format_name: str, folder: Path, run: Path, plugins: Sequence[Path] = ()
) -> float:
    """Return how much the outputs of a stranger differ, relative to the largest of each output.

    Args:
        format_name: the format.
        folder: the exported network.
        run: the run whose network it is.
        plugins: the plug-in files of the run.
    """
    network = load_finished(run, Registry(plugins), Path("data"))
    inputs = network_inputs(network.task, network.model, max(SIZES), seed=3)
    np.savez(folder / "samples.npz", **{name: each.numpy() for name, each in inputs.items()})
    code, lacking = USES[format_name]
    script = BEGINNING + code + ENDING
    words = [",".join([*PROJECT, *lacking]), ",".join(map(str, SIZES))]
    ended = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=folder, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    found = np.load(folder / "results.npz")
    wanted: dict[str, Tensor] = {}
    for size in SIZES:
        with torch.no_grad():
            outputs = outputs_of(network.model(*(each[:size] for each in inputs.values())))
        wanted |= {f"{size} {place}": output for place, output in enumerate(outputs)}
    assert sorted(found.files) == sorted(wanted)
    return max(
        float(np.abs(found[name] - each.numpy()).max() / each.abs().max())
        for name, each in wanted.items()
    )
