"""A command whose runs, too, are carried out in the process of the test."""

from __future__ import annotations

import pytest

from harness.executors.debug import Debug
from tests.helpers.commands import Command


@pytest.fixture
def command(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Execute a command and the runs of a matrix in this process, in an empty folder."""
    monkeypatch.setattr("harness.matrix.request.find_executor", lambda name: Debug)
    return command
