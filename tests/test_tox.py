"""Every pairing of a task and a pruner has a tox environment of its name."""

from __future__ import annotations

import configparser
import itertools
import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from harness.command_line import parse
from harness.commands.run import requested
from harness.registry import Kind, Registry

PROJECT = Path(__file__).resolve().parent.parent


def environments(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the environments that the toxfile.py in a folder adds; tox is not installed here."""
    plugin = SimpleNamespace(impl=lambda function: function)
    monkeypatch.setitem(sys.modules, "tox", ModuleType("tox"))
    monkeypatch.setitem(sys.modules, "tox.plugin", plugin)
    return list(runpy.run_path(str(folder / "toxfile.py"))["tox_extend_envs"]())


@pytest.fixture
def ini() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(PROJECT / "tox.ini", encoding="utf-8")
    return parser


def own(kind: Kind) -> list[str]:
    """Return what this project registers, whatever else is installed."""
    entries = Registry().of_kind(kind).values()
    return [e.name for e in entries if (e.module or "").partition(".")[0] in ("tasks", "pruners")]


def test_the_environments_are_the_pairings_of_what_is_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairings = [f"{task}-{pruner}" for task in own("task") for pruner in own("pruner")]
    assert sorted(environments(PROJECT, monkeypatch)) == sorted(pairings)


def test_a_new_pruner_has_environments_without_an_edit_of_tox_ini(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(PROJECT / "toxfile.py", tmp_path)
    for folder, text in (
        ("tasks", '@task("words", title="Words")\nclass Words: ...\n'),
        ("pruners", '@pruner(\n    "mine",\n    title="Mine",\n)\ndef mine(run): ...\n'),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "new.py").write_text(text)
    assert environments(tmp_path, monkeypatch) == ["words-mine"]


def test_the_name_of_an_environment_is_its_run(ini: configparser.ConfigParser) -> None:
    assert ini["testenv"]["commands"] == "python -m harness run --pairing {env_name} {posargs}"
    registry = Registry()
    for task, pruner in itertools.product(own("task"), own("pruner")):
        wanted = requested(parse(["run", "--pairing", f"{task}-{pruner}"]), registry)
        assert (wanted.spec.task, wanted.spec.pruner) == (task, pruner)


def test_every_other_environment_has_commands_of_its_own(
    ini: configparser.ConfigParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {name for name in ini if name.startswith("testenv:")}
    assert all("commands" in ini[name] for name in sections)
    names = {name.partition(":")[2] for name in sections}
    assert not names & set(environments(PROJECT, monkeypatch))
