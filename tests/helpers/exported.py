"""Exported networks in the hands of a stranger: a process that lacks this project."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.export.program import network_inputs, outputs_of
from harness.network import load_finished
from harness.registry import Registry

Array = NDArray[Any]

SIZES = (1, 4)
"""How many samples a stranger computes at a time."""

PROJECT = ("harness", "tasks", "pruners", "reports", "benchmarks", "tests")

WITH_TORCH = """
import torch

def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs.detach().numpy()]
    return [array for each in outputs or () for array in flat(each)]

def computes(network):
    return lambda batch: flat(network(*map(torch.from_numpy, batch)))
"""

PLAIN = f"""{WITH_TORCH}
def load():
    return computes(runpy.run_path("load.py")["load"]())
"""

PT2 = f"""{WITH_TORCH}
def load():
    return computes(torch.export.load("network.pt2").module())
"""

ONNX = """
import onnxruntime

def load():
    session = onnxruntime.InferenceSession("network.onnx")
    names = [each.name for each in session.get_inputs()]
    return lambda batch: session.run(None, dict(zip(names, batch)))
"""

USES = {
    "safetensors": (PLAIN, ("safetensors",)),
    "hub": (PLAIN, ("safetensors",)),
    "pt2": (PT2, ("safetensors",)),
    "onnx": (ONNX, ("safetensors", "torch", "onnx", "onnxscript", "scipy")),
}
"""How a stranger loads each format, and what, besides the project, the stranger cannot import."""

BEFORE = """
import os, runpy, sys
import numpy as np

for name in sys.argv[1].split(","):
    sys.modules[name] = None  # so that importing it fails
"""

AFTER = """
for folder in sys.argv[3:]:
    os.chdir(folder)
    compute, samples, results = load(), np.load("samples.npz"), {}
    for size in map(int, sys.argv[2].split(",")):
        for place, output in enumerate(compute([samples[name][:size] for name in samples.files])):
            results[f"{size} {place}"] = output
    np.savez("results.npz", **results)
"""


def strangers_differences(
    format_name: str, exports: Sequence[tuple[Path, Path]], plugins: Sequence[Path] = ()
) -> list[float]:
    """Return how much the outputs of a stranger differ, relative to the largest of each output.

    Args:
        format_name: the format.
        exports: the folders of runs, each with that of its exported network.
        plugins: the plug-in files of the runs.
    """
    wanted = [_expected(run, folder, plugins) for run, folder in exports]
    code, lacking = USES[format_name]
    words = [",".join([*PROJECT, *lacking]), ",".join(map(str, SIZES))]
    words += [str(folder.resolve()) for _, folder in exports]
    ended = subprocess.run(
        [sys.executable, "-c", BEFORE + code + AFTER, *words], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    found = [np.load(folder / "results.npz") for _, folder in exports]
    return [_difference(*pair) for pair in zip(wanted, found, strict=True)]


def _expected(run: Path, folder: Path, plugins: Sequence[Path]) -> dict[str, Array]:
    """Save samples for a stranger, and return what the network of the run computes for them."""
    network = load_finished(run, Registry(plugins), Path("data"))
    inputs = network_inputs(network.task, network.model, max(SIZES), seed=3)
    arrays: dict[str, Any] = {name: each.numpy() for name, each in inputs.items()}
    np.savez(folder / "samples.npz", **arrays)
    with torch.no_grad():
        return {
            f"{size} {place}": output.numpy()
            for size in SIZES
            for place, output in enumerate(
                outputs_of(network.model(*(each[:size] for each in inputs.values())))
            )
        }


def _difference(wanted: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    assert sorted(found) == sorted(wanted)
    return max(
        float(np.abs(found[name] - each).max() / np.abs(each).max())
        for name, each in wanted.items()
    )
