"""This machine: a fresh process for each run, forked from a server that has run nothing.

No library bounds the memory of its workers, names the signal that ended one, and lets a worker
save itself first; so this is own code.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.errors import RequestError
from harness.executors.local_resources import (
    BYTES_PER_RUN,
    Slot,
    available_memory,
    divide,
    memory_of,
    visible_gpus,
    why_too_large,
)
from harness.importing import without_main_module
from harness.matrix.executor import Job, Outcome, Report, Resources
from harness.matrix.worker import run_job
from harness.output import unbreakable
from harness.signals import Stop
from harness.text import several, size

GRACE = 20.0
"""Seconds that a run has to save itself when it is asked to stop."""

_POLL_SECONDS = 0.2
"""Between two checks of a run."""


@dataclass
class _Attempt:
    """A process that carries out a run, and why it was asked to stop, if it was."""

    process: BaseProcess
    messages: Connection
    started: float = field(default_factory=time.monotonic)
    stopped: float | None = None
    stop_outcome: Outcome | None = None

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.started

    def stop(self, outcome: Outcome) -> None:
        """Ask the run to save itself and end, which then counts as this outcome."""
        if self.stopped is None:
            self.stopped, self.stop_outcome = time.monotonic(), outcome
            self._send(signal.SIGTERM)

    @property
    def ignores_stop(self) -> bool:
        """Whether it was asked to stop and has not done so in time."""
        return self.stopped is not None and time.monotonic() - self.stopped > GRACE

    def kill(self) -> None:
        """End the process and everything that it has started."""
        self._send(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)

    @property
    def _pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)


class Local:
    """Runs one job at a time in each slot of this machine.

    Args:
        resources: what it may use.
        report: receives the progress of the runs.
        folder: not used.
    """

    on_this_machine = True

    def __init__(self, resources: Resources, report: Report, folder: Path) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["harness.executors.local_preload"])
        self._resources, self._report = resources, report
        gpus = [] if resources.device == "cpu" else visible_gpus(self._count_gpus())
        slots = divide(resources, gpus)
        self.slots = len(slots)
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._threads = ThreadPoolExecutor(self.slots, thread_name_prefix="slot")
        self._starting = threading.Lock()
        self._attempts: list[_Attempt] = []
        self._stopping = threading.Event()
        self._killing = threading.Event()

    def submit(self, job: Job) -> Future[Outcome]:
        """Queue a job until a slot is free."""
        return self._threads.submit(self._run, job)

    def shutdown(self, *, now: bool = False) -> None:
        """Start no further jobs; the second call with `now` kills the current runs."""
        if now and self._stopping.is_set():
            self._killing.set()
        if now:
            self._stopping.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, job: Job) -> Outcome:
        """Wait for memory and run the job, repeatedly if it has to make room for others."""
        if refusal := why_too_large(_bytes_needed(job)):
            return Outcome("failed", refusal)
        slot = self._free.get()
        try:
            while True:
                self._wait_for_memory(job)
                if self._stopping.is_set():
                    return Outcome("interrupted")
                outcome = self._attempt(job, slot)
                if outcome != _MAKES_ROOM:
                    return outcome
        finally:
            self._free.put(slot)

    def _wait_for_memory(self, job: Job) -> None:
        needed = _bytes_needed(job)
        while available_memory() < needed and self._attempts and not self._stopping.is_set():
            self._report(job.run_id, f"waits for {size(needed)} of memory")
            time.sleep(5 * _POLL_SECONDS)

    def _attempt(self, job: Job, slot: Slot) -> Outcome:
        """Run the job in a new process."""
        # The file has no name, so that nothing is left of it if this process is killed.
        with tempfile.TemporaryFile() as output:
            attempt = self._start(job, slot, output.fileno())
            try:
                outcome = self._watch(attempt, job)
            finally:
                attempt.kill()
                with self._starting:
                    attempt.process.join()
                    self._attempts.remove(attempt)
            if outcome is None:
                output.seek(0)
                details = output.read().decode(errors="replace")
                outcome = Outcome("lost", _describe_exit(attempt.process.exitcode), details)
            return outcome

    def _start(self, job: Job, slot: Slot, output: int) -> _Attempt:
        messages, sender = self._context.Pipe(duplex=False)
        # A Connection passes an open file of any kind on to the new process.
        arguments = (job, slot, sender, Connection(os.dup(output)))
        process = self._context.Process(target=_work, args=arguments, name=job.run_id)
        # Starting and joining look at all child processes, so only one thread at a time may.
        with self._starting, without_main_module():
            process.start()
            sender.close()
            attempt = _Attempt(process, messages)
            self._attempts.append(attempt)
        self._report(job.run_id, "starts")
        return attempt

    def _watch(self, attempt: _Attempt, job: Job) -> Outcome | None:
        """Return how the run ended; None if its process ended without a message."""
        message: str | Outcome | None = ""
        while isinstance(message, str):
            if attempt.messages.poll(_POLL_SECONDS):
                message = _receive(attempt.messages)
                if isinstance(message, str):
                    self._report(job.run_id, message)
            self._enforce_limits(attempt)
            if attempt.ignores_stop or self._killing.is_set():
                return attempt.stop_outcome or Outcome("interrupted")
        if message in (None, Outcome("interrupted")) and attempt.stop_outcome is not None:
            return attempt.stop_outcome
        return message

    def _enforce_limits(self, attempt: _Attempt) -> None:
        seconds, most = self._resources.time_limit, self._resources.memory_limit
        if self._stopping.is_set():
            attempt.stop(Outcome("interrupted"))
        elif seconds is not None and attempt.seconds > seconds:
            reason = f"did not end within {several(seconds, 'second')}, the limit for a run"
            attempt.stop(Outcome("failed", reason))
        elif most is not None and (used := memory_of(attempt.process.pid or 0)) > most:
            reason = f"used {size(used)} of memory; the limit for a run is {size(most)}"
            attempt.stop(Outcome("failed", reason))
        elif available_memory() == 0 and attempt is self._attempts[-1] is not self._attempts[0]:
            attempt.stop(_MAKES_ROOM)

    def _count_gpus(self) -> int:
        """Ask torch in another process, because a process that has used a GPU must not fork."""
        messages, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_send_gpu_count, args=(sender,))
        with without_main_module():
            process.start()
        sender.close()
        try:
            count: int = messages.recv()
        except EOFError:
            raise RequestError(
                "the search for GPUs crashed; --device cpu runs without one"
            ) from None
        process.join()
        return count


_MAKES_ROOM = Outcome("interrupted", "the machine was running out of memory")


def _bytes_needed(job: Job) -> int:
    return BYTES_PER_RUN if job.bytes_expected is None else job.bytes_expected


def _receive(messages: Connection) -> str | Outcome | None:
    try:
        message: str | Outcome = messages.recv()
    except (EOFError, OSError):
        return None
    return message


def _describe_exit(code: int | None) -> str:
    """Describe how a process ended that has sent no outcome."""
    if code is None or code >= 0:
        return f"its process exited with code {code} without a message"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # real-time signals have no names
        name = f"signal {-code}"
    return f"its process was ended by {name} ({signal.strsignal(-code)})"


def _send_gpu_count(sender: Connection) -> None:
    import torch

    sender.send(torch.cuda.device_count())


def _work(job: Job, slot: Slot, sender: Connection, output: Connection) -> None:
    """Run a job: the whole life of a worker process."""
    os.setsid()  # Ctrl-C at the terminal reaches the matrix only, which then decides
    os.environ.update(slot.environment)
    with output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    faulthandler.enable()

    import torch

    torch.set_num_threads(slot.threads)
    stop = Stop()
    with unbreakable(), stop.listening(), _stopping_when_orphaned(stop):
        outcome = run_job(
            job, slot.device, slot.runs_on_device, lambda line: _send(sender, line), stop
        )
        _send(sender, outcome)


def _send(sender: Connection, message: Any) -> None:
    with contextlib.suppress(OSError):
        sender.send(message)


@contextlib.contextmanager
def _stopping_when_orphaned(stop: Stop) -> Iterator[None]:
    """Save the run and stop when the parent process has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        stop.requested = True

    threading.Thread(target=watch, daemon=True).start()
    yield
