"""Fixtures of the tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_this_process import Command, Said
from workbench import NOT_MEASURED

from harness.command_line import main
from harness.engine.final_costs import MEASURED
from harness.executors.debug import Debug


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Execute a command in this process, in an empty folder, without measuring final networks."""
    costs = {**dict.fromkeys(MEASURED), "reasons": dict.fromkeys(MEASURED, NOT_MEASURED)}
    monkeypatch.setattr("harness.engine.finish.final_costs", lambda *arguments: costs)
    monkeypatch.setattr("harness.matrix.request.find_executor", lambda name: Debug)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def carried_out(*words: object) -> Said:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return carried_out
