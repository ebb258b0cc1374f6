"""The contract of an executor: the declared ones, the one for debugging, and third-party ones."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

import harness
from harness.errors import RequestError
from harness.executors.debug import Debug
from harness.executors.local import Local
from harness.matrix.dispatch import Dispatch, Tally
from harness.matrix.executor import ENTRY_POINT_GROUP, Executor, Job, Resources, find_executor
from harness.signals import StopRequest
from harness.storage.store import Store
from tests.helpers.workbench import POINTS, Workbench

pytestmark = pytest.mark.usefixtures("unmeasured")

THIRD_PARTY = """
from concurrent.futures import Future
from pathlib import Path
from harness.matrix.executor import Order, Outcome, Report, Resources
from harness.matrix.worker import carry_out_order
from harness.signals import Stop

class Theirs:
    slots = 1

    def __init__(self, resources: Resources, report: Report, folder: Path) -> None:
        self._report = report

    def submit(self, order: Order) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        self._report(order.run_id, "starts")
        future.set_result(carry_out_order(order, "cpu", 1, lambda line: None, Stop()))
        return future

    def shutdown(self, *, now: bool = False) -> None: ...
"""
"""An executor of another project, written against the names that the contract had at first."""


def run(executor: type[Executor], bench: Workbench, *pruners: str) -> Tally:
    """Run methods on the points, and return the tally."""
    results = bench.folder / "results"
    plans = [bench.plan(pruner) for pruner in pruners]
    jobs = [Job(plan, (POINTS,), results, checkpoint_every=60) for plan in plans]
    tally = Tally(len(jobs))
    started = executor(Resources(device="cpu"), tally.report, results)
    Dispatch(started, Store(results), tally, StopRequest()).run(jobs, lambda: None)
    return tally


def test_the_declared_executors_can_be_imported() -> None:
    project = Path(harness.__file__).parents[1] / "pyproject.toml"
    declared = tomllib.loads(project.read_text())["project"]["entry-points"][ENTRY_POINT_GROUP]
    assert declared.keys() == {"debug", "local", "ray", "slurm"}
    points = [
        importlib.metadata.EntryPoint(name, value, ENTRY_POINT_GROUP)
        for name, value in declared.items()
    ]
    assert [point.load() for point in points if point.name in ("debug", "local")] == [Debug, Local]


def test_debug_runs_each_job_in_this_process(
    bench: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = run(Debug, bench, "dense", "crop_u")
    assert dict(tally.count()) == {"done": 2}
    assert "points-dense-0-seed0-" in capsys.readouterr().err


def test_an_executor_of_another_project_still_runs(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(THIRD_PARTY)
    monkeypatch.syspath_prepend(tmp_path)
    point = importlib.metadata.EntryPoint("theirs", "theirs:Theirs", ENTRY_POINT_GROUP)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "entry_points", lambda group: [point])
        theirs = find_executor("theirs")
        with pytest.raises(RequestError, match="unknown executor 'their'; did you mean 'theirs'"):
            find_executor("their")
    tally = run(theirs, bench, "dense")
    assert dict(tally.count()) == {"done": 1}
