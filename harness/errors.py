"""Exceptions, distinguished by who can fix the problem, and helpers for their messages."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import CodeType

MOST_NAMES = 40
"""Names in one line, at most."""


class RequestError(Exception):
    """The request was wrong: one line that says what, why and the nearest valid name (exit 2)."""


class Skip(RequestError):
    """A method does not apply to this network, although nothing is wrong.

    Methods and their building blocks raise it with a reason that completes the sentence
    "METHOD on TASK: ...". The run ends with exit code 2 and leaves nothing behind.
    """


class ImportFailed(RequestError):
    """The module of a known task or pruner does not import."""


class DamagedFile(RequestError):
    """A file in a results folder cannot be read, or its content is damaged."""


class RunFailed(Exception):
    """The run failed, although the request was right (exit 1)."""


class Diverged(Exception):
    """The training loss is no longer a finite number: a result, not a failure."""


class Interrupted(Exception):
    """The process was asked to stop, and has saved everything."""


@contextlib.contextmanager
def reading_data(task: str) -> Iterator[None]:
    """Turn an `OSError` into a `RequestError` that names the file of a task's data.

    Raises:
        RequestError: a file cannot be read.
    """
    try:
        yield
    except OSError as error:
        what = error.strerror or " ".join(str(error).split())
        named = f"{error.filename}: " if error.filename else ""
        raise RequestError(f"the data of {task} cannot be read: {named}{what}") from error


def warn(line: str) -> None:
    """Print a warning on standard error."""
    print(f"warning: {line}", file=sys.stderr)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint to append to a message: the known name nearest to `name`, or all of them."""
    known = sorted(known)
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if matches:
        return f"; did you mean {matches[0]!r}?"
    return f"; known: {enumerated(known)}" if known else ""


def enumerated(names: Sequence[str]) -> str:
    """Return names separated by commas; of more than `MOST_NAMES` only the first."""
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def place(function: object) -> str:
    """Return the name, file and first line of a function, or of the class of a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    code = _code(function)
    name = getattr(function, "__qualname__", type(function).__qualname__).rpartition(".")[2]
    if code is None:
        return name
    return f"{name} ({Path(code.co_filename).name}, line {code.co_firstlineno})"


def file_of(function: object) -> str:
    """Return the path of the file that defines a function; empty if there is none."""
    code = _code(function)
    return "" if code is None else code.co_filename


def _code(function: object) -> CodeType | None:
    for candidate in (function, inspect.getattr_static(type(function), "__call__", None)):
        unwrapped = inspect.unwrap(candidate) if callable(candidate) else candidate
        code = getattr(unwrapped, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
