"""A Ray cluster: each run a task of its own, in a worker process that carries out no other."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import os
import signal
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ray

from harness.errors import RequestError
from harness.executor import Order, Outcome, Report, Resources
from harness.stop import Stop
from harness.worker import carry_out_order

ANSWER_SECONDS = 30
"""After which a cluster that does not answer is given up."""

GRACE = 20.0
"""Seconds that a run has to save itself when its time is over."""


class Ray:
    """Hands runs to the cluster that ``RAY_ADDRESS`` names, or else to one on this machine.

    Args:
        resources: what each run gets.
        report: takes what becomes of the runs.
        folder: is not needed; the results folder has to be seen by every node.
    """

    def __init__(self, resources: Resources, report: Report, folder: Path) -> None:
        _connect()
        gpus = int(ray.cluster_resources().get("GPU", 0)) if resources.device != "cpu" else 0
        processors = int(ray.cluster_resources().get("CPU", 1))
        self.slots = resources.jobs or gpus or processors
        needed: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": resources.threads or 1}
        if resources.memory_limit is not None:
            needed["memory"] = resources.memory_limit
        # The matrix itself decides what is tried again; a worker is never used for a second run.
        self._task = ray.remote(max_retries=0, max_calls=1, **needed)(_work)
        self._device = "auto" if gpus else "cpu"
        self._time_limit = resources.time_limit
        self._report = report
        self._lock = threading.Lock()
        self._waiting: list[tuple[Order, Future[Outcome]]] = []
        self._at_work: dict[Future[Outcome], Any] = {}
        self._is_closing = False

    def submit(self, order: Order) -> Future[Outcome]:
        """Let a run be carried out when the cluster has room."""
        future: Future[Outcome] = Future()
        with self._lock:
            self._waiting.append((order, future))
            self._hand_over()
        return future

    def shutdown(self, *, now: bool = False) -> None:
        """Take back what has not been handed over; if it is urgent, end the rest, too."""
        with self._lock:
            self._is_closing = True
            for _, future in self._waiting:
                future.cancel()
                future.set_running_or_notify_cancel()
            self._waiting.clear()
            references = list(self._at_work.values()) if now else []
        for reference in references:
            ray.cancel(reference, force=True)

    def _hand_over(self) -> None:
        """Give the cluster as many runs as may be at work at once."""
        while self._waiting and len(self._at_work) < self.slots:
            order, future = self._waiting.pop(0)
            reference = self._task.remote(order, self._device, self._time_limit)
            self._at_work[future] = reference
            self._report(order.run_id, "handed to the cluster")
            reference.future().add_done_callback(functools.partial(self._end, future))

    def _end(self, future: Future[Outcome], ended: concurrent.futures.Future[Outcome]) -> None:
        error = ended.exception()
        with self._lock:
            del self._at_work[future]
            self._hand_over()
        if error is None:
            future.set_result(ended.result())
        else:
            what = str(error).strip().partition("\n")[0]
            future.set_result(Outcome("lost", f"{type(error).__name__}: {what}", str(error)))


def _connect() -> None:
    """Join the cluster, or say why that is not possible."""
    if ray.is_initialized():
        return
    failure: list[Exception] = []

    def join() -> None:
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except Exception as error:  # whatever the cluster says
            failure.append(error)

    # It waits for ever for a cluster that is gone.
    joining = threading.Thread(target=join, daemon=True)
    joining.start()
    joining.join(ANSWER_SECONDS)
    if failure or joining.is_alive():
        why = str(failure[0]).partition("\n")[0] if failure else "does not answer"
        address = os.environ.get("RAY_ADDRESS", "on this machine")
        raise RequestError(f"executor 'ray': the cluster {address}: {why}")


def _work(order: Order, device: str, time_limit: float | None) -> Outcome:
    """Carry out a run in a worker of the cluster."""
    stop = Stop()
    over = Outcome("failed", f"did not end within {time_limit or 0:g} seconds, the limit for a run")
    if time_limit is not None:
        threading.Thread(target=_end_after, args=(time_limit, stop), daemon=True).start()
    outcome = carry_out_order(order, device, 1, lambda line: None, stop)
    return over if outcome == Outcome("interrupted") and stop.requested else outcome


def _end_after(seconds: float, stop: Stop) -> None:
    """Let the run save itself when its time is over; end the process if it does not."""
    time.sleep(seconds)
    stop.requested = True
    time.sleep(GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.kill(os.getpid(), signal.SIGKILL)
