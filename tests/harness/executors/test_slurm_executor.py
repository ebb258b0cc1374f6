"""Runs on a Slurm cluster of one node, which ``tests/slurm/cluster`` starts."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RequestError
from harness.matrix.dispatch import Dispatch, Tally
from harness.matrix.executor import Job, Resources, find_executor
from harness.registry import Registry
from harness.signals import StopRequest
from harness.spec import Plan, plan
from harness.storage.journal import Attempts
from harness.storage.store import Store, outcome
from tests.helpers.workbench import FAULTS, POINTS, Workbench

CLUSTER = Path(__file__).parent.parent.parent / "slurm" / "cluster"
REGISTRY = Registry([POINTS, FAULTS])


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster; without Slurm the tests are skipped."""
    if shutil.which("slurmctld") is None:
        pytest.skip("Slurm is not installed: tests/slurm/cluster install")
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([CLUSTER, "up", folder], check=True, capture_output=True, timeout=120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PYTHONPATH", str(FAULTS.parents[2]))
        yield folder
    subprocess.run([CLUSTER, "down", folder], check=True, timeout=120)


def planned(pruner: str, seed: int = 0, **overrides: str) -> Plan:
    return plan(REGISTRY, "points", pruner, profile="smoke", seed=seed, overrides=overrides)


def dispatch(
    plans: list[Plan], results: Path, show: Callable[[], None] = lambda: None, **resources: Any
) -> Tally:
    tally = Tally(len(plans))
    given: dict[str, Any] = {
        "jobs": 2,
        "device": "cpu",
        "memory_limit": 2 * 10**9,
        "time_limit": 600.0,
    }
    executor = find_executor("slurm")(Resources(**{**given, **resources}), tally.report, results)
    jobs = [Job(each, (POINTS, FAULTS), results, checkpoint_every=1) for each in plans]
    Dispatch(executor, Store(results), tally, StopRequest()).run(jobs, show)
    return tally


def attempts(results: Path, run: Plan) -> int:
    return len(Attempts(results / run.run_id / "lives.json").entries)


@pytest.mark.slurm
def test_bad_runs_do_not_affect_the_others(slurm: Path, tmp_path: Path, bench: Workbench) -> None:
    good, bad = ("dense", "snip", "crop_u", "random_u"), ("segfaulting", "killed", "raising")
    plans = {name: planned(name) for name in (*bad, *good)}
    plans["hanging"] = planned("hanging", sleeper=str(tmp_path / "sleeper"))
    tally = dispatch(list(plans.values()), tmp_path, jobs=4, time_limit=60.0)
    assert dict(tally.count()) == {"done": 4, "failed": 4}
    for name in good:
        record = Store(tmp_path).record(plans[name].run_id)
        assert record is not None
        assert outcome(record) == outcome(bench.run(name))
    reasons = {name: str(tally.outcomes[plans[name].run_id].reason) for name in (*bad, "hanging")}
    assert "was lost" in reasons["segfaulting"]
    assert "was lost" in reasons["killed"]
    assert "ValueError: boom" in reasons["raising"]
    assert "did not end within the limit for a run" in reasons["hanging"]
    tried = {name: attempts(tmp_path, plans[name]) for name in (*bad, "hanging")}
    assert tried == {"segfaulting": 2, "killed": 2, "raising": 1, "hanging": 1}


@pytest.mark.slurm
def test_an_array_of_eight_survives_a_preemption_and_the_end_of_its_time(
    slurm: Path, tmp_path: Path, bench: Workbench
) -> None:
    """Two runs are preempted by a job of higher priority, and the first exceeds the time limit."""
    epochs = ["12000", "3000", *["4"] * 6]
    runs = [planned("dense", seed, epochs=number) for seed, number in enumerate(epochs)]
    long, preempted = runs[:2]
    better: list[str] = []

    def preempt() -> None:
        """Take all processors once there is a checkpoint."""
        if not better and list((tmp_path / preempted.run_id).glob("checkpoint-*.pt")):
            better.extend(["sbatch", "--partition=high", "--cpus-per-task=4", "--wrap=sleep 5"])
            subprocess.run([*better, "--output=/dev/null"], check=True, capture_output=True)

    tally = dispatch(runs, tmp_path, preempt, time_limit=60.0)
    assert dict(tally.count()) == {"done": 8}
    assert better
    for run, number in zip(runs, epochs, strict=True):
        record = Store(tmp_path).record(run.run_id)
        assert record is not None
        assert outcome(record) == outcome(bench.run("dense", seed=run.spec.seed, epochs=number))
    assert attempts(tmp_path, long) > 2
    assert attempts(tmp_path, preempted) > 1
    assert [attempts(tmp_path, run) for run in runs[2:]] == [1] * 6


@pytest.mark.slurm
def test_a_preempted_run_resumes_from_its_checkpoint(
    slurm: Path, tmp_path: Path, bench: Workbench
) -> None:
    run = planned("dense", epochs="3000")
    told: list[str] = []

    def preempt() -> None:
        """Send the signal that Slurm sends before it reclaims a node."""
        if not told and list((tmp_path / run.run_id).glob("checkpoint-*.pt")):
            told.extend(["scancel", "--signal=TERM", "--name=pruning-benchmark"])
            subprocess.run(told, check=True)

    tally = dispatch([run], tmp_path, preempt)
    assert dict(tally.count()) == {"done": 1}
    assert told
    record = Store(tmp_path).record(run.run_id)
    assert record is not None
    assert record["provenance"]["resumed"][0]["position"] > 0
    assert outcome(record) == outcome(bench.run("dense", epochs="3000"))


@pytest.mark.slurm
def test_a_run_fails_if_the_cluster_does_not_start_it(slurm: Path, tmp_path: Path) -> None:
    subprocess.run(["scontrol", "update", "partition=low", "state=down"], check=True)
    began = time.monotonic()
    tally = dispatch([planned("dense")], tmp_path, patience=5.0)
    subprocess.run(["scontrol", "update", "partition=low", "state=up"], check=True)
    (ended,) = tally.outcomes.values()
    assert ended.status == "failed"
    assert "the cluster has not started it within 5 s (PENDING)" in str(ended.reason)
    assert time.monotonic() - began < 60


def test_without_sbatch_the_message_says_where_to_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        RequestError, match="executor 'slurm': there is no sbatch here; it is part of Slurm"
    ):
        find_executor("slurm")(Resources(), lambda run_id, line: None, tmp_path)
