"""A run that fills the disk fails in one line, and resumes when there is room."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.storage.store import Store, outcome
from tests.helpers.workbench import FAULTS, POINTS

PRUNERS = ("dense", "hoarding", "snip", "ltr")
WORDS = ["matrix", "--tasks", "points", "--profile", "smoke"]
WORDS += ["--plugin", str(POINTS), "--plugin", str(FAULTS)]
WORDS += ["--pruners", ",".join(PRUNERS), "--jobs", "1", "--device", "cpu"]
FULL = "No space left on device"


def matrix(results: Path) -> subprocess.CompletedProcess[str]:
    path = str(FAULTS.parents[2])
    return subprocess.run(
        [sys.executable, "-m", "harness", *WORDS, "--results", str(results)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def files(results: Path) -> set[Path]:
    return {path.relative_to(results) for path in results.rglob("*")}


@pytest.mark.slow
def test_a_run_that_fills_the_disk(tmp_path: Path, small_disk: Path) -> None:
    assert matrix(tmp_path / "whole").returncode == 0
    whole = Store(tmp_path / "whole")
    names = {record["spec"]["pruner"]: record["run_id"] for record in whole.records()}
    results = Store(small_disk)

    told = matrix(small_disk)
    assert told.returncode == 1
    dense, *others = (line for line in told.stderr.splitlines() if line.startswith("["))
    assert dense.startswith(f"[1/4] {names['dense']} done")
    for number, (pruner, line) in enumerate(zip(PRUNERS[1:], others, strict=True), 2):
        run = names[pruner]
        assert line.startswith(f"[{number}/4] {run} failed")
        assert f"cannot write {small_disk}/{run}/" in line
        assert f": {FULL}" in line
    assert results.run_ids() == [names["dense"]]
    done = (small_disk / names["dense"] / "record.json").stat().st_mtime

    still_full = matrix(small_disk)
    assert still_full.returncode == 1
    assert still_full.stderr.splitlines()[-1].startswith("failed: cannot write")

    subprocess.run(["mount", "-o", "remount,size=3m", str(small_disk)], check=True)
    assert matrix(small_disk).returncode == 0
    assert (small_disk / names["dense"] / "record.json").stat().st_mtime == done
    for run in names.values():
        first, again = whole.record(run), results.record(run)
        assert first is not None
        assert again is not None
        assert outcome(again) == outcome(first)
    assert files(small_disk) == files(whole.folder)
