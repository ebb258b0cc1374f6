"""Runs each job of a matrix in a new process of this machine."""

from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from harness.matrix.executor import Job, Outcome, Report, Resources
from harness.matrix.worker import run_job
from harness.signals import Stop


def work(job: Job, device: str, jobs_on_device: int) -> Outcome:
    """Run a job in this process; a signal saves it and ends it."""
    stop = Stop()
    with stop.listening():
        return run_job(job, device, jobs_on_device, lambda line: None, stop)


class Processes:
    """A pool whose processes run one job each."""

    on_this_machine = True  # so the networks are measured here, too, after all training

    def __init__(self, resources: Resources, report: Report, folder: Path) -> None:
        self.slots = 1 if resources.exclusive else resources.jobs or 1
        self._device = resources.device
        self._report = report
        self._pool = ProcessPoolExecutor(
            self.slots, mp_context=get_context("spawn"), max_tasks_per_child=1
        )

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a job."""
        self._report(job.run_id, "queued")
        return self._pool.submit(work, job, self._device, self.slots)

    def shutdown(self, *, now: bool = False) -> None:
        """Start no further job; the terminal's Ctrl-C reaches the processes by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
