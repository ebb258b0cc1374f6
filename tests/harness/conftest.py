"""What the tests of the harness share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.commands import Command, in_this_process
from tests.helpers.costs import nothing_measured
from tests.helpers.workbench import Workbench

# A run collects garbage before it measures memory. Freezing what the imports made saves going
# through all of it each time.
gc.freeze()


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """Runs of a small task, in a folder of their own."""
    return Workbench(tmp_path)


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """Measure no final network, even if the code under test calls `run_plan` itself."""
    with nothing_measured():
        yield


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unmeasured: None,
) -> Command:
    """Carry out a command in this process, in an empty folder; no final network is measured."""
    monkeypatch.chdir(tmp_path)
    return in_this_process(capsys)
