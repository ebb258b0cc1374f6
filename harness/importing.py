"""The import path: a user's ``tasks.py`` must not replace this project's package ``tasks``."""

from __future__ import annotations

import os
import sys

OWN = ("benchmarks", "harness", "pruners", "reports", "tasks")
"""This project's packages."""


def own_packages_first() -> None:
    """Let this process and its child processes import this project's packages before others.

    ``python -m`` looks for modules in the current folder first. This function removes that folder
    from the path, like ``python -P``, unless it contains the project, as a checkout does. Folders
    of ``PYTHONPATH`` with a module of the same name come after the project.
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
        # Processes like Python's fork server would start with the current folder again.
        os.environ["PYTHONSAFEPATH"] = "1"
    for place, folder in enumerate(sys.path):
        if os.path.realpath(folder) == project:
            return
        if any(_has_module(folder, name) for name in OWN):
            sys.path.insert(place, project)
            return


def _has_module(folder: str, name: str) -> bool:
    return any(os.path.exists(os.path.join(folder, file)) for file in (name, f"{name}.py"))
