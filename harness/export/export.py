"""Export the network of a finished run, load it again and compare the two."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from harness.api import AnyPath, plugin_files
from harness.errors import RequestError, RunFailed, enumerated, nearest
from harness.record import Record
from harness.registry import Registry
from harness.results.measured import find_measured
from harness.storage.files import UNFINISHED, is_there
from harness.storage.store import WEIGHTS, Store
from harness.text import size

TOLERANCE = 1e-4
"""The largest permitted difference of an output, as a fraction of its largest absolute value."""

BATCH_SIZES = (1, 5)
"""The numbers of samples with which a network that was loaded again is compared."""


@dataclass(frozen=True)
class Format:
    """A format of exported networks.

    Attributes:
        network: the file that holds the weights.
        needs: packages without which it cannot be written and checked.
    """

    network: str
    needs: tuple[str, ...] = ()


FORMATS: Mapping[str, Format] = {
    "safetensors": Format("model.safetensors"),
    "pt2": Format("network.pt2"),
    "onnx": Format("network.onnx", ("onnx", "onnxscript", "onnxruntime")),
    "hub": Format("model.safetensors"),
}
"""The formats by name."""


class ExportedFile(TypedDict):
    """A file of an export."""

    name: str
    bytes: int
    sha256: str


class Export(TypedDict):
    """What was exported, and how it was checked."""

    run_id: str
    format: str
    folder: str
    files: list[ExportedFile]
    batch_sizes: list[int]
    """The numbers of samples with which the loaded network was compared."""
    difference: float
    """The largest difference of an output."""
    relative_difference: float
    """The largest difference as a fraction of the output's largest absolute value."""
    remark: str | None
    """What removed weights take in this format, if they are still there as zeros."""


def export_network(
    run: AnyPath,
    format: str,  # noqa: A002 - as the option is called
    to: AnyPath,
    *,
    results: AnyPath = "results",
    data: AnyPath = "data",
    plugins: AnyPath | Iterable[AnyPath] = (),
) -> Export:
    """Export the network of a finished run, in evaluation mode and with masks folded in.

    The network is loaded again from the written files, and both are compared on training samples.
    The folder appears only if they agree.

    Args:
        run: the run's folder, its name, the beginning of its name, or its hash.
        format: ``"safetensors"``, ``"pt2"``, ``"onnx"`` or ``"hub"``.
        to: the folder to write, which must not exist.
        results: folder of runs and their records.
        data: folder of official data.
        plugins: the plug-in files that the run used.

    Raises:
        RequestError: there is no such run or format, the run has no network, the folder exists, or
            a package is not installed.
        RunFailed: the task builds another network today, the network cannot be exported, or the
            loaded network differs by more than `TOLERANCE`.
    """
    target = Path(to)
    _require_format(format)
    _require_new(target)
    folder, record = _finished_run(str(run), Path(results))
    registry = Registry(plugin_files(plugins))
    # Importing torch takes seconds, so the request is checked first.
    from harness.export import formats
    from harness.export.program import trace
    from harness.network import load_finished

    network = load_finished(folder, registry, Path(data))
    program = trace(network, max(BATCH_SIZES), record["spec"]["seed"])
    with _appearing(target) as new:
        formats.write(format, program, new, record, Store(folder.parent))
        absolute, relative = formats.difference(format, program, new, BATCH_SIZES)
        if not relative <= TOLERANCE:
            raise RunFailed(
                f"{record['run_id']}: loaded again from {format}, the network differs by "
                f"{absolute:.2g}, which is {relative:.2g} of the largest output; "
                f"{TOLERANCE:g} is permitted"
            )
        written = [_described(path) for path in sorted(new.iterdir())]
        weights = new / FORMATS[format].network
        remark = _remark(record, weights) if program.has_masks else None
    return {
        "run_id": record["run_id"],
        "format": format,
        "folder": str(target),
        "files": written,
        "batch_sizes": list(BATCH_SIZES),
        "difference": absolute,
        "relative_difference": relative,
        "remark": remark,
    }


def _require_format(name: str) -> None:
    if name not in FORMATS:
        raise RequestError(f"unknown format {name!r}{nearest(name, FORMATS)}")
    missing = [each for each in FORMATS[name].needs if importlib.util.find_spec(each) is None]
    if missing:
        raise RequestError(
            f"the format {name!r} needs packages that are not installed: {enumerated(missing)}; "
            f"pip install 'pruning-benchmark[{name}]' installs them"
        )


def _require_new(target: Path) -> None:
    if is_there(target):
        raise RequestError(f"{target} exists already; an export needs a new folder")
    if is_there(_unfinished(target)):
        raise RequestError(
            f"{_unfinished(target)} is what a killed export has left; remove it first"
        )


def _unfinished(target: Path) -> Path:
    return target.with_name(target.name + UNFINISHED)


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Yield a new folder that becomes the target, or is removed if anything fails."""
    folder = _unfinished(target)
    folder.mkdir(parents=True)
    try:
        yield folder
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _finished_run(name: str, results: Path) -> tuple[Path, Record]:
    """Return the folder of a run and its record, with the measurements of its network."""
    folder = Store(results).locate(name)
    record = find_measured(Store(folder.parent), folder.name)
    if not is_there(folder / WEIGHTS):
        raise RequestError(f"{folder.name} has no network: {WEIGHTS} is missing")
    if record["status"] == "diverged":
        raise RequestError(f"{folder.name} has diverged: {record['reason']}")
    return folder, record


def _remark(record: Record, network: Path) -> str:
    """Return how large a network with masks is, and how large compressed."""
    content = network.read_bytes()
    layers = record["sparsity"]["per_layer"]
    whole = all(layer["shape"] == layer.get("dense_shape") for layer in layers)
    like = "that of the dense network" if whole else "without masks"
    return (
        f"{network.name} holds removed weights as zeros and is about as large as {like}, "
        f"{size(len(content))}; compressed with zlib it takes {size(len(zlib.compress(content)))}"
    )


def _described(path: Path) -> ExportedFile:
    content = path.read_bytes()
    return {
        "name": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
