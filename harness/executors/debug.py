"""This process: one run after another, so that a debugger stops inside a method or criterion.

A run that crashes ends the whole matrix, and limits of time and memory do not apply.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future
from pathlib import Path

from harness.matrix.executor import Job, Outcome, Report, Resources
from harness.matrix.worker import run_job
from harness.signals import Stop


class Debug:
    """Runs each job in this process as soon as it is submitted.

    Progress goes to standard error at once, since the matrix cannot show it during a run.

    Args:
        resources: only the device is used.
        report: not used.
        folder: not used.
    """

    slots = 1
    on_this_machine = True

    def __init__(self, resources: Resources, report: Report, folder: Path) -> None:
        self._device = resources.device
        self._is_closed = False

    def submit(self, job: Job) -> Future[Outcome]:
        """Run a job and return its finished future; a signal saves the run and cancels the rest."""
        future: Future[Outcome] = Future()
        if self._is_closed:
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

        def report(line: str) -> None:
            print(f"{job.run_id} {line}", file=sys.stderr, flush=True)

        stop = Stop()
        report("starts")
        with stop.listening():
            future.set_result(run_job(job, self._device, 1, report, stop))
        self._is_closed = stop.requested
        return future

    def shutdown(self, *, now: bool = False) -> None:
        """Cancel all further jobs."""
        self._is_closed = True
