"""Orders go out, outcomes come back: with an executor that says what the test wants."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
from filelock import FileLock

from harness.matrix.board import STOPPING, Board, counted
from harness.matrix.dispatch import RETRIES, Dispatch, Tally
from harness.matrix.estimates import Estimates
from harness.matrix.executor import Executor, Order, Outcome
from harness.signals import Urgency
from harness.spec import Plan
from harness.storage.journal import MACHINE, Attempts
from harness.storage.store import Store
from tests.helpers.records import record
from tests.helpers.workbench import Workbench

DONE, LOST = Outcome("done"), Outcome("lost", "its machine is gone", "sparks")


class Scripted(Executor):
    """Answers each order at once, with what was written down for it.

    Args:
        answers: of the attempts at each run, the last of them again and again.
    """

    slots = 1

    def __init__(self, *answers: Sequence[Outcome | Exception]) -> None:
        self.answers = list(answers)
        self.orders: list[str] = []
        self.shutdowns: list[bool] = []

    def submit(self, order: Order) -> Future[Outcome]:
        number = order.plan.spec.seed
        attempts = self.orders.count(order.run_id)
        self.orders.append(order.run_id)
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
    """Runs of the points by their seeds, and what became of them."""

    def __init__(self, bench: Workbench, *answers: Sequence[Outcome | Exception]) -> None:
        self.plans: list[Plan] = [bench.plan("dense", seed=n) for n in range(len(answers))]
        self.executor, self.store = Scripted(*answers), Store(bench.folder / "results")
        self.tally, self.urgency = Tally(len(answers)), Urgency()

    def go(self, show: Callable[[], None] = lambda: None) -> list[Outcome | None]:
        folder = self.store.folder
        orders = [Order(plan, (), folder, checkpoint_every=60) for plan in self.plans]
        dispatch = Dispatch(self.executor, self.store, self.tally, self.urgency)
        dispatch.carry_out(orders, show)
        return [self.tally.outcomes.get(plan.run_id) for plan in self.plans]


def test_what_is_lost_is_tried_again_but_not_for_ever(bench: Workbench) -> None:
    matrix = Matrix(bench, [LOST, DONE], [LOST])
    assert matrix.go() == [DONE, Outcome("failed", LOST.reason, LOST.details)]
    assert len(matrix.executor.orders) == 2 + 1 + RETRIES["lost"]
    folder = matrix.store.folder / matrix.plans[1].run_id
    assert (folder / "failure.txt").read_text() == "sparks"
    failure = matrix.store.failure(matrix.plans[1].run_id)
    assert failure is not None
    assert (failure["status"], failure["reason"]) == ("failed", "its machine is gone")


def test_failures_are_not_tried_again(bench: Workbench) -> None:
    matrix = Matrix(bench, [Outcome("failed", "boom")], [Outcome("skipped", "no channels")])
    assert [outcome and outcome.status for outcome in matrix.go()] == ["failed", "skipped"]
    assert len(matrix.executor.orders) == 2
    skipped = matrix.store.failure(matrix.plans[1].run_id)
    assert skipped is not None
    assert (skipped["status"], skipped["reason"]) == ("skipped", "no channels")


def test_what_had_to_make_way_goes_on(bench: Workbench) -> None:
    matrix = Matrix(bench, [Outcome("interrupted")] * 5 + [DONE])
    assert matrix.go() == [DONE]
    assert len(matrix.executor.orders) == 6


def test_what_has_to_make_way_and_gets_no_further_is_given_up(bench: Workbench) -> None:
    matrix = Matrix(bench, [Outcome("interrupted")])
    reason = "was interrupted again and again and got no further"
    assert matrix.go() == [Outcome("failed", reason)]
    assert len(matrix.executor.orders) == 1 + RETRIES["interrupted"]


def test_what_gets_further_each_time_may_make_way_for_ever(bench: Workbench) -> None:
    times = 3 * RETRIES["interrupted"]
    matrix = Matrix(bench, [Outcome("interrupted")] * times + [DONE])
    attempts = Attempts(matrix.store.open_run(matrix.plans[0].run_id) / "lives.json")

    def get_further() -> None:
        attempts.begin(len(attempts.entries), {**dict.fromkeys(MACHINE), "runs_on_device": 1})

    assert matrix.go(get_further) == [DONE]
    assert len(matrix.executor.orders) == times + 1


def test_an_executor_that_raises_has_lost_the_run(bench: Workbench) -> None:
    matrix = Matrix(bench, [OSError("no more processes")])
    (outcome,) = matrix.go()
    assert outcome == Outcome("failed", "OSError: no more processes")


def test_a_folder_that_takes_nothing_does_not_end_the_matrix(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.helpers.disk import FailingDisk, full_disk

    matrix = Matrix(bench, [Outcome("failed", "boom")], [DONE])
    with FailingDisk(lambda number, operation, name: operation == "write", full_disk).in_use():
        assert [outcome and outcome.status for outcome in matrix.go()] == ["failed", "done"]


def test_what_another_process_carries_out_is_waited_for(bench: Workbench) -> None:
    matrix = Matrix(bench, [Outcome("elsewhere")], [Outcome("elsewhere"), DONE])
    first, second = (matrix.store.open_run(plan.run_id) for plan in matrix.plans)
    locks = [FileLock(folder / "lock") for folder in (first, second)]
    for lock in locks:
        lock.acquire()
    looks = 0

    def end_elsewhere() -> None:
        """The first is done there, the second is left unfinished."""
        nonlocal looks
        looks += 1
        if looks == 3:
            matrix.store.save(record(run_id=first.name, status="collapsed", reason="flat"))
            for lock in locks:
                lock.release()

    assert matrix.go(end_elsewhere) == [Outcome("collapsed", "flat"), DONE]
    assert matrix.executor.orders == [first.name, second.name, second.name]


@pytest.mark.parametrize(("level", "shutdowns"), [(1, [False, False]), (2, [False, True, False])])
def test_what_is_interrupted_when_asked_to_stop_is_not_begun_again(
    bench: Workbench, level: int, shutdowns: list[bool]
) -> None:
    matrix = Matrix(bench, [Outcome("interrupted")], [LOST])
    matrix.urgency.level = level
    assert [outcome and outcome.status for outcome in matrix.go()] == [None, "failed"]
    assert len(matrix.executor.orders) == 2
    assert matrix.executor.shutdowns == shutdowns
    assert matrix.tally.waiting == 1


class TestBoard:
    def told(self, bench: Workbench, estimates: Estimates) -> list[str]:
        """Return the lines of a log."""
        matrix, log = Matrix(bench, [DONE], [Outcome("failed", "boom")]), io.StringIO()
        plans = {plan.run_id: plan for plan in matrix.plans}
        board = Board("mine", plans, matrix.tally, estimates, slots=2, stream=log)
        with board.showing():
            matrix.go(board.show)
        return [
            line.replace(f"-{id_[-12:]}", "")
            for line, id_ in zip(log.getvalue().splitlines(), plans, strict=True)
        ]

    def test_a_log_has_a_line_for_each_run_that_ended(self, bench: Workbench) -> None:
        assert self.told(bench, Estimates()) == [
            "[1/2] points-dense-0-seed0 done",
            "[2/2] points-dense-0-seed1 failed: boom",
        ]

    def test_a_log_says_what_starts_and_how_far_it_is(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tally, log = Tally(1), io.StringIO()
        board = Board("mine", {}, tally, Estimates(), slots=1, stream=log)
        tally.hear("a", "starts")
        board.show()
        tally.hear("a", "epoch 1/2")
        board.show()
        monkeypatch.setattr("harness.matrix.board.SECONDS_BETWEEN_LINES", 0.0)
        board.show()
        tally.forget("a")
        tally.hear("a", "starts")
        board.show()
        assert log.getvalue().splitlines() == ["a starts", "a epoch 1/2", "a starts", "a starts"]

    def test_somebody_who_wants_it_to_stop_is_answered(self) -> None:
        tally, log = Tally(1), io.StringIO()
        board = Board("mine", {}, tally, Estimates(), slots=1, stream=log)
        for urgency in (0, 1, 1, 2):
            tally.urgency = urgency
            board.show()
        assert log.getvalue().splitlines() == [STOPPING[1], STOPPING[2]]

    def test_what_is_known_of_such_runs_says_how_long_it_takes(self, bench: Workbench) -> None:
        spec = {"task": "points", "pruner": "snip", "profile": "smoke"}
        known = [record(spec=spec, cost__train_seconds=seconds) for seconds in (100.0, 140.0, 900)]
        first, _ = self.told(bench, Estimates(known))
        assert first.endswith("done; 70 s left")

    def test_a_tally_in_words(self) -> None:
        tally = Tally(5, {"a": DONE, "b": Outcome("skipped", "no"), "c": DONE}, at_work={"d": ""})
        assert counted(tally) == "5 runs: 2 done, 1 skipped, 1 running, 1 waiting"
        assert tally.waiting == 1


def test_estimates_know_the_most_memory_that_was_needed(bench: Workbench, tmp_path: Path) -> None:
    spec = {"task": "points", "pruner": "dense", "profile": "smoke"}
    known = [record(spec=spec, cost__peak_run_bytes=size) for size in (10**6, 10**8)]
    assert Estimates(known).bytes(bench.plan("dense")) == 500_000_000
    assert Estimates().bytes(bench.plan("dense")) is None
