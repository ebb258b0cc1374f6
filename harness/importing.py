"""Which folders Python imports from: a user's ``tasks.py`` does not stand in for this project's."""

from __future__ import annotations

import os
import sys

OWN = ("benchmarks", "harness", "pruners", "reports", "tasks")
"""This project's packages."""


def own_packages_first() -> None:
    """Let this process, and those that it starts, find this project's packages before others.

    ``python -m`` looks for modules in the current folder first. It is left out, as ``python -P``
    does, unless the project itself is in it: a checkout, say. Of the other folders, those of
    ``PYTHONPATH`` that have a module of the same name come after the project's.
    """
    project = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # it was removed
        here = ""
    if here != project:
        if sys.path and os.path.realpath(sys.path[0]) == here:
            del sys.path[0]
        sys.path[:] = [folder for folder in sys.path if folder]
        # Python's fork server and its like start with the current folder again.
        os.environ["PYTHONSAFEPATH"] = "1"
    for place, folder in enumerate(sys.path):
        if os.path.realpath(folder) == project:
            return
        if any(_has_module(folder, name) for name in OWN):
            sys.path.insert(place, project)
            return


def _has_module(folder: str, name: str) -> bool:
    return any(os.path.exists(os.path.join(folder, file)) for file in (name, f"{name}.py"))
