"""Lines that say how far something has come: rewritten on a terminal, few of them in a log."""

from __future__ import annotations

import time
from typing import TextIO

SECONDS_BETWEEN_LOG_LINES = 10.0


class Progress:
    """One line about something that takes long.

    Args:
        stream: where it is written, standard error as a rule.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._on_terminal = stream.isatty()
        self._last = time.monotonic()

    def update(self, line: str) -> None:
        """Say how far it has come: in the same line again, or, in a log, now and then."""
        now = time.monotonic()
        if self._on_terminal:
            print(f"\r\x1b[K{line}", end="", file=self._stream, flush=True)
        elif now - self._last >= SECONDS_BETWEEN_LOG_LINES:
            print(line, file=self._stream, flush=True)
            self._last = now

    def clear(self) -> None:
        """Take the line back from a terminal: it is over."""
        if self._on_terminal:
            print("\r\x1b[K", end="", file=self._stream, flush=True)
