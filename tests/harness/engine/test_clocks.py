"""A method that reads its clocks reads the same values when its program starts again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.contracts import Killed, StopAfter
from harness.errors import Interrupted
from harness.storage.store import outcome
from tests.helpers.attempts import NEVER, OFTEN, Attempts, attempts
from tests.helpers.disk import FailingDisk, operation_number
from tests.helpers.workbench import Workbench

METHODS = """
from harness.registry import pruner
from harness.run import Run
from pruners.criteria import magnitude
from pruners.weights import Weights


@pruner("gradual", title="Gradual magnitude pruning that asks where it is")
def gradual(run: Run, *, events: int = 4) -> None:
    total = run.budget * run.steps_per_epoch
    for number in range(1, events + 1):
        run.train(steps=total // 2 * number // events - run.position)
        run.prune(Weights, magnitude, run.sparsity * (1 - (1 - number / events) ** 3))
    run.train()


@pruner("back_and_forth", title="Rewinds by its clocks", exceeds_budget=True)
def back_and_forth(run: Run) -> None:
    assert (run.position, run.spent) == (0, 0)
    run.train(steps=3)
    ticket = run.snapshot()
    while run.spent < 12:
        run.train(steps=7 - run.position)
        run.rewind(ticket)
    assert (run.position, run.spent) == (3, 15)

    def asking(scoring):
        assert (run.position, run.spent) == (3, 15)
        return magnitude(scoring)

    run.prune(Weights, asking, run.sparsity)
    run.train()
"""


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    plugin = tmp_path / "clocks.py"
    plugin.write_text(METHODS)
    return Workbench(tmp_path, [plugin])


def interrupted(run: Attempts, steps: int) -> Any:
    """Stop a run every few steps and verbs, until it ends."""
    while True:
        try:
            return run.go(StopAfter(steps=steps), checkpoints=NEVER)
        except Interrupted:
            continue


@pytest.mark.parametrize("pruner", ["gradual", "back_and_forth"])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_method_that_reads_its_clocks_can_be_interrupted_anywhere(
    bench: Workbench, pruner: str, steps: int
) -> None:
    whole = attempts(bench, pruner, "whole").go(checkpoints=NEVER)
    pieces = interrupted(attempts(bench, pruner, "pieces"), steps)
    assert outcome(pieces) == outcome(whole)
    assert len(pieces["provenance"]["resumed"]) > 3


@pytest.mark.parametrize("pruner", ["gradual", "back_and_forth"])
def test_a_method_that_reads_its_clocks_can_be_killed(bench: Workbench, pruner: str) -> None:
    whole = attempts(bench, pruner, "whole").go(checkpoints=NEVER)
    run = attempts(bench, pruner, "pieces")
    for operation in (20, 35, 50):
        with FailingDisk(operation_number(operation)).in_use(), pytest.raises(Killed):
            run.go(checkpoints=OFTEN)
    assert outcome(run.go()) == outcome(whole)
