"""Every task and pruner of this project keeps the contract that plug-ins must keep."""

from __future__ import annotations

import pytest

from harness.command_line import main
from harness.contracts import PRUNER_CONTRACT, TASK_CONTRACT
from harness.registry import Registry
from tests.helpers.costs import nothing_measured
from tests.helpers.workbench import POINTS

TASKS = [
    pytest.param(name, marks=() if name == "ptb" else pytest.mark.slow)
    for name in Registry().of_kind("task")
]


def check(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Check a plug-in, require that no rule is broken, and return what is said of each rule."""
    code = main(["check", *words])
    printed = capsys.readouterr()
    *rules, verdict = printed.out.splitlines()
    assert code == 0, printed.out + printed.err
    assert verdict == f"{words[0]} {words[1]} passes all {len(rules)} checks"
    assert all(rule.startswith(("ok ", "note ")) for rule in rules)
    return rules


@pytest.mark.parametrize("name", TASKS)
def test_the_contract_of_a_task_is_kept(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(check(capsys, "task", name)) == len(TASK_CONTRACT)


@pytest.mark.slow
@pytest.mark.parametrize("name", Registry().of_kind("pruner"))
def test_the_contract_of_a_pruner_is_kept(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(check(capsys, "pruner", name)) == len(PRUNER_CONTRACT)


def test_earlycrop_keeps_the_contract_on_a_small_task(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pruner", "earlycrop_u", "--task", "points", "--plugin", str(POINTS)]
    with nothing_measured():
        assert len(check(capsys, *words)) == len(PRUNER_CONTRACT)
