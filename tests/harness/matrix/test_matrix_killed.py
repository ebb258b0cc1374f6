"""The smoke matrix loses nothing when all its processes are killed repeatedly."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.matrix.suite import find_suite, requests
from harness.registry import Registry
from harness.storage.store import Store, outcome

WORDS = ["matrix", "--suite", "smoke", "--jobs", "2", "--device", "cpu", "--checkpoint-every", "1"]
ROOT = Path(__file__).parents[3]
RUNS, KILLS = len(requests(find_suite("smoke"), Registry())), 20
LEFT = {
    "journal.jsonl",
    "lives.json",
    "lock",
    "network.safetensors",
    "record.json",
}


def start(results: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *WORDS, "--results", str(results)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def ended(matrix: subprocess.Popen[bytes]) -> bool:
    """Run a matrix to its end."""
    return matrix.wait(3600) == 0


def kill_everything(matrix: subprocess.Popen[bytes]) -> None:
    """Kill the command and all its descendants, whatever their process groups."""
    family, known = {psutil.Process(matrix.pid)}, 0
    # A process that is still running may start others.
    while known < len(family):
        known = len(family)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        family |= {child for process in family for child in _children(process)}
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    matrix.wait()


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def outcomes(results: Path) -> dict[str, Any]:
    return {record["run_id"]: outcome(record) for record in Store(results).records()}


def written(results: Path) -> dict[str, float]:
    """Return the modification time of each record."""
    return {path.parent.name: path.stat().st_mtime for path in results.glob("*/record.json")}


def files(results: Path) -> set[Path]:
    return {path.relative_to(results) for path in results.rglob("*")}


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """If a matrix ends before it was killed often enough, another one is started."""
    began = time.monotonic()
    whole = tmp_path / "whole"
    assert ended(start(whole))
    longest = (time.monotonic() - began) / 5
    assert len(outcomes(whole)) == RUNS
    for folder in whole.glob("*-seed0-*"):
        assert {path.name for path in folder.iterdir()} == LEFT

    draw, kills, resumed = random.Random(0), 0, 0
    for number in itertools.count():
        results = tmp_path / f"killed-{number}"
        done: dict[str, float] = {}
        while kills < KILLS:
            matrix = start(results)
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert matrix.wait(draw.uniform(0, longest)) == 0
                break
            kill_everything(matrix)
            kills += 1
            now = written(results)
            assert done.items() <= now.items()
            done = now
        assert ended(start(results))
        assert done.items() <= written(results).items()
        assert outcomes(results) == outcomes(whole)
        assert files(results) == files(whole)
        resumed += sum(bool(run["provenance"]["resumed"]) for run in Store(results).records())
        if kills == KILLS:
            break
    assert resumed > 0
