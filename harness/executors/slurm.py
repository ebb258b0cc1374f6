"""A Slurm cluster, through submitit: jobs that are submitted together form one array.

A run that is out of time or preempted saves itself and ends. The matrix submits it again, and it
resumes from its own checkpoint, so submitit's requeueing is not needed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from harness.errors import RequestError
from harness.matrix.executor import Job, Outcome, Report, Resources
from harness.matrix.worker import run_job
from harness.signals import Stop

INSTALL = "it is part of Slurm; on a login node, try `module load slurm`"
DEFAULT_SECONDS = 24 * 3600.0
DEFAULT_BYTES = 8 * 10**9
WARNING_SECONDS = 60.0
"""How long before the end of its time a run is told to save itself; at most a quarter of it."""

_GATHERING_SECONDS = 1.0
"""An array is submitted when no further job has come for this long."""

_POLL_SECONDS = 2.0
"""Between two looks at the queue."""


@dataclass
class _Task:
    """A job in Slurm's queue."""

    job: Job
    future: Future[Outcome]
    slurm_job: Any
    submitted: float
    """By the monotonic clock."""


class Slurm:
    """Submits runs to a cluster and waits for them.

    Args:
        resources: what each run gets, and how many run at a time.
        report: receives the progress of the runs.
        folder: submitit's files go into its folder ``slurm``; every node has to see it.
    """

    def __init__(self, resources: Resources, report: Report, folder: Path) -> None:
        _check_cluster()
        self.slots = resources.jobs or 1
        self._resources, self._report = resources, report
        self._executor = submitit.SlurmExecutor(folder=folder.resolve() / "slurm")
        self._executor.update_parameters(**_parameters(resources))
        self._lock = threading.Lock()
        self._gathered: list[tuple[Job, Future[Outcome]]] = []
        self._last_submit = 0.0
        self._tasks: list[_Task] = []
        self._closing = threading.Event()
        self._stopping = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, job: Job) -> Future[Outcome]:
        """Add a job to the next array."""
        future: Future[Outcome] = Future()
        with self._lock:
            self._gathered.append((job, future))
            self._last_submit = time.monotonic()
        return future

    def shutdown(self, *, now: bool = False) -> None:
        """Cancel the jobs that have not started; with `now`, let the others save themselves."""
        self._closing.set()
        if now:
            self._stopping.set()

    def _work(self) -> None:
        """Submit jobs and watch the queue until the executor is closed and both are empty."""
        while not (self._closing.is_set() and not self._gathered and not self._tasks):
            self._submit_gathered()
            if self._closing.is_set():
                self._cancel_pending()
            for task in list(self._tasks):
                self._check(task)
            time.sleep(_POLL_SECONDS if self._tasks else 0.1)

    def _submit_gathered(self) -> None:
        with self._lock:
            if time.monotonic() - self._last_submit < _GATHERING_SECONDS:
                return
            gathered, self._gathered = self._gathered, []
        if self._closing.is_set():
            for _, future in gathered:
                _cancel(future)
        elif gathered:
            calls = [Call(job, self._resources.device) for job, _ in gathered]
            now = time.monotonic()
            try:
                slurm_jobs = self._executor.map_array(_call, calls)
            except Exception as error:  # any error of sbatch is reported
                for _, future in gathered:
                    future.set_exception(error)
                return
            pairs = zip(gathered, slurm_jobs, strict=True)
            self._tasks += [_Task(job, future, each, now) for (job, future), each in pairs]

    def _check(self, task: _Task) -> None:
        state = str(task.slurm_job.state)
        if task.slurm_job.done():
            self._finish(task, _outcome(task.slurm_job, state))
        elif state == "RUNNING":
            self._report(task.job.run_id, f"runs as job {task.slurm_job.job_id}")
        elif time.monotonic() - task.submitted > self._resources.patience:
            task.slurm_job.cancel()
            reason = (
                f"the cluster has not started it within {self._resources.patience:.0f} s ({state})"
            )
            self._finish(task, Outcome("failed", reason))

    def _finish(self, task: _Task, outcome: Outcome) -> None:
        self._tasks.remove(task)
        task.future.set_result(outcome)

    def _cancel_pending(self) -> None:
        """Cancel pending jobs; if the stop is urgent, signal the running ones."""
        for task in list(self._tasks):
            if str(task.slurm_job.state) == "PENDING":
                task.slurm_job.cancel()
                self._tasks.remove(task)
                _cancel(task.future)
            elif self._stopping.is_set():
                _scancel("--signal=USR2", task.slurm_job.job_id)
        self._stopping.clear()


@dataclass(frozen=True)
class Call:
    """A job to be run on the node that gets it."""

    job: Job
    device: str

    def __call__(self) -> Outcome:
        """Run the job."""
        stop = Stop()

        def receive(number: int, frame: object) -> None:
            stop.requested = True

        with stop.listening():
            # submitit makes Slurm send this signal before the time is over.
            signal.signal(signal.SIGUSR2, receive)
            return run_job(self.job, self.device, 1, print, stop)


def _call(call: Call) -> Outcome:
    return call()


def _check_cluster() -> None:
    """Check that a cluster answers and keeps accounts of its jobs.

    Raises:
        RequestError: there is none.
    """
    if shutil.which("sbatch") is None:
        raise RequestError(f"executor 'slurm': there is no sbatch here; {INSTALL}")
    try:
        answer = subprocess.run(
            ["sacct", "--noheader", "--parsable2"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        raise RequestError("executor 'slurm': sacct gets no answer from the cluster") from None
    if answer.returncode:
        why = answer.stderr.strip().partition("\n")[0]
        raise RequestError(f"executor 'slurm': the accounting of jobs is not available: {why}")


def _parameters(resources: Resources) -> dict[str, Any]:
    seconds = resources.time_limit or DEFAULT_SECONDS
    memory = resources.memory_limit or DEFAULT_BYTES
    parameters: dict[str, Any] = {
        "job_name": "pruning-benchmark",
        "time": max(1, round(seconds / 60)),
        "mem": f"{memory // 10**6}M",
        "cpus_per_task": resources.threads or 1,
        "signal_delay_s": round(min(WARNING_SECONDS, seconds / 4)),
    }
    if resources.device != "cpu":
        parameters["gres"] = "gpu:1"
    if resources.jobs is not None:
        parameters["array_parallelism"] = resources.jobs
    if resources.partition is not None:
        parameters["partition"] = resources.partition
    if resources.exclusive:
        parameters["exclusive"] = True
    return parameters


def _outcome(job: Any, state: str) -> Outcome:
    """Return how a job ended."""
    if state.startswith("TIMEOUT"):
        return Outcome(
            "failed", "did not end within the limit for a run, and did not stop when told to"
        )
    try:
        outcome: Outcome = job.result()
    except submitit.core.utils.FailedJobError as error:
        return Outcome("lost", f"job {job.job_id} raised", str(error))
    except Exception as error:  # submitit has one exception for each way of losing a job
        return Outcome("lost", f"job {job.job_id} was lost ({state})", str(error))
    return outcome


def _cancel(future: Future[Outcome]) -> None:
    future.cancel()
    future.set_running_or_notify_cancel()


def _scancel(*words: str) -> None:
    with contextlib.suppress(OSError):
        subprocess.run(["scancel", *words], check=False, env=os.environ)
