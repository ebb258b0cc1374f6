"""Every task and pruner of this project keeps the contract of plug-ins."""

from __future__ import annotations

import pytest

from harness.command_line import main
from harness.registry import Registry

SAMPLE = {("task", "ptb"), ("pruner", "earlycrop_u")}
"""Checked in the everyday tests; the others are slow."""

ALL = [
    pytest.param(kind, name, marks=() if (kind, name) in SAMPLE else pytest.mark.slow)
    for kind in ("task", "pruner")
    for name in Registry().of_kind("task" if kind == "task" else "pruner")
]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_the_contract_is_kept(kind: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["check", kind, name])

    output = capsys.readouterr()
    assert code == 0, output.out + output.err
    assert "BROKEN" not in output.out
