"""What the README tells a stranger to type can be typed."""

from __future__ import annotations

import configparser
import re
import shlex
import textwrap
from pathlib import Path

import pytest

from harness.command_line import main, parse
from harness.commands.run import requested
from harness.registry import Registry

PROJECT = Path(__file__).resolve().parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
CODE = [
    textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n+(?=    ))+", README, re.M)
]
LINES = [line.partition("  #")[0] for block in CODE for line in block.splitlines()]


def environments() -> set[str]:
    """Return the names of the tox environments, those of the factors written out."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(PROJECT / "tox.ini", encoding="utf-8")
    names = {name.partition(":")[2] for name in parser}
    (pairings,) = [name for name in names if name.startswith("{")]
    tasks, pruners = (factor.split(",") for factor in re.findall(r"{(.*?)}", pairings))
    return names | {f"{task}-{pruner}" for task in tasks for pruner in pruners}


def test_its_tox_environments_exist() -> None:
    named = set(re.findall(r"tox -e ([\w-]+)", README))
    assert {"demo", "tests", "run"} <= named
    assert named <= environments()


@pytest.mark.parametrize("line", [line for line in LINES if "-m harness " in line])
def test_its_commands_are_understood(line: str) -> None:
    arguments = parse(shlex.split(line.partition("-m harness ")[2]))
    if arguments.command == "run":
        requested(arguments, Registry())
    if arguments.command == "check":
        Registry().find(arguments.kind, arguments.name)


@pytest.mark.parametrize("line", [line for line in LINES if " -e run -- " in line])
def test_what_it_hands_to_tox_is_understood(line: str) -> None:
    requested(parse(["run", *shlex.split(line.partition(" -- ")[2])]), Registry())


def test_it_has_commands_of_both_sorts() -> None:
    assert any("-m harness run" in line for line in LINES)
    assert any(" -e run -- " in line for line in LINES)


def test_its_table_names_the_tasks() -> None:
    (table,) = re.findall(r"^\| task \|.*?\n\n", README, re.MULTILINE | re.DOTALL)
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    ours = [
        e.name for e in Registry().of_kind("task").values() if (e.module or "").startswith("tasks.")
    ]
    assert sorted(named) == ours


def test_its_folders_exist() -> None:
    named = re.findall(r"^    (\w+)/ ", README, re.MULTILINE)
    assert {"harness", "tasks", "pruners", "tests"} <= set(named)
    assert all((PROJECT / name).is_dir() for name in named)


def test_its_plug_in_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = [block for block in CODE if "@pruner(" in block]
    assert len(example.strip().splitlines()) <= 15
    plugin = tmp_path / "example.py"
    plugin.write_text(example)
    assert main(["list", "pruners", "--plugin", str(plugin)]) == 0
    assert "late_magnitude" in capsys.readouterr().out
    entry = Registry([plugin]).find("pruner", "late_magnitude")
    assert callable(entry.load())
