"""The worked examples of the contributor's guide are complete, and do what the guide says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness.command_line import main

GUIDE = (Path(__file__).resolve().parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```$', GUIDE, re.MULTILINE | re.DOTALL))
"""The titled blocks of the guide: files by name."""
COMMANDS = re.findall(r"^python -m harness (.+)$", GUIDE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(start: str) -> list[list[str]]:
    """Return the guide's commands that begin with some words."""
    return [line.split() for line in COMMANDS if line.startswith(start)]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("kind", [pytest.param("pruner", marks=pytest.mark.slow), "task"])
def test_the_contract_is_kept(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = commands(f"check {kind}")
    quick = ["--task", "spirals", "--plugin", "spirals.py"] if kind == "pruner" else []

    code = main([*command, *quick])

    output = capsys.readouterr()
    assert code == 0, output.out + output.err


@pytest.mark.parametrize("command", commands("run"), ids=lambda words: words[4])
def test_the_run_comes_to_its_end(command: list[str], folder: Path) -> None:
    assert main([*command, "--profile", "smoke", "--sparsity", "0.5"]) == 0
    (record,) = folder.glob("results/*/record.json")
    assert json.loads(record.read_text())["status"] == "done"


def test_the_executor_carries_out_a_matrix(folder: Path) -> None:
    (command,) = commands("matrix")
    package = tomllib.loads(FILES["pyproject.toml"])["project"]
    install(package, folder)

    ended = subprocess.run(
        [sys.executable, "-m", "harness", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(list(folder.glob("results/*/record.json"))) == 2


def install(package: dict[str, object], folder: Path) -> None:
    """Write what an installer records of a package, where Python finds its modules already."""
    metadata = folder / f"{str(package['name']).replace('-', '_')}-{package['version']}.dist-info"
    metadata.mkdir()
    text = f"Metadata-Version: 2.1\nName: {package['name']}\nVersion: {package['version']}\n"
    (metadata / "METADATA").write_text(text)
    groups = package["entry-points"]
    assert isinstance(groups, dict)
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in points.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
