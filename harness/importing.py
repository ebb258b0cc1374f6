"""What processes import: this project before a user's ``tasks.py``, and no user's script twice."""

from __future__ import annotations

import contextlib
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

OWN = ("benchmarks", "harness", "pruners", "reports", "tasks")
"""This project's packages."""


def own_packages_first() -> None:
    """Make this process, and those that it starts, find this project's packages before others.

    ``python -m`` searches the current folder first. It is removed from the path, as ``python -P``
    does, unless it is the project itself, as in a checkout. Folders of ``PYTHONPATH`` that have a
    module of the same name are searched after the project.
    """
    project = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # the folder was removed
        here = ""
    if here != project:
        if sys.path and os.path.realpath(sys.path[0]) == here:
            del sys.path[0]
        sys.path[:] = [folder for folder in sys.path if folder]
        # Python's fork server, among others, would start with the current folder again.
        os.environ["PYTHONSAFEPATH"] = "1"
    for place, folder in enumerate(sys.path):
        if os.path.realpath(folder) == project:
            return
        if any(_has_module(folder, name) for name in OWN):
            sys.path.insert(place, project)
            return


@contextlib.contextmanager
def without_main_module() -> Iterator[None]:
    """Keep processes that are started within the context from importing the user's script.

    multiprocessing imports it again in each process, which would start the runs again from a
    script without ``if __name__ == "__main__"``. No run needs anything from it.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def load_entry_point(group: str, kind: str, name: str) -> Any:
    """Return what packages register under a name, such as the class of an executor.

    Args:
        group: where it is registered, as in ``pruning_benchmark.executors``.
        kind: what it is, in one word.
        name: its name, and that of the extra which installs what it needs.

    Raises:
        RequestError: there is none, or a package that it needs is not installed.
    """
    # The command line imports this module before it has a safe search path.
    from importlib.metadata import entry_points

    from harness.errors import RequestError, nearest

    points = {point.name: point for point in entry_points(group=group)}
    if name not in points:
        raise RequestError(f"unknown {kind} {name!r}{nearest(name, points)}")
    try:
        return points[name].load()
    except ImportError as error:
        raise RequestError(
            f"{kind} {name!r}: {error.name} is not installed; "
            f"pip install 'pruning-benchmark[{name}]' installs it"
        ) from None


def _has_module(folder: str, name: str) -> bool:
    return any(os.path.exists(os.path.join(folder, file)) for file in (name, f"{name}.py"))
