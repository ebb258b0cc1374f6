"""What can go wrong, told apart by who can mend it."""

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
"""In a line that enumerates."""


class RequestError(Exception):
    """The request was wrong: one line that says what, why and the nearest right name (exit 2)."""


class Skip(RequestError):
    """There is nothing wrong, but this cannot be had: a method has no meaning for this network.

    Raised by methods, and by what they are made of, with a reason that ends the sentence
    "METHOD on TASK: ...". A run ends with exit code 2 and leaves nothing behind.
    """


class ImportFailed(RequestError):
    """A task or a pruner is known by its source, and importing it raises."""


class DamagedFile(RequestError):
    """A file of a results folder cannot be read, or does not hold what it should."""


class RunFailed(Exception):
    """The run could not be carried out, through no fault of the request (exit 1)."""


class Diverged(Exception):
    """The training loss is no longer a finite number: a result, not a failure."""


class Interrupted(Exception):
    """The process was asked to stop; everything is saved."""


@contextlib.contextmanager
def reading_data(task: str) -> Iterator[None]:
    """Say in one line which file of a task's data the system would not read.

    Raises:
        RequestError: in place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        what = error.strerror or " ".join(str(error).split())
        named = f"{error.filename}: " if error.filename else ""
        raise RequestError(f"the data of {task} cannot be read: {named}{what}") from error


def warn(line: str) -> None:
    """Say what is wrong on standard error, and go on."""
    print(f"warning: {line}", file=sys.stderr)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return what to append to a complaint about ``name``: the nearest known name, or all."""
    known = sorted(known)
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if matches:
        return f"; did you mean {matches[0]!r}?"
    return f"; known: {enumerated(known)}" if known else ""


def enumerated(names: Sequence[str]) -> str:
    """Return names with commas between them, of very many only the first."""
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
