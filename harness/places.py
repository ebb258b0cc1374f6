"""Where a function of a plug-in stands, for complaints about it."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from types import CodeType


def place(function: object) -> str:
    """Return a function's name, its file and its first line; of an object, those of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    code = _code(function)
    name = getattr(function, "__qualname__", type(function).__qualname__).rpartition(".")[2]
    if code is None:
        return name
    return f"{name} ({Path(code.co_filename).name}, line {code.co_firstlineno})"


def file_of(function: object) -> str:
    """Return the path of the file in which a function stands, nothing where there is none."""
    code = _code(function)
    return "" if code is None else code.co_filename


def _code(function: object) -> CodeType | None:
    for candidate in (function, inspect.getattr_static(type(function), "__call__", None)):
        unwrapped = inspect.unwrap(candidate) if callable(candidate) else candidate
        code = getattr(unwrapped, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
