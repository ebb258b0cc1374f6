"""A Slurm cluster, through submitit: what is submitted together is one array, a task for each run.

A run that is out of time or preempted saves itself and ends; the matrix submits it again, and it
goes on from its own checkpoint. submitit's requeueing is not needed for that.
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
from harness.matrix.executor import Order, Outcome, Report, Resources
from harness.matrix.worker import carry_out_order
from harness.signals import Stop

INSTALL = "it belongs to Slurm: on a login node, `module load slurm` or its like may bring it"
DEFAULT_SECONDS = 24 * 3600.0
DEFAULT_BYTES = 8 * 10**9
WARNING_SECONDS = 60.0
"""How long before the end of its time a run is told to save itself, or a quarter of its time."""

_GATHERING = 1.0
"""Seconds without a further order after which the array is submitted."""

_TICK = 2.0
"""Seconds between two looks at the queue."""


@dataclass
class _Task:
    """A run in the queue."""

    order: Order
    future: Future[Outcome]
    job: Any
    submitted: float
    """By the monotonic clock."""


class Slurm:
    """Submits runs to a cluster and waits for them.

    Args:
        resources: what each run gets, and how many are at work at once.
        report: takes what becomes of the runs.
        folder: submitit's files are in its folder ``slurm``; every node has to see it.
    """

    def __init__(self, resources: Resources, report: Report, folder: Path) -> None:
        _check_cluster()
        self.slots = resources.jobs or 1
        self._resources, self._report = resources, report
        self._executor = submitit.SlurmExecutor(folder=folder.resolve() / "slurm")
        self._executor.update_parameters(**_parameters(resources))
        self._lock = threading.Lock()
        self._gathered: list[tuple[Order, Future[Outcome]]] = []
        self._last = 0.0
        self._tasks: list[_Task] = []
        self._closing = threading.Event()
        self._stopping = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, order: Order) -> Future[Outcome]:
        """Let a run be part of the next array."""
        future: Future[Outcome] = Future()
        with self._lock:
            self._gathered.append((order, future))
            self._last = time.monotonic()
        return future

    def shutdown(self, *, now: bool = False) -> None:
        """Take back what has not begun; if it is urgent, let the rest save itself, too."""
        self._closing.set()
        if now:
            self._stopping.set()

    def _work(self) -> None:
        """Submit and look at the queue until nothing is left of either."""
        while not (self._closing.is_set() and not self._gathered and not self._tasks):
            self._submit_gathered()
            if self._closing.is_set():
                self._take_back()
            for task in list(self._tasks):
                self._look_at(task)
            time.sleep(_TICK if self._tasks else 0.1)

    def _submit_gathered(self) -> None:
        with self._lock:
            if time.monotonic() - self._last < _GATHERING:
                return
            gathered, self._gathered = self._gathered, []
        if self._closing.is_set():
            for _, future in gathered:
                _cancel(future)
        elif gathered:
            runs = [Carry(order, self._resources.device) for order, _ in gathered]
            now = time.monotonic()
            try:
                jobs = self._executor.map_array(_call, runs)
            except Exception as error:  # whatever sbatch says
                for _, future in gathered:
                    future.set_exception(error)
                return
            pairs = zip(gathered, jobs, strict=True)
            self._tasks += [_Task(order, future, job, now) for (order, future), job in pairs]

    def _look_at(self, task: _Task) -> None:
        state = str(task.job.state)
        if task.job.done():
            self._settle(task, _outcome(task.job, state))
        elif state == "RUNNING":
            self._report(task.order.run_id, f"runs as job {task.job.job_id}")
        elif time.monotonic() - task.submitted > self._resources.patience:
            task.job.cancel()
            reason = (
                f"the cluster has not started it within {self._resources.patience:.0f} s ({state})"
            )
            self._settle(task, Outcome("failed", reason))

    def _settle(self, task: _Task, outcome: Outcome) -> None:
        self._tasks.remove(task)
        task.future.set_result(outcome)

    def _take_back(self) -> None:
        """Cancel what waits, and tell what is at work to stop if that is urgent."""
        for task in list(self._tasks):
            if str(task.job.state) == "PENDING":
                task.job.cancel()
                self._tasks.remove(task)
                _cancel(task.future)
            elif self._stopping.is_set():
                _scancel("--signal=USR2", task.job.job_id)
        self._stopping.clear()


@dataclass(frozen=True)
class Carry:
    """A run, to be called on the node that gets it."""

    order: Order
    device: str

    def __call__(self) -> Outcome:
        """Carry out the run."""
        stop = Stop()

        def receive(number: int, frame: object) -> None:
            stop.requested = True

        with stop.listening():
            # Slurm's warning before the end of the time, which submitit asks it for.
            signal.signal(signal.SIGUSR2, receive)
            return carry_out_order(self.order, self.device, 1, print, stop)


def _call(run: Carry) -> Outcome:
    return run()


def _check_cluster() -> None:
    """Raise a `RequestError` unless a cluster answers that tells what became of its jobs."""
    if shutil.which("sbatch") is None:
        raise RequestError(f"executor 'slurm': there is no sbatch here; {INSTALL}")
    try:
        answer = subprocess.run(
            ["sacct", "--noheader", "--parsable2"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        raise RequestError("executor 'slurm': the cluster does not answer sacct") from None
    if answer.returncode:
        why = answer.stderr.strip().partition("\n")[0]
        raise RequestError(f"executor 'slurm': needs the cluster's accounting: {why}")


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
    """Return how a task ended."""
    if state.startswith("TIMEOUT"):
        return Outcome(
            "failed", "did not end within the limit for a run, and did not stop when told to"
        )
    try:
        outcome: Outcome = job.result()
    except submitit.core.utils.FailedJobError as error:
        return Outcome("lost", f"job {job.job_id} raised", str(error))
    except Exception as error:  # submitit has an exception for each way in which a job is lost
        return Outcome("lost", f"job {job.job_id} was lost ({state})", str(error))
    return outcome


def _cancel(future: Future[Outcome]) -> None:
    future.cancel()
    future.set_running_or_notify_cancel()


def _scancel(*words: str) -> None:
    with contextlib.suppress(OSError):
        subprocess.run(["scancel", *words], check=False, env=os.environ)
