"""Being asked to stop: by Ctrl-C, by SIGTERM, or by SIGHUP when a terminal is closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """A signal ends the process at once, and nothing more is saved.

    A `KeyboardInterrupt` that is not one of these was raised by somebody's code.
    """


@dataclass
class Stop:
    """Whether the process was asked to stop.

    A run calls it after each step and verb, where it can save itself; code that only waits for
    something looks at ``requested``.
    """

    requested: bool = False

    def __call__(self) -> bool:
        """Return whether it was."""
        return self.requested

    def listening(self) -> AbstractContextManager[None]:
        """Take signals until the end of the context; a second one interrupts at once."""

        def receive(number: int) -> None:
            # The kernel and the shell both send SIGHUP when a terminal is closed.
            if self.requested and number != signal.SIGHUP:
                raise Ended
            self.requested = True

        return _signals_to(receive)


@dataclass
class Urgency:
    """How urgently a process was asked to stop that carries out many runs.

    0: not at all. 1, Ctrl-C: finish what is running. 2, Ctrl-C again, SIGTERM or SIGHUP: save it
    and stop. 3, once more: end it.
    """

    level: int = 0

    def listening(self) -> AbstractContextManager[None]:
        """Take signals until the end of the context."""

        def receive(number: int) -> None:
            if number == signal.SIGHUP:
                self.level = max(self.level, 2)
            else:
                self.level = max(self.level + 1, 2 if number == signal.SIGTERM else 1)

        return _signals_to(receive)


def ending_at_once() -> AbstractContextManager[None]:
    """Let every signal raise `Ended` until the end of the context."""

    def receive(number: int) -> None:
        raise Ended

    return _signals_to(receive)


def raised_by_code(error: KeyboardInterrupt) -> bool:
    """Return whether nobody pressed Ctrl-C, and some code raised this itself."""
    listens = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    return listens and not isinstance(error, Ended)


@contextmanager
def _signals_to(receive: Callable[[int], None]) -> Iterator[None]:
    """Hand signals on, by their numbers, until the end of the context.

    Python can do so in its main thread only; elsewhere nothing changes. A process that was told
    to ignore SIGHUP, as nohup does, goes on ignoring it.
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
            # None stands for a handler that was not set from Python, and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def deaf() -> Iterator[None]:
    """Let processes that are started in the context not hear these signals, ever.

    A terminal and many schedulers send them to a whole group of processes, of which only the one
    that carries out the run knows what to do. What reaches it here is heard afterwards.
    """
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
