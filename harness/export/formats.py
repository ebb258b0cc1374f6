"""The formats: how each is written, and how it is loaded again, as a user would load it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from harness.errors import RunFailed
from harness.export.model_card import write_model_card
from harness.export.plain_torch import LOADER, write_plain_torch
from harness.export.program import BATCH, Computation, Program, first_line
from harness.record import Record
from harness.storage.store import Store

CONFIG, PT2, ONNX = "config.json", "network.pt2", "network.onnx"
"""Files: the shapes of layers, inputs and outputs; and the network in two of the formats."""


def write(format_name: str, program: Program, folder: Path, record: Record, store: Store) -> None:
    """Write a network into a folder.

    Args:
        format_name: a name in `harness.export.export.FORMATS`.
        program: the traced network.
        folder: an empty folder.
        record: of the run.
        store: the results that the model card compares with.
    """
    (folder / CONFIG).write_text(_config(program, record), encoding="utf-8")
    match format_name:
        case "safetensors":
            write_plain_torch(program, folder, record["run_id"])
        case "hub":
            write_plain_torch(program, folder, record["run_id"])
            write_model_card(folder, record, store)
        case "pt2":
            torch.export.save(program.exported, folder / PT2)
        case "onnx":
            _write_onnx(program, folder / ONNX)


def load(format_name: str, folder: Path) -> Computation:
    """Return a function that computes the outputs of the network in a folder."""
    match format_name:
        case "pt2":
            network: Computation = torch.export.load(folder / PT2).module()
            return network
        case "onnx":
            return _load_onnx(folder / ONNX)
    loaded: Computation = runpy.run_path(str(folder / LOADER))["load"]()
    return loaded


def difference(
    format_name: str, program: Program, folder: Path, sizes: Sequence[int]
) -> tuple[float, float]:
    """Load a network again and compare its outputs with those of the original.

    Args:
        format_name: a name in `harness.export.export.FORMATS`.
        program: the traced network.
        folder: what `write` has written.
        sizes: with how many samples to compare.

    Returns:
        The largest difference of an output, and the largest as a fraction of the largest absolute
        value of that output; infinite where an output is not a number.

    Raises:
        RunFailed: it cannot be loaded or computed, or returns other tensors.
    """
    try:
        network = load(format_name, folder)
        found = [tensor for size in sizes for tensor in program.outputs(size, network)]
    except Exception as error:  # of many kinds, from the libraries of the formats
        raise RunFailed(
            f"what was written as {format_name} cannot be used: {first_line(error)}"
        ) from error
    wanted = [tensor for size in sizes for tensor in program.outputs(size)]
    if [(each.shape, each.dtype) for each in found] != [(e.shape, e.dtype) for e in wanted]:
        raise RunFailed(f"what was written as {format_name} returns tensors of other shapes")
    absolute, relative = zip(*map(_difference, wanted, found), strict=True)
    return max(absolute), max(relative)


def _difference(wanted: Tensor, found: Tensor) -> tuple[float, float]:
    """Return the largest difference of two tensors, and its ratio to the largest wanted value."""
    distances = (wanted.double() - found.double()).abs()
    largest = float(distances.where(wanted != found, 0.0).max())
    scale = float(wanted.double().abs().max())
    if largest == 0:
        return 0.0, 0.0
    return (largest, largest / scale) if math.isfinite(largest) and scale else (math.inf, math.inf)


def _write_onnx(program: Program, path: Path) -> None:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    inputs, outputs = program.shapes()
    try:
        with _without_warnings("torch.onnx._internal.exporter"):
            translated = torch.onnx.export(
                program.exported,
                input_names=list(inputs),
                output_names=list(outputs),
                # Of axes that are equal, only one may be named.
                dynamic_shapes=({0: BATCH}, *({} for _ in list(inputs)[1:])),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise RunFailed(f"torch.onnx cannot express the network: {first_line(error)}") from error
    assert translated is not None
    # Where in torch each operation comes from takes more space than small networks.
    ClearMetadataAndDocStringPass()(translated.model)
    translated.save(path)


@contextlib.contextmanager
def _without_warnings(name: str) -> Iterator[None]:
    """Log errors only: torch warns where a network returns None, as one without a state may."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _load_onnx(path: Path) -> Computation:
    import onnx
    import onnxruntime

    onnx.checker.check_model(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        arrays = (tensor.numpy() for tensor in inputs)
        returned = session.run(None, dict(zip(names, arrays, strict=True)))
        return [torch.from_numpy(array) for array in returned]

    return run


def _config(program: Program, record: Record) -> str:
    """Return what a program that reads the network may want to know, as JSON."""
    inputs, outputs = program.shapes()
    layers = {
        name: {
            "type": type(module).__name__,
            **{own: list(tensor.shape) for own, tensor in _own_tensors(module)},
        }
        for name, module in program.network.model.named_modules()
        if _own_tensors(module)
    }
    config = {
        "run": record["run_id"],
        "task": record["spec"]["task"],
        "pruner": record["spec"]["pruner"],
        "weights_removed": record["sparsity"]["weights"],
        "inputs": {
            name: {"shape": shape, "type": str(program.samples[name].dtype).removeprefix("torch.")}
            for name, shape in inputs.items()
        },
        "outputs": {name: {"shape": shape} for name, shape in outputs.items()},
        "layers": layers,
    }
    return f"{_json(config, lines=2)}\n"


def _json(value: object, lines: int, indent: str = " ") -> str:
    """Return JSON with a line for each entry of an object, and of the objects in it.

    Args:
        value: what to write.
        lines: how deep objects are written in several lines.
        indent: of these lines.
    """
    if not isinstance(value, dict) or not value or lines == 0:
        return json.dumps(value)
    entries = [
        f"{indent}{json.dumps(name)}: {_json(each, lines - 1, indent + ' ')}"
        for name, each in value.items()
    ]
    return "\n".join(["{", ",\n".join(entries), f"{indent[1:]}}}"])


def _own_tensors(module: torch.nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
