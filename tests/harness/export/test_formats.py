"""Exported networks compute the same in a process that lacks this project."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

import harness
from harness.command_line import main
from harness.export.export import FORMATS, TOLERANCE
from harness.registry import Registry
from tests.helpers.exported import strangers_differences
from tests.helpers.own_data import write_own_data
from tests.helpers.workbench import POINTS, Workbench

PRUNERS = ("dense", "earlycrop_u", "crop_s")
"""A network that is whole, one with masks, and one that is cut."""

TASKS = [
    name
    for name, entry in sorted(Registry().of_kind("task").items())
    if (entry.module or "").partition(".")[0] == "tasks"
]


@pytest.mark.parametrize(
    ("pruner", "format_name"), [("crop_s", "safetensors"), ("earlycrop_u", "onnx")]
)
def test_a_stranger_computes_the_same(bench: Workbench, pruner: str, format_name: str) -> None:
    """With torch alone, or with onnxruntime and numpy alone."""
    for package in FORMATS[format_name].needs:
        pytest.importorskip(package)
    run = bench.folder / bench.run(pruner, sparsity=0.5)["run_id"]
    folder = bench.folder / "exported"
    exported = harness.export_network(run, format_name, folder, plugins=POINTS)
    assert exported["relative_difference"] <= TOLERANCE
    assert max(strangers_differences(format_name, [(run, folder)], [POINTS])) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_stranger_computes_the_same_on_every_task(
    tmp_path: Path, unmeasured: None, task: str
) -> None:
    """The network whole, with masks and cut, in each format whose packages are installed."""
    runs = [
        tmp_path / harness.run_pairing(task, name, profile="smoke", results=tmp_path)["run_id"]
        for name in PRUNERS
    ]
    for name, each in FORMATS.items():
        if all(find_spec(package) for package in each.needs):
            exports = [(run, tmp_path / name / run.name) for run in runs]
            for run, folder in exports:
                harness.export_network(run, name, folder)
            dense, masked, cut = ((folder / each.network).stat().st_size for _, folder in exports)
            # ONNX stores equal tensors once, such as layers that are all zeros.
            assert cut < dense == pytest.approx(masked, rel=0.15)
            assert max(strangers_differences(name, exports)) <= TOLERANCE, name


@pytest.mark.slow
def test_a_folder_of_images_and_a_network_become_onnx_in_the_commands_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unmeasured: None
) -> None:
    """Three classes of PNGs and a module in a file; the stranger has onnxruntime and numpy."""
    pytest.importorskip("onnxruntime")
    readme = Path(__file__).parents[3] / "README.md"
    lines = re.findall(r"^    python -m harness (.*(?:leaves|onnx).*)$", readme.read_text(), re.M)
    assert len(lines) == 3
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    for line in lines:
        assert main(shlex.split(line)) == 0
    (run,) = Path("results").glob("images-crop_s-*")
    assert max(strangers_differences("onnx", [(run, Path("exported"))])) <= TOLERANCE
