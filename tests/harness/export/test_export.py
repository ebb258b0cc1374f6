"""What an export writes, and what it refuses."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import harness
from harness.errors import RequestError, RunFailed
from harness.export import formats, loader
from harness.export.export import Export
from harness.export.program import Computation
from harness.results.example import changed
from harness.storage.store import WEIGHTS, Store
from tests.helpers.commands import Command
from tests.helpers.workbench import POINTS, Workbench


def exported(bench: Workbench, pruner: str, format_name: str = "safetensors") -> Export:
    record = bench.run(pruner, sparsity=0.5)
    to = bench.folder / "exported"
    return harness.export_network(
        record["run_id"], format_name, to, results=bench.folder, plugins=POINTS
    )


def config(bench: Workbench) -> Any:
    return json.loads((bench.folder / "exported" / "config.json").read_text())


# What is written


def test_the_tensors_have_the_names_and_values_of_the_network(bench: Workbench) -> None:
    run_id = exported(bench, "crop_s")["run_id"]
    network = harness.load(bench.folder / run_id, plugins=[POINTS]).state_dict()
    tensors = load_file(bench.folder / "exported" / "model.safetensors")
    assert tensors.keys() == network.keys()
    assert all(torch.equal(tensors[name], network[name]) for name in network)


def test_masks_are_folded(bench: Workbench) -> None:
    """Half of the 80 weights are zeros in the file."""
    exported(bench, "crop_u")
    tensors = load_file(bench.folder / "exported" / "model.safetensors")
    zeros = sum(int((tensors[name] == 0).sum()) for name in ("0.weight", "4.weight"))
    assert zeros == 40


def test_the_shapes_are_those_of_the_network_that_is_left(bench: Workbench) -> None:
    exported(bench, "crop_s")
    told = config(bench)
    left = len(load_file(bench.folder / "exported" / "model.safetensors")["0.bias"])
    assert 0 < left < 10
    assert told["inputs"] == {"input": {"shape": ["batch", 6], "type": "float32"}}
    assert told["outputs"] == {"output": {"shape": ["batch", 2]}}
    assert told["layers"]["0"] == {"type": "Linear", "weight": [left, 6], "bias": [left]}
    assert told["layers"]["4"] == {"type": "Linear", "weight": [2, left], "bias": [2]}


def test_every_file_is_named_with_its_checksum(bench: Workbench) -> None:
    files = exported(bench, "dense", "hub")["files"]
    folder = bench.folder / "exported"
    names = ["README.md", "config.json", "load.py", "model.safetensors", "network.py"]
    assert [each["name"] for each in files] == [".gitattributes", *names]
    for each in files:
        content = (folder / each["name"]).read_bytes()
        assert each["sha256"] == hashlib.sha256(content).hexdigest()
        assert each["bytes"] == len(content)


def test_the_loader_has_at_most_30_lines_and_needs_torch_only() -> None:
    text = Path(loader.__file__).read_text()
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)]
    assert len(text.splitlines()) <= 30
    assert {alias.name for node in imports for alias in node.names} == {"json", "runpy", "torch"}


def test_only_masks_need_a_remark(bench: Workbench) -> None:
    assert exported(bench, "crop_s")["remark"] is None


def test_a_network_with_masks_is_as_large_as_dense(bench: Workbench) -> None:
    dense = exported(bench, "dense")
    (bench.folder / "exported").rename(bench.folder / "dense")
    masked = exported(bench, "crop_u")
    sizes = [
        each["bytes"]
        for export in (dense, masked)
        for each in export["files"]
        if each["name"] == "model.safetensors"
    ]
    assert sizes[0] == sizes[1]
    assert masked["remark"] is not None
    assert "is about as large as that of the dense network, 1.14 kB; compressed" in masked["remark"]


# The command


def test_the_command_says_what_it_wrote(bench: Workbench, command: Command) -> None:
    run_id = bench.run("crop_u")["run_id"]
    where = ("--results", bench.folder, "--plugin", POINTS)
    done = command("export", run_id, "--format", "safetensors", "--to", "exported", *where)
    first, *files, compared, remark = done.out.splitlines()
    assert first == f"{run_id}: safetensors in exported"
    assert [line.split()[0] for line in files] == [
        *("file", "config.json", "load.py", "model.safetensors", "network.py")
    ]
    assert compared.startswith("loaded again: outputs for batches of 1 and 5 differ by at most ")
    assert remark.startswith(
        "model.safetensors holds removed weights as zeros and is about as large"
    )


# What is refused


@pytest.fixture
def refusal(bench: Workbench) -> Callable[..., str]:
    """Return a function that returns the refusal of an export of a run."""

    def refused(
        run: str, format_name: str = "safetensors", to: str = "exported", code: int = 2
    ) -> str:
        kind = {1: RunFailed, 2: RequestError}[code]
        before = sorted(bench.folder.iterdir())
        with pytest.raises(kind) as error:
            harness.export_network(
                run, format_name, bench.folder / to, results=bench.folder, plugins=POINTS
            )
        assert sorted(bench.folder.iterdir()) == before
        (line,) = str(error.value).splitlines()
        return line

    return refused


def test_a_format_that_does_not_exist(refusal: Callable[..., str]) -> None:
    assert refusal("run", "onx") == "unknown format 'onx'; did you mean 'onnx'?"


def test_a_format_that_is_not_installed(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refusal("run", "onnx") == (
        "the format 'onnx' needs packages that are not installed: onnx, onnxscript, onnxruntime; "
        "pip install 'pruning-benchmark[onnx]' installs them"
    )


def test_a_folder_that_exists(bench: Workbench, refusal: Callable[..., str]) -> None:
    (bench.folder / "mine").mkdir()
    assert refusal("run", to="mine") == (
        f"{bench.folder / 'mine'} exists already; an export needs a new folder"
    )


def test_what_a_killed_export_has_left(bench: Workbench, refusal: Callable[..., str]) -> None:
    left = bench.folder / "mine.unfinished"
    left.mkdir()
    assert refusal("run", to="mine") == f"{left} is what a killed export has left; remove it first"


def test_a_run_that_does_not_exist(bench: Workbench, refusal: Callable[..., str]) -> None:
    bench.run("dense")
    assert "contains no run 'digits'" in refusal("digits")


def test_a_run_without_a_network(bench: Workbench, refusal: Callable[..., str]) -> None:
    run_id = bench.run("dense")["run_id"]
    (bench.folder / run_id / WEIGHTS).unlink()
    assert refusal(run_id) == f"{run_id} has no network: network.safetensors is missing"


def test_a_run_that_diverged(bench: Workbench, refusal: Callable[..., str]) -> None:
    record = bench.run("dense")
    reason = "the loss is not finite"
    Store(bench.folder).save(changed(record, status="diverged", reason=reason))
    assert refusal(record["run_id"]) == f"{record['run_id']} has diverged: {reason}"


def test_a_network_that_computes_something_else_when_it_is_loaded(
    bench: Workbench, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = bench.run("dense")["run_id"]
    load = formats.load

    def twice(format_name: str, folder: Path) -> Computation:
        network = load(format_name, folder)
        return lambda *inputs: 2 * network(*inputs)

    monkeypatch.setattr(formats, "load", twice)
    line = refusal(run_id, code=1)
    assert line.startswith(f"{run_id}: loaded again from safetensors, the network differs by ")
    assert line.endswith("which is 1 of the largest output; 0.0001 is permitted")
