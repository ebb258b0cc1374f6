"""Requests to stop: Ctrl-C, SIGTERM, and the SIGHUP of a terminal that is closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """A signal ended the process at once, without saving anything.

    A `KeyboardInterrupt` of another type was raised by some code, not by a signal.
    """


@dataclass
class Stop:
    """Whether this process was asked to stop its run.

    A run calls it after each step and verb, the points at which it can save itself. Code that
    only waits reads `requested`.
    """

    requested: bool = False

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return self.requested

    def listening(self) -> AbstractContextManager[None]:
        """Handle signals until the context ends; a second signal interrupts at once."""

        def receive(number: int) -> None:
            # The kernel and the shell each send SIGHUP when a terminal is closed.
            if self.requested and number != signal.SIGHUP:
                raise Ended
            self.requested = True

        return _handling_signals(receive)


@dataclass
class StopRequest:
    """How urgently a process that runs a matrix was asked to stop.

    Attributes:
        level: 0, not at all; 1, finish the current runs (Ctrl-C); 2, save them and stop (Ctrl-C
            again, SIGTERM or SIGHUP); 3, end them now (one more signal).
    """

    level: int = 0

    def listening(self) -> AbstractContextManager[None]:
        """Handle signals until the context ends."""

        def receive(number: int) -> None:
            if number == signal.SIGHUP:
                self.level = max(self.level, 2)
            else:
                self.level = max(self.level + 1, 2 if number == signal.SIGTERM else 1)

        return _handling_signals(receive)


def ending_at_once() -> AbstractContextManager[None]:
    """Make every signal raise `Ended` until the context ends."""

    def receive(number: int) -> None:
        raise Ended

    return _handling_signals(receive)


def raised_by_code(error: KeyboardInterrupt) -> bool:
    """Return whether some code raised this error, rather than Ctrl-C."""
    handles_signals = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    return handles_signals and not isinstance(error, Ended)


@contextmanager
def _handling_signals(receive: Callable[[int], None]) -> Iterator[None]:
    """Pass signals, by number, to a function until the context ends.

    Python allows this in the main thread only; in any other thread nothing changes. A process
    that ignores SIGHUP, as nohup arranges, keeps ignoring it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda number, frame: receive(number))
        for number in SIGNALS
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            # None stands for a handler that was not installed from Python and cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def block_signals() -> Iterator[None]:
    """Block these signals for good in child processes that are started within the context.

    A terminal and many schedulers signal a whole process group, but only the process that
    carries out the run knows how to react. This process receives its own signals afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
