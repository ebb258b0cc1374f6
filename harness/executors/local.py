"""This machine: one fresh process for each run, from a fork server that has run nothing."""

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
from harness.matrix import pressure
from harness.matrix.executor import Order, Outcome, Report, Resources
from harness.matrix.slots import BYTES_PER_RUN, Slot, divide, too_large, visible_gpus
from harness.matrix.worker import carry_out_order
from harness.output import unbreakable
from harness.signals import Stop
from harness.text import several, size

GRACE = 20.0
"""Seconds that a run has to save itself when it is asked to stop."""

_TICK = 0.2
"""Seconds between two looks at a run."""


@dataclass
class _Attempt:
    """A process that carries out a run, and why it was asked to stop, if it was."""

    process: BaseProcess
    answers: Connection
    since: float = field(default_factory=time.monotonic)
    asked_at: float | None = None
    because: Outcome | None = None

    @property
    def seconds(self) -> float:
        """How long it has been at work."""
        return time.monotonic() - self.since

    def ask_to_stop(self, because: Outcome) -> None:
        """Let the run save itself and end."""
        if self.asked_at is None:
            self.asked_at, self.because = time.monotonic(), because
            self._send(signal.SIGTERM)

    @property
    def is_stubborn(self) -> bool:
        """Whether it was asked to stop and does not."""
        return self.asked_at is not None and time.monotonic() - self.asked_at > GRACE

    def end(self) -> None:
        """End it and all that it has started."""
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
    """Carries out one run at a time in each slot of this machine.

    Args:
        resources: what may be used.
        report: takes what the runs say.
        folder: is not needed.
    """

    def __init__(self, resources: Resources, report: Report, folder: Path) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["harness.matrix.preload"])
        self._resources, self._report = resources, report
        gpus = [] if resources.device == "cpu" else visible_gpus(self._count_gpus())
        slots = divide(resources, gpus)
        self.slots = len(slots)
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._threads = ThreadPoolExecutor(self.slots, thread_name_prefix="slot")
        self._starting = threading.Lock()
        self._at_work: list[_Attempt] = []
        self._stopping = threading.Event()
        self._ending = threading.Event()

    def submit(self, order: Order) -> Future[Outcome]:
        """Let a run be carried out when a slot is free."""
        return self._threads.submit(self._carry_out, order)

    def shutdown(self, *, now: bool = False) -> None:
        """Begin nothing new; asked for the second time to stop now, end what is at work."""
        if now and self._stopping.is_set():
            self._ending.set()
        if now:
            self._stopping.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _carry_out(self, order: Order) -> Outcome:
        """Wait for memory, carry out the run, and do so again if it had to make room."""
        if refusal := too_large(self._needed(order)):
            return Outcome("failed", refusal)
        slot = self._free.get()
        try:
            while True:
                self._wait_for_memory(order)
                if self._stopping.is_set():
                    return Outcome("interrupted")
                outcome = self._attempt(order, slot)
                if outcome != _MAKES_ROOM:
                    return outcome
        finally:
            self._free.put(slot)

    def _needed(self, order: Order) -> int:
        return BYTES_PER_RUN if order.bytes_expected is None else order.bytes_expected

    def _wait_for_memory(self, order: Order) -> None:
        needed = self._needed(order)
        while pressure.available() < needed and self._at_work and not self._stopping.is_set():
            self._report(order.run_id, f"waits for {size(needed)} of memory")
            time.sleep(5 * _TICK)

    def _attempt(self, order: Order, slot: Slot) -> Outcome:
        """Carry out the run in a new process."""
        # It has no name, so that nothing is left of it, whatever happens to this process.
        with tempfile.TemporaryFile() as output:
            attempt = self._begin(order, slot, output.fileno())
            try:
                outcome = self._watch(attempt, order)
            finally:
                attempt.end()
                with self._starting:
                    attempt.process.join()
                    self._at_work.remove(attempt)
            if outcome is None:
                output.seek(0)
                details = output.read().decode(errors="replace")
                outcome = Outcome("lost", _ending(attempt.process.exitcode), details)
            return outcome

    def _begin(self, order: Order, slot: Slot, output: int) -> _Attempt:
        answers, answer = self._context.Pipe(duplex=False)
        # A connection hands an open file on to the process, whatever kind of file it is.
        arguments = (order, slot, answer, Connection(os.dup(output)))
        process = self._context.Process(target=_work, args=arguments, name=order.run_id)
        # Starting and joining look at all processes, so that only one thread at a time may.
        with self._starting:
            process.start()
            answer.close()
            attempt = _Attempt(process, answers)
            self._at_work.append(attempt)
        self._report(order.run_id, "starts")
        return attempt

    def _watch(self, attempt: _Attempt, order: Order) -> Outcome | None:
        """Return how the run ended; None if its process ended without a word."""
        said: str | Outcome | None = ""
        while isinstance(said, str):
            if attempt.answers.poll(_TICK):
                said = _heard(attempt.answers)
                if isinstance(said, str):
                    self._report(order.run_id, said)
            self._hold_to_limits(attempt)
            if attempt.is_stubborn or self._ending.is_set():
                return attempt.because or Outcome("interrupted")
        if said in (None, Outcome("interrupted")) and attempt.because is not None:
            return attempt.because
        return said

    def _hold_to_limits(self, attempt: _Attempt) -> None:
        seconds, most = self._resources.time_limit, self._resources.memory_limit
        if self._stopping.is_set():
            attempt.ask_to_stop(Outcome("interrupted"))
        elif seconds is not None and attempt.seconds > seconds:
            reason = f"did not end within {several(seconds, 'second')}, the limit for a run"
            attempt.ask_to_stop(Outcome("failed", reason))
        elif most is not None and (held := pressure.in_use(attempt.process.pid or 0)) > most:
            reason = f"held {size(held)} of memory, and the limit for a run is {size(most)}"
            attempt.ask_to_stop(Outcome("failed", reason))
        elif pressure.available() == 0 and attempt is self._at_work[-1] is not self._at_work[0]:
            attempt.ask_to_stop(_MAKES_ROOM)

    def _count_gpus(self) -> int:
        """Ask torch in another process, because a process that has used a GPU must not fork."""
        answers, answer = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_tell_gpus, args=(answer,))
        process.start()
        answer.close()
        try:
            count: int = answers.recv()
        except EOFError:
            raise RequestError("looking for GPUs ended without an answer; --device cpu") from None
        process.join()
        return count


_MAKES_ROOM = Outcome("interrupted", "the machine was running out of memory")


def _heard(answers: Connection) -> str | Outcome | None:
    try:
        said: str | Outcome = answers.recv()
    except (EOFError, OSError):
        return None
    return said


def _ending(code: int | None) -> str:
    """Say how a process ended that did not say so itself."""
    if code is None or code >= 0:
        return f"its process exited with code {code} without a message"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # one of the real-time signals, which have no names
        name = f"signal {-code}"
    return f"its process was ended by {name} ({signal.strsignal(-code)})"


def _tell_gpus(answer: Connection) -> None:
    import torch

    answer.send(torch.cuda.device_count())


def _work(order: Order, slot: Slot, answer: Connection, output: Connection) -> None:
    """Carry out a run: what the new process does."""
    os.setsid()  # a terminal's Ctrl-C is for the matrix, which then decides
    os.environ.update(slot.environment)
    with output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    faulthandler.enable()

    import torch

    torch.set_num_threads(slot.threads)
    stop = Stop()
    with unbreakable(), stop.listening(), _stopping_when_orphaned(stop):
        outcome = carry_out_order(
            order, slot.device, slot.runs_on_device, lambda line: _say(answer, line), stop
        )
        _say(answer, outcome)


def _say(answer: Connection, what: Any) -> None:
    with contextlib.suppress(OSError):
        answer.send(what)


@contextlib.contextmanager
def _stopping_when_orphaned(stop: Stop) -> Iterator[None]:
    """Save the run and end it when nobody waits for it any more."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        stop.requested = True

    threading.Thread(target=watch, daemon=True).start()
    yield
