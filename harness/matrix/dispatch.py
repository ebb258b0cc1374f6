"""Orders go out to an executor, outcomes come back: every run once, whatever happens."""

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
from harness.matrix.executor import Executor, Order, Outcome, Status
from harness.results.records import record_without_result
from harness.signals import Urgency
from harness.storage.files import is_held
from harness.storage.journal import Attempts
from harness.storage.store import Store

RETRIES: Mapping[Status, int] = {"lost": 1, "interrupted": 10}
"""How often a run is begun again whose process or machine was lost, or that had to make way for
others without having got any further; one that gets further each time may do so for ever.
"""

_TICK = 0.25
"""Seconds between two looks at whether somebody wants it to stop."""

RESULTS: tuple[Status, ...] = ("done", "collapsed", "diverged")
"""How runs end that leave a record."""


@dataclass
class Tally:
    """Where every run of a matrix is."""

    total: int
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """Of the runs that have ended, by their names."""
    done_before: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """How long the runs took that this command carried out."""
    at_work: dict[str, str] = field(default_factory=dict)
    """What the runs said last that are at work."""
    began: dict[str, float] = field(default_factory=dict)
    """When they began, by the monotonic clock."""
    urgency: int = 0
    """How urgently it was asked to stop, as far as that has been heeded."""

    def hear(self, run_id: str, line: str) -> None:
        """Take a line of a run that is at work."""
        self.began.setdefault(run_id, time.monotonic())
        self.at_work[run_id] = line

    def settle(self, run_id: str, outcome: Outcome) -> None:
        """Take the end of a run."""
        self.forget(run_id)
        self.outcomes[run_id] = outcome

    def forget(self, run_id: str) -> None:
        """Take the end of an attempt."""
        self.at_work.pop(run_id, None)
        if (began := self.began.pop(run_id, None)) is not None:
            self.seconds[run_id] = time.monotonic() - began

    @property
    def waiting(self) -> int:
        """How many are neither at work nor ended."""
        return self.total - len(self.outcomes) - len(self.at_work)

    def count(self) -> Counter[Status]:
        """Return how many ended in which way."""
        return Counter(outcome.status for outcome in self.outcomes.values())


class Dispatch:
    """Carries out orders.

    Args:
        executor: carries out each.
        store: where their records are.
        tally: is told what happens.
        urgency: says whether somebody wants it to stop.
    """

    def __init__(self, executor: Executor, store: Store, tally: Tally, urgency: Urgency) -> None:
        self._executor, self._store, self._tally = executor, store, tally
        self._urgency = urgency
        self._open = 0
        self._finished: queue.SimpleQueue[tuple[Order, Future[Outcome]]] = queue.SimpleQueue()
        self._lost: Counter[tuple[str, Status, int]] = Counter()
        self._elsewhere: dict[str, Order] = {}

    def carry_out(self, orders: Iterable[Order], show: Callable[[], None]) -> None:
        """Carry out orders until all have ended, or somebody wants it to stop.

        Args:
            orders: one for each run.
            show: is called several times a second.
        """
        for order in orders:
            self._submit(order)
        while self._open or (self._elsewhere and not self._urgency.level):
            show()
            self._heed()
            self._look_elsewhere()
            with contextlib.suppress(queue.Empty):
                order, future = self._finished.get(timeout=_TICK)
                self._open -= 1
                if not future.cancelled():
                    self._take(order, _outcome(future))
        self._executor.shutdown()
        show()

    def _submit(self, order: Order) -> None:
        self._open += 1
        future = self._executor.submit(order)
        future.add_done_callback(lambda ended: self._finished.put((order, ended)))

    def _heed(self) -> None:
        """Begin nothing new, stop what is at work, or end it: as urgent as it is wanted."""
        while self._tally.urgency < self._urgency.level:
            self._tally.urgency += 1
            self._executor.shutdown(now=self._tally.urgency > 1)

    def _take(self, order: Order, outcome: Outcome) -> None:
        """Settle a run, or have it carried out again."""
        run_id = order.run_id
        stopping = self._urgency.level > 0
        if outcome.status == "elsewhere":
            self._tally.forget(run_id)
            self._elsewhere[run_id] = order
        elif outcome.status in RETRIES and not stopping and self._may_retry(order, outcome):
            self._tally.forget(run_id)
            self._submit(order)
        elif outcome.status == "interrupted" and stopping:
            self._tally.forget(run_id)
        else:
            if outcome.status in RETRIES:
                reason = outcome.reason or "was interrupted again and again and got no further"
                outcome = Outcome("failed", reason, outcome.details)
            if outcome.status not in RESULTS:
                self._record_failure(order, outcome)
            self._tally.settle(run_id, outcome)

    def _may_retry(self, order: Order, outcome: Outcome) -> bool:
        run_id, begun_at = order.run_id, 0
        if outcome.status == "interrupted":
            begun_at = _begun_at(self._store_of(order), run_id)
        self._lost[run_id, outcome.status, begun_at] += 1
        return self._lost[run_id, outcome.status, begun_at] <= RETRIES[outcome.status]

    def _store_of(self, order: Order) -> Store:
        return self._store.again() if order.again else self._store

    def _record_failure(self, order: Order, outcome: Outcome) -> None:
        """Leave a record of why, unless the run has done so itself."""
        reason = outcome.reason or ""
        store = self._store_of(order)
        known = None
        # A damaged record of an earlier failure is written anew.
        with contextlib.suppress(RequestError):
            known = store.failure(order.run_id)
        # A disk that is full must not keep the other runs from being carried out.
        with contextlib.suppress(RunFailed, RequestError):
            if known is None or known["reason"] != reason:
                store.open_run(order.run_id)
                status: Literal["skipped", "failed"]
                status = "skipped" if outcome.status == "skipped" else "failed"
                record = record_without_result(order.plan, status, reason)
                store.save_failure(record, outcome.details or reason)

    def _look_elsewhere(self) -> None:
        """Take the results of other processes, and take over what they have left."""
        for run_id, order in list(self._elsewhere.items()):
            store = self._store_of(order)
            if is_held(store.folder / run_id):
                continue
            del self._elsewhere[run_id]
            try:
                record = store.record(run_id)
            except RequestError as error:
                self._tally.settle(run_id, Outcome("damaged", str(error)))
                continue
            if record is not None:
                self._tally.settle(run_id, Outcome(record["status"], record["reason"]))
            elif not self._urgency.level:
                self._submit(order)


def _begun_at(store: Store, run_id: str) -> int:
    """Return the step from which the last attempt at a run went on."""
    attempts = Attempts(store.folder / run_id / "lives.json").entries
    return int(attempts[-1]["position"]) if attempts else 0


def _outcome(future: Future[Outcome]) -> Outcome:
    error = future.exception()
    return future.result() if error is None else Outcome("lost", f"{type(error).__name__}: {error}")
