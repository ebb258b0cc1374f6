"""A Ray cluster: each run a task, which the node that gets it carries out as `Local` does.

So a run that segfaults, hangs or holds too much memory ends there as on this machine, and one
whose worker is gone saves itself.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import logging
import os
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ray

from harness.errors import RequestError
from harness.executors.local import Local
from harness.matrix.executor import Order, Outcome, Report, Resources

ANSWER_SECONDS = 30
"""After which a cluster that does not answer is given up."""


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
        # The matrix itself decides what is tried again.
        self._task = ray.remote(max_retries=0, **needed)(_work)
        self._share = dataclasses.replace(
            resources, jobs=1, device="auto" if gpus else "cpu", threads=resources.threads or 1
        )
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
            reference = self._task.remote(order, self._share)
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


def _work(order: Order, resources: Resources) -> Outcome:
    """Carry out a run on the worker's node, in a process of its own, as on a machine of its own."""
    here = Local(resources, lambda run_id, line: None, order.results)
    outcome = here.submit(order).result()
    here.shutdown()
    return outcome
