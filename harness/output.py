"""Standard output and standard error that nothing can break: a closed pipe, a full disk, ASCII."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import time
from collections.abc import Iterator
from typing import TextIO, cast


class Output(io.TextIOBase):
    """A text stream that goes on when its file does not take any more.

    What cannot be encoded is replaced. What cannot be written is lost, and `failure` tells why.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]  # there it is an attribute
        """The encoding of the stream."""
        return self._stream.encoding or "utf-8"

    def write(self, text: str) -> int:
        """Write a text, as far as that is possible."""
        with self._noting_failure():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                known = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
                self._stream.write(known)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._noting_failure():
            self._stream.flush()

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream's file."""
        return self._stream.fileno()

    @property
    def reader_left(self) -> bool:
        """Whether the text went into a pipe whose reader, ``head`` say, has seen enough."""
        return self.failure is not None and self.failure.errno == errno.EPIPE

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error
            # What the stream holds back has to go somewhere when Python ends.
            with contextlib.suppress(OSError, ValueError):
                _lead_nowhere(self._stream.fileno())


@contextlib.contextmanager
def unbreakable() -> Iterator[tuple[Output, Output]]:
    """Let ``print`` write to such streams, standard output and error, until the context ends."""
    before = sys.stdout, sys.stderr
    for descriptor in range(3):
        _open_if_closed(descriptor)
    out, err = (Output(_nowhere() if stream is None else stream) for stream in before)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out, err
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _open_if_closed(descriptor: int) -> None:
    """Give a descriptor a file, so that no other file gets it and is written into by mistake."""
    try:
        os.fstat(descriptor)
    except OSError:
        _lead_nowhere(descriptor)


def _lead_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # for the rest of the process


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
