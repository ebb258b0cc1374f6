"""A run says after each epoch how far it is, and nothing of it remains."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engine import run_plan as engine
from harness.storage.progress import FILE, Progress, ProgressFile, read_progress
from tests.helpers.attempts import attempts
from tests.helpers.workbench import Workbench


class Watched(ProgressFile):
    """Remembers what it has written."""

    seen: list[Progress | None]

    def write(self, *arguments: Any, **named: Any) -> None:
        super().write(*arguments, **named)
        self.seen.append(read_progress(self._path.parent))


@pytest.mark.parametrize(
    ("pruner", "epochs", "is_known"),
    [("dense", [1, 2, 3, 4], True), ("ltr", [1, 2, 3, 4, 5, 6, 7, 8], False)],
)
def test_each_epoch_is_told(
    bench: Workbench,
    monkeypatch: pytest.MonkeyPatch,
    pruner: str,
    epochs: list[int],
    is_known: bool,
) -> None:
    """How long a method that exceeds the budget will take is not known."""
    monkeypatch.setattr(Watched, "seen", [], raising=False)
    monkeypatch.setattr(engine, "ProgressFile", Watched)
    attempt = attempts(bench, pruner)
    record = attempt.go()
    told = [each for each in Watched.seen if each is not None]
    assert [each.epoch for each in told][: len(epochs)] == epochs
    assert {each.epochs for each in told} == {4}
    assert {each.ends is not None for each in told} == {is_known}
    trained = [epoch for event in record["events"] for epoch in event.get("epochs", ())]
    assert [each.validation for each in told] == [
        epoch["validation"]["accuracy"] for epoch in trained
    ]
    assert not (attempt.folder / FILE).exists()
