"""``list``: everything that can be set, with its meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.command_line import main
from harness.conditions import Conditions
from harness.registry import Registry


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what a command prints."""
    assert main(["list", *words]) == 0
    return capsys.readouterr().out


def objects(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, Any]]:
    """Return the objects that a command prints, by name."""
    found = json.loads(printed(capsys, *words, "--json"))
    return {each["name"]: each for each in found}


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["list", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_task_lists_its_settings_and_the_conditions(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "task", "digits")
    assert text.startswith("digits: Handwritten digits, ResNet18\n")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "metric: accuracy (higher is better)" in lines
    assert any(line.startswith("width 32 channels of the network's first stage") for line in lines)
    assert "whole number, at least 1; smoke: 4" in lines
    assert any(
        line.startswith("floor 0.0 minimum fraction of each layer's weights") for line in lines
    )


def test_a_pruner_lists_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "pruner", "earlycrop_u")
    assert "options of the pruner" in text
    assert "whole number in [0, inf)" in text


def test_a_pruner_without_options_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "options of the pruner (--set NAME=VALUE)\n  none\n" in printed(capsys, "pruner", "snip")


@pytest.mark.parametrize("task", Registry().of_kind("task"))
def test_nothing_that_can_be_set_is_missing(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = Registry().find("task", task)
    found = objects(capsys, "task", task)
    assert list(found) == [*entry.arguments["settings"], *Conditions()]
    for profile, changes in entry.arguments["profiles"].items():
        listed = {
            name: each["profiles"][profile]
            for name, each in found.items()
            if profile in each["profiles"]
        }
        assert listed == changes


def test_an_object_has_all_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    found = objects(capsys, "conditions")
    assert list(found) == list(Conditions())
    assert found["precision"] == {
        "kind": "condition",
        "name": "precision",
        "title": Conditions.declared()["precision"].help,
        "default": "float32",
        "permitted": "float32, bfloat16",
        "choices": ["float32", "bfloat16"],
        "interval": None,
        "profiles": {},
    }
    assert found["floor"]["interval"] == "[0, 1]"


def test_plug_ins_are_listed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        'from harness.registry import pruner\n\n\n@pruner("mine", title="Mine")\n'
        'def mine(run, *, share: float = 0.5):\n    """Do it.\n\n    Args:\n'
        "        share: of the budget,\n            as a fraction.\n"
        '    """\n'
    )
    found = objects(capsys, "pruner", "mine", "--plugin", str(plugin))
    assert found["share"]["title"] == "of the budget, as a fraction"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("task digit", "unknown task 'digit'; did you mean 'digits'?"),
        ("pruner earlycrop", "unknown pruner 'earlycrop'; did you mean 'earlycrop_u'?"),
        ("task", "list task needs a name; known: cartpole, cifar10,"),
        ("conditions floor", "list conditions takes no name"),
        ("suites foo", "list suites takes no name"),
        ("tasl", "cannot list 'tasl'; did you mean 'tasks'?"),
        ("condition", "cannot list 'condition'; did you mean 'conditions'?"),
    ],
)
def test_wrong_requests_are_refused(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complaint in refused(capsys, *words.split())
