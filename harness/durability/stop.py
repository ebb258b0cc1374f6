"""Being asked to stop, by SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Stop:
    """Whether the process was asked to stop.

    A run calls it after each step and verb, where it can save itself; whoever only waits for
    something looks at ``requested``.
    """

    requested: bool = False

    def __call__(self) -> bool:
        """Return whether it was."""
        return self.requested

    def listening(self) -> AbstractContextManager[None]:
        """Take signals until the end of the context; a second one interrupts at once."""

        def receive(number: int) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True

        return _signals_to(receive)


@dataclass
class Urgency:
    """How urgently a process was asked to stop that carries out many runs.

    0: not at all. 1, Ctrl-C: finish what is at work. 2, Ctrl-C again or SIGTERM: save it and
    stop. 3, once more: end it.
    """

    level: int = 0

    def listening(self) -> AbstractContextManager[None]:
        """Take signals until the end of the context."""

        def receive(number: int) -> None:
            self.level = max(self.level + 1, 2 if number == signal.SIGTERM else 1)

        return _signals_to(receive)


@contextmanager
def _signals_to(receive: Callable[[int], None]) -> Iterator[None]:
    """Hand signals on, by their numbers, until the end of the context."""
    before = {
        number: signal.signal(number, lambda number, frame: receive(number)) for number in SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
