"""A command whose runs, too, are carried out in the process of the test."""

from __future__ import annotations

import pytest

from tests.helpers.commands import Command, InThisProcess


@pytest.fixture
def command(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Carry out a command and the runs of a matrix in this process, in an empty folder."""
    monkeypatch.setattr("harness.commands.matrix.find_executor", lambda name: InThisProcess)
    return command
