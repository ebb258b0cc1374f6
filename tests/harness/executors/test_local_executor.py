"""Each run has its own process: bad endings are distinguished and do not affect other runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.executors import local
from harness.matrix.dispatch import Dispatch, Tally
from harness.matrix.executor import Job, Resources
from harness.registry import Registry
from harness.signals import StopRequest
from harness.spec import Plan, plan
from harness.storage.journal import Attempts
from harness.storage.store import Store, outcome
from tests.helpers.workbench import FAULTS, POINTS, Workbench

REGISTRY = Registry([POINTS, FAULTS])

GOOD = ("dense", "snip", "crop_u", "random_u")
BAD = ("segfaulting", "killed", "hanging", "raising")


def line_of(text: str) -> int:
    """Return the number of the first line in ``faults.py`` that contains a text."""
    return next(n for n, line in enumerate(FAULTS.read_text().splitlines(), 1) if text in line)


def planned(pruner: str, seed: int = 0, **overrides: str) -> Plan:
    return plan(REGISTRY, "points", pruner, profile="smoke", seed=seed, overrides=overrides)


def dispatch(
    plans: list[Plan], results: Path, resources: Resources, stop: StopRequest | None = None
) -> Tally:
    """Run plans on this machine's CPU, and return the tally."""
    tally = Tally(len(plans))
    executor = local.Local(resources, tally.report, results)
    jobs = [Job(each, (POINTS, FAULTS), results, checkpoint_every=60) for each in plans]
    Dispatch(executor, Store(results), tally, stop or StopRequest()).run(jobs, lambda: None)
    return tally


def attempts(results: Path, run: Plan) -> int:
    return len(Attempts(results / run.run_id / "lives.json").entries)


@pytest.fixture(scope="module")
def patience() -> Iterator[None]:
    """A run that ignores a request to stop is killed soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "GRACE", 0.3)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("eight")


@pytest.fixture(scope="module")
def plans(folder: Path) -> dict[str, Plan]:
    plans = {name: planned(name) for name in (*GOOD, *BAD) if name != "hanging"}
    return {**plans, "hanging": planned("hanging", sleeper=str(folder / "sleeper"))}


@pytest.fixture(scope="module")
def tally(folder: Path, plans: dict[str, Plan], patience: None) -> Tally:
    order = [plans[name] for pair in zip(BAD, GOOD, strict=True) for name in pair]
    # Long enough for the good runs on any machine.
    return dispatch(order, folder / "results", Resources(2, "cpu", time_limit=8))


class TestEightCells:
    """Four good methods and four bad ones, in two slots."""

    @pytest.mark.parametrize("name", GOOD)
    def test_good_runs_are_done(
        self, folder: Path, plans: dict[str, Plan], tally: Tally, bench: Workbench, name: str
    ) -> None:
        assert tally.outcomes[plans[name].run_id].status == "done"
        record = Store(folder / "results").record(plans[name].run_id)
        assert record is not None
        assert outcome(record) == outcome(bench.run(name))
        assert record["provenance"]["runs_on_device"] == 2
        assert attempts(folder / "results", plans[name]) == 1

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("segfaulting", "its process was ended by SIGSEGV (Segmentation fault)"),
            ("killed", "its process was ended by SIGKILL (Killed)"),
            ("hanging", "did not end within 8 seconds, the limit for a run"),
            (
                "raising",
                f"faults.py, line {line_of('boom')}: ValueError: boom (more in failure.txt)",
            ),
        ],
    )
    def test_bad_runs_give_the_reason(
        self, folder: Path, plans: dict[str, Plan], tally: Tally, name: str, reason: str
    ) -> None:
        ended = tally.outcomes[plans[name].run_id]
        assert (ended.status, ended.reason) == ("failed", reason)
        failure = Store(folder / "results").failure(plans[name].run_id)
        assert failure is not None
        assert (failure["status"], failure["reason"]) == ("failed", reason)

    @pytest.mark.usefixtures("tally")
    def test_only_lost_processes_are_retried(self, folder: Path, plans: dict[str, Plan]) -> None:
        tried = {name: attempts(folder / "results", plans[name]) for name in BAD}
        assert tried == {"segfaulting": 2, "killed": 2, "hanging": 1, "raising": 1}

    @pytest.mark.usefixtures("tally")
    def test_the_line_of_a_segmentation_fault_is_reported(
        self, folder: Path, plans: dict[str, Plan]
    ) -> None:
        text = (folder / "results" / plans["segfaulting"].run_id / "failure.txt").read_text()
        assert f'faults.py", line {line_of("string_at")} in segfaulting' in text

    @pytest.mark.usefixtures("tally")
    def test_child_processes_of_a_run_end_with_it(self, folder: Path) -> None:
        process = int((folder / "sleeper").read_text())
        if psutil.pid_exists(process):
            assert psutil.Process(process).status() == psutil.STATUS_ZOMBIE

    def test_all_are_accounted_for(self, tally: Tally) -> None:
        assert dict(tally.count()) == {"done": 4, "failed": 4}
        assert (tally.waiting, tally.running) == (0, {})


def test_a_killed_run_resumes_by_itself(tmp_path: Path) -> None:
    run = planned("killed_once", witness=str(tmp_path / "witness"))
    tally = dispatch([run], tmp_path / "results", Resources(1, "cpu"))
    assert tally.outcomes[run.run_id].status == "done"
    assert attempts(tmp_path / "results", run) == 2
    assert Store(tmp_path / "results").failure(run.run_id) is None


def test_a_run_that_uses_too_much_memory_is_stopped(tmp_path: Path, patience: None) -> None:
    run = planned("greedy", epochs="1000000")
    resources = Resources(1, "cpu", memory_limit=1_200_000_000)
    ended = dispatch([run], tmp_path, resources).outcomes[run.run_id]
    assert ended.status == "failed"
    assert ended.reason is not None
    assert ended.reason.endswith("GB of memory; the limit for a run is 1.2 GB")


def test_when_memory_runs_out_the_youngest_run_makes_room_and_resumes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench: Workbench
) -> None:
    runs = [planned("dense", seed, epochs="150") for seed in range(2)]
    told: list[str] = []

    def available() -> int:
        """Return 0 from the moment when both runs have started until one has saved itself."""
        begun = all(attempts(tmp_path, run) for run in runs)
        saved = list(tmp_path.glob("*/checkpoint-*.pt"))
        told.extend(path.parent.name for path in saved)
        return 0 if begun and not told else 10**12

    monkeypatch.setattr(local, "available_memory", available)
    tally = dispatch(runs, tmp_path, Resources(2, "cpu"))
    assert dict(tally.count()) == {"done": 2}
    assert sorted(attempts(tmp_path, run) for run in runs) == [1, 2]
    for run in runs:
        record = Store(tmp_path).record(run.run_id)
        assert record is not None
        assert outcome(record) == outcome(bench.run("dense", seed=run.spec.seed, epochs="150"))


def test_a_run_that_needs_more_memory_than_the_machine_has_fails(tmp_path: Path) -> None:
    run = planned("dense")
    executor = local.Local(Resources(1, "cpu"), lambda run_id, line: None, tmp_path)
    job = Job(run, (POINTS, FAULTS), tmp_path, checkpoint_every=60, bytes_expected=10**18)
    refused = executor.submit(job).result()
    executor.shutdown()
    assert refused.status == "failed"
    assert str(refused.reason).startswith("such a run needs 1e+09 GB of memory, and this machine")


def test_two_matrices_on_one_folder_do_every_run_once(tmp_path: Path) -> None:
    runs = [planned("dense", seed) for seed in range(4)]
    tallies: list[Tally] = []

    def work() -> None:
        tallies.append(dispatch(runs, tmp_path, Resources(1, "cpu")))

    both = [threading.Thread(target=work) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert [dict(tally.count()) for tally in tallies] == [{"done": 4}] * 2
    assert [attempts(tmp_path, run) for run in runs] == [1] * 4


@pytest.mark.parametrize(("level", "status"), [(1, "done"), (2, None)])
def test_requests_to_stop_save_or_finish_the_current_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int, status: str | None
) -> None:
    """One request lets the current run finish, two make it save itself; no other run starts."""
    stop, runs = StopRequest(), [planned("dense", seed, epochs="200") for seed in range(3)]
    tally = Tally(3)

    def hear(run_id: str, line: str) -> None:
        tally.report(run_id, line)
        if "epoch" in line:
            stop.level = level

    executor = local.Local(Resources(1, "cpu"), hear, tmp_path)
    jobs = [Job(each, (POINTS, FAULTS), tmp_path, checkpoint_every=60) for each in runs]
    Dispatch(executor, Store(tmp_path), tally, stop).run(jobs, lambda: None)
    first = tally.outcomes.get(runs[0].run_id)
    assert (first and first.status) == status
    assert tally.waiting == (2 if status else 3)
    assert (tmp_path / runs[0].run_id / "checkpoint-000001.pt").exists() == (status is None)
    assert not (tmp_path / runs[1].run_id).exists()


def test_a_run_has_the_environment_of_its_slot(tmp_path: Path) -> None:
    """A run on the CPU sees no GPU and uses its share of the cores."""
    run = planned("dense")
    dispatch([run], tmp_path, Resources(1, "cpu", threads=1))
    record = Store(tmp_path).record(run.run_id)
    assert record is not None
    assert record["provenance"]["threads"] == 1
    assert record["provenance"]["runs_on_device"] == 1
