"""The file that says how far a run is."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import pytest

from harness.storage.progress import FILE, Progress, ProgressFile, read_progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock with one hand, which the test sets."""
    hand = [1000.0]
    monkeypatch.setattr(time, "time", lambda: hand[0])
    monkeypatch.setattr(time, "monotonic", lambda: hand[0])
    return hand


def test_the_time_left_follows_from_the_steps_of_this_process(
    tmp_path: Path, clock: list[float]
) -> None:
    """It resumes after 40 steps, takes 10 in 20 seconds, and 30 are left."""
    file = ProgressFile(tmp_path)
    file.begin(40)
    clock[0] += 20
    file.begin(45)
    file.write(5, 8, "accuracy", 93.5, spent=50, left=30)
    found = read_progress(tmp_path)
    assert found == Progress(5, 8, "accuracy", 93.5, ends=1020 + 60)
    assert found is not None
    assert found.seconds_left == 60
    clock[0] += 50
    assert found.seconds_left == 10
    clock[0] += 50
    assert found.seconds_left == 0


def test_what_is_not_known_is_none(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path)
    file.begin(0)
    file.write(1, 8, "perplexity", math.inf, spent=10, left=None)
    found = read_progress(tmp_path)
    assert found == Progress(1, 8, "perplexity", None, None)
    assert found is not None
    assert found.seconds_left is None


def test_a_file_that_cannot_be_written_costs_the_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ProgressFile(tmp_path)
    file.write(1, 8, "accuracy", 50.0, spent=10, left=70)

    def refuse(*arguments: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        file.write(2, 8, "accuracy", 60.0, spent=20, left=60)
    found = read_progress(tmp_path)
    assert found is not None
    assert found.epoch == 1
    file.remove()
    file.remove()
    assert read_progress(tmp_path) is None
    ProgressFile(tmp_path / "nowhere").write(1, 8, "accuracy", 50.0, spent=10, left=70)


@pytest.mark.parametrize("content", ["", "[]", "null", json.dumps({"epoch": "x"})])
def test_a_damaged_file_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    assert read_progress(tmp_path) is None
