"""What the tests of the commands share."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
from workbench import NOT_MEASURED

from harness.command_line import main
from harness.costs.final import MEASURED
from harness.durability.stop import Stop
from harness.matrix.executor import Order, Outcome, Report, Resources
from harness.matrix.worker import carry_out_order


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Carry out a command in this process, in an empty folder; final networks are not measured."""
    costs = {**dict.fromkeys(MEASURED), "reasons": dict.fromkeys(MEASURED, NOT_MEASURED)}
    monkeypatch.setattr("harness.results.record.measure_elsewhere", lambda *arguments: costs)
    monkeypatch.setattr("harness.commands.matrix.find_executor", lambda name: InThisProcess)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def carried_out(*words: object) -> Said:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return carried_out


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
        """There is nothing to stop."""
