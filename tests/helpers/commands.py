"""Commands executed in the process of the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from harness.command_line import main


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]
"""Takes the words of a command and carries it out."""


def in_this_process(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that carries out a command and captures what it prints."""
    capsys.readouterr()

    def command(*words: object) -> Said:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return command
