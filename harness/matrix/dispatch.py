"""Jobs go to an executor and their outcomes come back: every run once, whatever happens."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

from harness.errors import RequestError, RunFailed
from harness.matrix.executor import Executor, Job, Outcome, Status
from harness.results.records import record_without_result
from harness.signals import StopRequest
from harness.storage.files import is_held
from harness.storage.journal import Attempts
from harness.storage.store import Store

RETRIES: Mapping[Status, int] = {"lost": 1, "interrupted": 10}
"""Restarts allowed per run after a lost process or machine, or after a preemption without
progress. A preempted run that made progress may always restart.
"""

_POLL_SECONDS = 0.25
"""Between two checks for a request to stop."""

RESULTS: tuple[Status, ...] = ("done", "collapsed", "diverged")
"""Statuses of runs that left a record."""


@dataclass
class Tally:
    """The state of every run of a matrix.

    Attributes:
        total: number of runs.
        outcomes: of the runs that have ended, by name.
        done_before: how many were done before this command.
        seconds: duration of each run that this command carried out.
        running: the latest line of progress of each current run.
        started: when the current runs started, by the monotonic clock.
        stop_level: the level of the `StopRequest` that has been acted on.
        unmeasured: the finished runs whose networks are still to be measured.
        not_measured: why measuring the network of a run failed.
        measuring_interrupted: whether a request to stop came before all networks were measured.
    """

    total: int
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    done_before: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    stop_level: int = 0
    unmeasured: set[str] = field(default_factory=set)
    not_measured: dict[str, str] = field(default_factory=dict)
    measuring_interrupted: bool = False

    def report(self, run_id: str, line: str) -> None:
        """Note a line of progress of a current run."""
        self.started.setdefault(run_id, time.monotonic())
        self.running[run_id] = line

    def finish(self, run_id: str, outcome: Outcome) -> None:
        """Note the outcome of a run."""
        self.end_attempt(run_id)
        self.outcomes[run_id] = outcome

    def end_attempt(self, run_id: str) -> None:
        """Note that a run is not running any more, whether or not it will be started again."""
        self.running.pop(run_id, None)
        if (started := self.started.pop(run_id, None)) is not None:
            self.seconds[run_id] = time.monotonic() - started

    @property
    def waiting(self) -> int:
        """Number of runs that are neither running nor finished."""
        return self.total - len(self.outcomes) - len(self.running)

    def count(self) -> Counter[Status]:
        """Return the number of finished runs by status."""
        return Counter(outcome.status for outcome in self.outcomes.values())


class Dispatch:
    """Hands jobs to an executor, retries what was lost, and keeps the tally.

    Args:
        executor: runs the jobs.
        store: holds their records.
        tally: is updated as runs start and end.
        stop: says whether, and how urgently, the matrix was asked to stop.
    """

    def __init__(self, executor: Executor, store: Store, tally: Tally, stop: StopRequest) -> None:
        self._executor, self._store, self._tally = executor, store, tally
        self._stop = stop
        self._submitted = 0
        self._finished: queue.SimpleQueue[tuple[Job, Future[Outcome]]] = queue.SimpleQueue()
        self._retries: Counter[tuple[str, Status, int]] = Counter()
        self._elsewhere: dict[str, Job] = {}

    def run(self, jobs: Iterable[Job], show: Callable[[], None]) -> None:
        """Run jobs until all have ended, or until a request to stop is met.

        Args:
            jobs: one for each run.
            show: called several times a second.
        """
        for job in jobs:
            self._submit(job)
        while self._submitted or (self._elsewhere and not self._stop.level):
            show()
            self._check_stop()
            self._check_elsewhere()
            with contextlib.suppress(queue.Empty):
                job, future = self._finished.get(timeout=_POLL_SECONDS)
                self._submitted -= 1
                if not future.cancelled():
                    self._take(job, _outcome(future))
        self._executor.shutdown()
        show()

    def _submit(self, job: Job) -> None:
        self._submitted += 1
        future = self._executor.submit(job)
        future.add_done_callback(lambda ended: self._finished.put((job, ended)))

    def _check_stop(self) -> None:
        """Shut the executor down once for each level of urgency."""
        while self._tally.stop_level < self._stop.level:
            self._tally.stop_level += 1
            self._executor.shutdown(now=self._tally.stop_level > 1)

    def _take(self, job: Job, outcome: Outcome) -> None:
        """Record an outcome, or submit the job again."""
        run_id = job.run_id
        stopping = self._stop.level > 0
        if outcome.status == "elsewhere":
            self._tally.end_attempt(run_id)
            self._elsewhere[run_id] = job
        elif outcome.status in RETRIES and not stopping and self._may_retry(job, outcome):
            self._tally.end_attempt(run_id)
            self._submit(job)
        elif outcome.status == "interrupted" and stopping:
            self._tally.end_attempt(run_id)
        else:
            if outcome.status in RETRIES:
                reason = outcome.reason or "was interrupted repeatedly without making progress"
                outcome = Outcome("failed", reason, outcome.details)
            if outcome.status not in RESULTS:
                self._record_failure(job, outcome)
            self._tally.finish(run_id, outcome)

    def _may_retry(self, job: Job, outcome: Outcome) -> bool:
        run_id, position = job.run_id, 0
        if outcome.status == "interrupted":
            position = _last_start(self._store_of(job), run_id)
        self._retries[run_id, outcome.status, position] += 1
        return self._retries[run_id, outcome.status, position] <= RETRIES[outcome.status]

    def _store_of(self, job: Job) -> Store:
        return self._store.again() if job.again else self._store

    def _record_failure(self, job: Job, outcome: Outcome) -> None:
        """Leave a record that gives the reason, unless the run has written one itself."""
        reason = outcome.reason or ""
        store = self._store_of(job)
        known = None
        # A damaged record of an earlier failure is overwritten.
        with contextlib.suppress(RequestError):
            known = store.failure(job.run_id)
        # A full disk must not prevent the other runs.
        with contextlib.suppress(RunFailed, RequestError):
            if known is None or known["reason"] != reason:
                store.open_run(job.run_id)
                status: Literal["skipped", "failed"]
                status = "skipped" if outcome.status == "skipped" else "failed"
                record = record_without_result(job.plan, status, reason)
                store.save_failure(record, outcome.details or reason)

    def _check_elsewhere(self) -> None:
        """Take the results of other processes, and run what they left unfinished."""
        for run_id, job in list(self._elsewhere.items()):
            store = self._store_of(job)
            if is_held(store.folder / run_id):
                continue
            del self._elsewhere[run_id]
            try:
                record = store.record(run_id)
            except RequestError as error:
                self._tally.finish(run_id, Outcome("damaged", str(error)))
                continue
            if record is not None:
                self._tally.finish(run_id, Outcome(record["status"], record["reason"]))
            elif not self._stop.level:
                self._submit(job)


def _last_start(store: Store, run_id: str) -> int:
    """Return the step at which the last attempt at a run started."""
    attempts = Attempts(store.folder / run_id / "lives.json").entries
    return int(attempts[-1]["position"]) if attempts else 0


def _outcome(future: Future[Outcome]) -> Outcome:
    error = future.exception()
    return future.result() if error is None else Outcome("lost", f"{type(error).__name__}: {error}")
