"""Standard output and error that survive a closed pipe, a full disk and an ASCII terminal."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO, cast

Report = Callable[[str], None]
"""Receives lines of progress."""


class Output(io.TextIOBase):
    """A text stream that does not raise when its file cannot be written.

    Characters that cannot be encoded are escaped. Text that cannot be written is lost; `failure`
    then holds the error.

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
        """Write a text, as far as possible, and return its length."""
        with self._noting_failure():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                known = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
                self._stream.write(known)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with self._noting_failure():
            self._stream.flush()

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream's file."""
        return self._stream.fileno()

    @property
    def reader_left(self) -> bool:
        """Whether the text went into a pipe that its reader, such as ``head``, has closed."""
        return self.failure is not None and self.failure.errno == errno.EPIPE

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error
            # Python flushes the rest of the buffer at exit, which must not fail again.
            with contextlib.suppress(OSError, ValueError):
                _redirect_to_null(self._stream.fileno())


@contextlib.contextmanager
def unbreakable() -> Iterator[tuple[Output, Output]]:
    """Replace standard output and error by `Output` streams until the context ends."""
    before = sys.stdout, sys.stderr
    for descriptor in range(3):
        _open_if_closed(descriptor)
    out, err = (Output(_null_stream() if stream is None else stream) for stream in before)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out, err
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _open_if_closed(descriptor: int) -> None:
    """Open a closed descriptor, so that no other file gets its number and is written to."""
    try:
        os.fstat(descriptor)
    except OSError:
        _redirect_to_null(descriptor)


def _redirect_to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)


def _null_stream() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # stays open for the rest of the process


SECONDS_BETWEEN_LOG_LINES = 10.0


class Progress:
    """A line of progress about a long operation.

    Args:
        stream: where to write, usually standard error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._on_terminal = stream.isatty()
        self._last = time.monotonic()

    def update(self, line: str) -> None:
        """Show a line: in place of the last one on a terminal, or now and then in a log."""
        now = time.monotonic()
        if self._on_terminal:
            print(f"\r\x1b[K{line}", end="", file=self._stream, flush=True)
        elif now - self._last >= SECONDS_BETWEEN_LOG_LINES:
            print(line, file=self._stream, flush=True)
            self._last = now

    def clear(self) -> None:
        """Remove the line from a terminal."""
        if self._on_terminal:
            print("\r\x1b[K", end="", file=self._stream, flush=True)
