"""The file and line of a plug-in's function, for error messages."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from types import CodeType


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
