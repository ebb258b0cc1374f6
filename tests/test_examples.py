"""The examples do what the contributor's guide and their first lines say."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness.command_line import main
from tests.helpers.own_data import paint
from tests.helpers.packages import install

PROJECT = Path(__file__).resolve().parent.parent
EXAMPLES = PROJECT / "examples"
GUIDE = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m harness (.+)$", GUIDE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(start: str) -> list[list[str]]:
    """Return the guide's commands that begin with some words."""
    return [line.split() for line in COMMANDS if line.startswith(start)]


def test_the_list_names_all_of_them() -> None:
    named = re.findall(r"^\| \[`(\S+)`\]", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    there = {path.name for path in EXAMPLES.iterdir()} - {"README.md", "__pycache__"}
    assert set(named) == there


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("kind", [pytest.param("pruner", marks=pytest.mark.slow), "task"])
def test_the_contract_is_kept(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = commands(f"check {kind}")
    task = ["--task", "spirals", "--plugin", "examples/new_task.py"] if kind == "pruner" else []

    code = main([*command, *task])

    output = capsys.readouterr()
    assert code == 0, output.out + output.err


@pytest.mark.parametrize("command", commands("run"), ids=lambda words: words[4])
def test_the_run_comes_to_its_end(command: list[str], folder: Path) -> None:
    assert main([*command, "--profile", "smoke", "--sparsity", "0.5"]) == 0
    (record,) = folder.glob("results/*/record.json")
    assert json.loads(record.read_text())["status"] == "done"


def run(folder: Path, *words: str, path: Path | None = None) -> str:
    """Run Python in a folder, with another one to search for modules, and return what it prints."""
    search = [*([] if path is None else [str(path)]), str(PROJECT), *sys.path]
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_executor_carries_out_a_matrix(folder: Path) -> None:
    (command,) = commands("matrix")
    package = folder / "examples" / "new_executor"
    install(tomllib.loads((package / "pyproject.toml").read_text())["project"], package)

    run(folder, "-m", "harness", *command, path=package)

    assert len(list(folder.glob("results/*/record.json"))) == 2


def test_an_own_network_is_pruned_on_own_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "examples")
    paint(Path("leaves"), ("ash", "beech", "oak"))
    text = ast.get_docstring(ast.parse(Path("your_own_model.py").read_text())) or ""
    (command,) = re.findall(r"python -m harness ((?:.*\\\n)*.*)", text)

    assert main([*shlex.split(command.replace("\\\n", "")), "--profile", "smoke"]) == 0

    (record,) = Path("results").glob("*/record.json")
    reached = json.loads(record.read_text())["sparsity"]["budget"]
    assert 0.3 < reached["reached"] <= 0.5


def test_the_notebook_can_be_executed(folder: Path) -> None:
    printed = run(folder, "examples/results_in_a_notebook.py").splitlines()

    assert printed[0].count("'done'") == 4
    (means,) = [line.split() for line in printed if line.startswith("mean")]
    assert len(means) == 2
    assert printed[-1].startswith("tensor([")
    assert (folder / "results.png").stat().st_size > 10_000


def test_each_cell_of_the_notebook_has_text_or_code_alone() -> None:
    _, *cells = re.split(
        r"^# %%", (EXAMPLES / "results_in_a_notebook.py").read_text(), flags=re.MULTILINE
    )
    for kind, cell in zip(cells[::2], cells[1::2], strict=True):
        assert kind.startswith(" [markdown]\n# ")
        assert all(line.startswith("# ") for line in kind.strip().splitlines()[1:])
        compile(cell, "cell", "exec")
