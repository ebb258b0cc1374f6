"""A matrix that is killed with all its processes, again and again, loses nothing."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.contracts import outcome
from harness.store import Store

FAULTS = Path(__file__).parent / "faults.py"
WORDS = ["matrix", "--plugin", str(FAULTS), "--tasks", "quick_points", "--profile", "smoke"]
WORDS += ["--pruners", "dense,snip,earlycrop_u,ltr", "--seeds", "0,1", "--set", "epochs=40"]
WORDS += ["--jobs", "2", "--device", "cpu", "--checkpoint-every", "0.1"]
KILLS = 5
LEFT = {
    "journal.jsonl",
    "lives.json",
    "lock",
    "network.safetensors",
    "record.json",
    "units.pt",
}


def start(results: Path) -> subprocess.Popen[bytes]:
    path = f"{FAULTS.parents[2]}:{FAULTS.parent}"
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *WORDS, "--results", str(results)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def kill_everything(matrix: subprocess.Popen[bytes]) -> None:
    """Kill the command and all that it has started, wherever they have gone."""
    family = [psutil.Process(matrix.pid)]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += family[0].children(recursive=True)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    matrix.wait()


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    assert start(tmp_path / "whole").wait(300) == 0
    whole = {record["run_id"]: outcome(record) for record in Store(tmp_path / "whole").records()}
    assert len(whole) == 8
    draw, results = random.Random(0), tmp_path / "killed"
    done: dict[str, float] = {}
    for _ in range(KILLS):
        matrix = start(results)
        time.sleep(draw.uniform(0, 12))
        kill_everything(matrix)
        for record in results.glob("*/record.json"):
            written = record.stat().st_mtime
            assert done.setdefault(record.parent.name, written) == written
    assert start(results).wait(300) == 0
    assert {r["run_id"]: outcome(r) for r in Store(results).records()} == whole
    for folder in results.glob("quick_points-*"):
        assert {path.name for path in folder.iterdir()} == LEFT
    assert {path.suffix for path in (results / "matrices").iterdir()} == {".json", ""}
