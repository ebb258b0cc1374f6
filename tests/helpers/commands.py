"""Commands carried out in the process of the test."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.command_line import main
from harness.matrix.executor import Order, Outcome, Report, Resources
from harness.matrix.worker import carry_out_order
from harness.signals import Stop


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


class InThisProcess:
    """An executor that carries out each run at once, in this process."""

    slots = 1

    def __init__(self, resources: Resources, report: Report, folder: Path) -> None:
        self._report = report

    def submit(self, order: Order) -> Future[Outcome]:
        """Carry out a run."""
        future: Future[Outcome] = Future()
        self._report(order.run_id, "starts")
        future.set_result(carry_out_order(order, "cpu", 1, lambda line: None, Stop()))
        return future

    def shutdown(self, *, now: bool = False) -> None:
        """Do nothing: no process was started."""
