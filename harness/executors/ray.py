"""A Ray cluster: each run is a task, which its node carries out with the `Local` executor.

A run that crashes, hangs or uses too much memory therefore ends as it does on this machine, and a
run whose Ray worker is gone saves itself.
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
from harness.matrix.executor import Job, Outcome, Report, Resources

ANSWER_SECONDS = 30
"""Give up if the cluster has not answered after this time."""


class Ray:
    """Submits runs to the cluster in ``RAY_ADDRESS``, or to a new one on this machine.

    Every node has to see the results folder.

    Args:
        resources: what each run gets.
        report: receives the progress of the runs.
        folder: not used.
    """

    def __init__(self, resources: Resources, report: Report, folder: Path) -> None:
        _connect()
        gpus = int(ray.cluster_resources().get("GPU", 0)) if resources.device != "cpu" else 0
        processors = int(ray.cluster_resources().get("CPU", 1))
        self.slots = resources.jobs or gpus or processors
        needed: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": resources.threads or 1}
        if resources.memory_limit is not None:
            needed["memory"] = resources.memory_limit
        # The matrix itself decides about retries.
        self._task = ray.remote(max_retries=0, **needed)(_work)
        self._share = dataclasses.replace(
            resources, jobs=1, device="auto" if gpus else "cpu", threads=resources.threads or 1
        )
        self._report = report
        self._lock = threading.Lock()
        self._waiting: list[tuple[Job, Future[Outcome]]] = []
        self._running: dict[Future[Outcome], Any] = {}
        self._is_closing = False

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a job until the cluster has room."""
        future: Future[Outcome] = Future()
        with self._lock:
            self._waiting.append((job, future))
            self._submit_waiting()
        return future

    def shutdown(self, *, now: bool = False) -> None:
        """Cancel the jobs that have not been submitted; with `now`, end the others as well."""
        with self._lock:
            self._is_closing = True
            for _, future in self._waiting:
                future.cancel()
                future.set_running_or_notify_cancel()
            self._waiting.clear()
            references = list(self._running.values()) if now else []
        for reference in references:
            ray.cancel(reference, force=True)

    def _submit_waiting(self) -> None:
        """Submit jobs until all slots are taken."""
        while self._waiting and len(self._running) < self.slots:
            job, future = self._waiting.pop(0)
            reference = self._task.remote(job, self._share)
            self._running[future] = reference
            self._report(job.run_id, "handed to the cluster")
            reference.future().add_done_callback(functools.partial(self._end, future))

    def _end(self, future: Future[Outcome], ended: concurrent.futures.Future[Outcome]) -> None:
        error = ended.exception()
        with self._lock:
            del self._running[future]
            self._submit_waiting()
        if error is None:
            future.set_result(ended.result())
        else:
            what = str(error).strip().partition("\n")[0]
            future.set_result(Outcome("lost", f"{type(error).__name__}: {what}", str(error)))


def _connect() -> None:
    """Connect to the cluster.

    Raises:
        RequestError: it cannot be reached.
    """
    if ray.is_initialized():
        return
    failure: list[Exception] = []

    def join() -> None:
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except Exception as error:  # any error of the cluster is reported
            failure.append(error)

    # ray.init waits forever for a cluster that is gone.
    joining = threading.Thread(target=join, daemon=True)
    joining.start()
    joining.join(ANSWER_SECONDS)
    if failure or joining.is_alive():
        why = str(failure[0]).partition("\n")[0] if failure else "does not answer"
        address = os.environ.get("RAY_ADDRESS", "on this machine")
        raise RequestError(f"executor 'ray': the cluster {address}: {why}")


def _work(job: Job, resources: Resources) -> Outcome:
    """Run a job on the worker's node, in a process of its own."""
    local = Local(resources, lambda run_id, line: None, job.results)
    outcome = local.submit(job).result()
    local.shutdown()
    return outcome
