"""Jobs go to an executor that answers as each test has scripted it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from harness.matrix.dispatch import RETRIES, Dispatch, Tally
from harness.matrix.display import STOPPING, ProgressDisplay
from harness.matrix.estimates import Estimates
from harness.matrix.executor import Executor, Job, Outcome
from harness.matrix.state import counted
from harness.signals import StopRequest
from harness.spec import Plan
from harness.storage.journal import MACHINE, Attempts
from harness.storage.progress import Progress
from harness.storage.store import Store
from tests.helpers.records import record
from tests.helpers.workbench import Workbench

DONE, LOST = Outcome("done"), Outcome("lost", "its machine is gone", "sparks")


class Scripted(Executor):
    """Answers each job at once, as scripted.

    Args:
        answers: for the attempts at each run, by seed; the last one is repeated.
    """

    slots = 1

    def __init__(self, *answers: Sequence[Outcome | Exception]) -> None:
        self.answers = list(answers)
        self.submitted: list[str] = []
        self.shutdowns: list[bool] = []

    def submit(self, job: Job) -> Future[Outcome]:
        number = job.plan.spec.seed
        attempts = self.submitted.count(job.run_id)
        self.submitted.append(job.run_id)
        answer = self.answers[number][min(attempts, len(self.answers[number]) - 1)]
        future: Future[Outcome] = Future()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future

    def shutdown(self, *, now: bool = False) -> None:
        self.shutdowns.append(now)


class Matrix:
    """Runs of the points by seed, and their outcomes."""

    def __init__(self, bench: Workbench, *answers: Sequence[Outcome | Exception]) -> None:
        self.plans: list[Plan] = [bench.plan("dense", seed=n) for n in range(len(answers))]
        self.executor, self.store = Scripted(*answers), Store(bench.folder / "results")
        self.tally, self.stop = Tally(len(answers)), StopRequest()

    def go(self, show: Callable[[], None] = lambda: None) -> list[Outcome | None]:
        folder = self.store.folder
        jobs = [Job(plan, (), folder, checkpoint_every=60) for plan in self.plans]
        dispatch = Dispatch(self.executor, self.store, self.tally, self.stop)
        dispatch.run(jobs, show)
        return [self.tally.outcomes.get(plan.run_id) for plan in self.plans]


def test_a_lost_run_is_retried_a_limited_number_of_times(bench: Workbench) -> None:
    matrix = Matrix(bench, [LOST, DONE], [LOST])
    assert matrix.go() == [DONE, Outcome("failed", LOST.reason, LOST.details)]
    assert len(matrix.executor.submitted) == 2 + 1 + RETRIES["lost"]
    folder = matrix.store.folder / matrix.plans[1].run_id
    assert (folder / "failure.txt").read_text() == "sparks"
    failure = matrix.store.failure(matrix.plans[1].run_id)
    assert failure is not None
    assert (failure["status"], failure["reason"]) == ("failed", "its machine is gone")


def test_failures_are_not_retried(bench: Workbench) -> None:
    matrix = Matrix(bench, [Outcome("failed", "boom")], [Outcome("skipped", "no channels")])
    assert [outcome and outcome.status for outcome in matrix.go()] == ["failed", "skipped"]
    assert len(matrix.executor.submitted) == 2
    skipped = matrix.store.failure(matrix.plans[1].run_id)
    assert skipped is not None
    assert (skipped["status"], skipped["reason"]) == ("skipped", "no channels")


def test_a_preempted_run_is_resumed(bench: Workbench) -> None:
    matrix = Matrix(bench, [Outcome("interrupted")] * 5 + [DONE])
    assert matrix.go() == [DONE]
    assert len(matrix.executor.submitted) == 6


def test_a_run_that_is_preempted_without_progress_fails_in_the_end(bench: Workbench) -> None:
    matrix = Matrix(bench, [Outcome("interrupted")])
    reason = "was interrupted repeatedly without making progress"
    assert matrix.go() == [Outcome("failed", reason)]
    assert len(matrix.executor.submitted) == 1 + RETRIES["interrupted"]


def test_a_run_that_makes_progress_may_be_preempted_without_limit(bench: Workbench) -> None:
    times = 3 * RETRIES["interrupted"]
    matrix = Matrix(bench, [Outcome("interrupted")] * times + [DONE])
    attempts = Attempts(matrix.store.open_run(matrix.plans[0].run_id) / "lives.json")

    def get_further() -> None:
        attempts.begin(len(attempts.entries), {**dict.fromkeys(MACHINE), "runs_on_device": 1})

    assert matrix.go(get_further) == [DONE]
    assert len(matrix.executor.submitted) == times + 1


def test_an_executor_that_raises_loses_the_run(bench: Workbench) -> None:
    matrix = Matrix(bench, [OSError("no more processes")])
    (outcome,) = matrix.go()
    assert outcome == Outcome("failed", "OSError: no more processes")


def test_a_full_disk_does_not_end_the_matrix(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.helpers.disk import FailingDisk, full_disk

    matrix = Matrix(bench, [Outcome("failed", "boom")], [DONE])
    with FailingDisk(lambda number, operation, name: operation == "write", full_disk).in_use():
        assert [outcome and outcome.status for outcome in matrix.go()] == ["failed", "done"]


def test_runs_of_another_process_are_awaited_and_taken_over(bench: Workbench) -> None:
    matrix = Matrix(bench, [Outcome("elsewhere")], [Outcome("elsewhere"), DONE])
    first, second = (matrix.store.open_run(plan.run_id) for plan in matrix.plans)
    locks = [FileLock(folder / "lock") for folder in (first, second)]
    for lock in locks:
        lock.acquire()
    looks = 0

    def end_elsewhere() -> None:
        """The other process finishes the first run and leaves the second unfinished."""
        nonlocal looks
        looks += 1
        if looks == 3:
            matrix.store.save(record(run_id=first.name, status="collapsed", reason="flat"))
            for lock in locks:
                lock.release()

    assert matrix.go(end_elsewhere) == [Outcome("collapsed", "flat"), DONE]
    assert matrix.executor.submitted == [first.name, second.name, second.name]


@pytest.mark.parametrize(("level", "shutdowns"), [(1, [False, False]), (2, [False, True, False])])
def test_a_run_that_is_interrupted_by_a_request_to_stop_is_not_restarted(
    bench: Workbench, level: int, shutdowns: list[bool]
) -> None:
    matrix = Matrix(bench, [Outcome("interrupted")], [LOST])
    matrix.stop.level = level
    assert [outcome and outcome.status for outcome in matrix.go()] == [None, "failed"]
    assert len(matrix.executor.submitted) == 2
    assert matrix.executor.shutdowns == shutdowns
    assert matrix.tally.waiting == 1


class TestProgressDisplay:
    def told(self, bench: Workbench, estimates: Estimates) -> list[str]:
        """Return the lines of a log without the identities of the runs."""
        matrix, log = Matrix(bench, [DONE], [Outcome("failed", "boom")]), io.StringIO()
        plans = {plan.run_id: plan for plan in matrix.plans}
        display = ProgressDisplay("mine", plans, matrix.tally, estimates, slots=2, stream=log)
        with display.showing():
            matrix.go(display.show)
        return [
            line.replace(f"-{id_[-12:]}", "")
            for line, id_ in zip(log.getvalue().splitlines(), plans, strict=True)
        ]

    def test_a_log_has_a_line_for_each_finished_run(self, bench: Workbench) -> None:
        assert self.told(bench, Estimates()) == [
            "[1/2] points-dense-0-seed0 done",
            "[2/2] points-dense-0-seed1 failed: boom",
        ]

    def test_a_log_shows_starts_and_progress(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tally, log = Tally(1), io.StringIO()
        display = ProgressDisplay("mine", {}, tally, Estimates(), slots=1, stream=log)
        tally.report("a", "starts")
        display.show()
        tally.report("a", "epoch 1/2")
        display.show()
        monkeypatch.setattr("harness.matrix.display.SECONDS_BETWEEN_LINES", 0.0)
        display.show()
        tally.end_attempt("a")
        tally.report("a", "starts")
        display.show()
        assert log.getvalue().splitlines() == ["a starts", "a epoch 1/2", "a starts", "a starts"]

    def test_a_log_says_how_far_a_run_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the run's own line says already is left out."""
        far = Progress(3, 20, "accuracy", 93.125, ends=time.time() + 3599)
        tally, log = Tally(1), io.StringIO()
        display = ProgressDisplay("mine", {}, tally, Estimates(), 1, log, {"a": far}.get)
        monkeypatch.setattr("harness.matrix.display.SECONDS_BETWEEN_LINES", 0.0)
        monkeypatch.setattr("harness.matrix.display.SECONDS_BETWEEN_LOOKS", 0.0)
        for line in ("runs as job 7", "epoch 3/20  loss 0.5"):
            tally.report("a", line)
            display.show()
        assert log.getvalue().splitlines() == [
            "a runs as job 7",
            "a runs as job 7; epoch 3/20, accuracy 93.12, 60 min left",
            "a epoch 3/20  loss 0.5; 60 min left",
        ]

    def test_each_request_to_stop_is_acknowledged_once(self) -> None:
        tally, log = Tally(1), io.StringIO()
        display = ProgressDisplay("mine", {}, tally, Estimates(), slots=1, stream=log)
        for level in (0, 1, 1, 2):
            tally.stop_level = level
            display.show()
        assert log.getvalue().splitlines() == [STOPPING[1], STOPPING[2]]

    def test_earlier_runs_give_the_time_left(self, bench: Workbench) -> None:
        spec = {"task": "points", "pruner": "snip", "profile": "smoke"}
        known = [record(spec=spec, cost__train_seconds=seconds) for seconds in (100.0, 140.0, 900)]
        first, _ = self.told(bench, Estimates(known))
        assert first.endswith("done; 70 s left")

    def test_a_tally_in_words(self) -> None:
        tally = Tally(5, {"a": DONE, "b": Outcome("skipped", "no"), "c": DONE}, running={"d": ""})
        assert counted(tally) == "5 runs: 2 done, 1 skipped, 1 running, 1 waiting"
        assert tally.waiting == 1


def test_estimates_of_memory_are_the_maximum_of_earlier_runs(
    bench: Workbench, tmp_path: Path
) -> None:
    spec = {"task": "points", "pruner": "dense", "profile": "smoke"}
    sizes = (10**6, 10**8)
    known = [record(spec=spec, cost__peak_run_bytes_with_instruments=size) for size in sizes]
    assert Estimates(known).bytes(bench.plan("dense")) == 500_000_000
    assert Estimates().bytes(bench.plan("dense")) is None


def test_the_longest_runs_start_first_after_the_dense_ones(bench: Workbench) -> None:
    def known(pruner: str, seconds: float) -> Any:
        spec = {"task": "points", "pruner": pruner, "profile": "smoke"}
        return record(spec=spec, cost__train_seconds=seconds)

    plans = [bench.plan(name) for name in ("magnitude_u", "snip", "dense", "ltr", "crop_s")]
    plans += [bench.plan("snip", seed=1)]

    def order(estimates: Estimates) -> list[str]:
        return [f"{plan.spec.pruner} {plan.spec.seed}" for plan in estimates.longest_first(plans)]

    # A pairing without runs of its own takes the median time of its task.
    times = [known("magnitude_u", 10), known("ltr", 40), known("crop_s", 30), known("dense", 5)]
    assert order(Estimates(times)) == [
        *("dense 0", "ltr 0", "crop_s 0", "snip 0", "snip 1", "magnitude_u 0")
    ]
    assert order(Estimates((), times)) == order(Estimates(times))
    assert order(Estimates()) == [
        *("dense 0", "magnitude_u 0", "snip 0", "ltr 0", "crop_s 0", "snip 1")
    ]


def test_other_settings_say_nothing_about_memory(bench: Workbench) -> None:
    other = record(spec={"task": "points", "pruner": "dense", "profile": "smoke"})
    assert Estimates((), [other]).bytes(bench.plan("dense")) is None
