"""Give every pairing of a task and a pruner a tox environment of its name.

tox loads this file by itself. It runs in tox's own environment, where the project is not
installed, so it reads the names from the decorators in the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tox.plugin import impl

PROJECT = Path(__file__).resolve().parent


@impl
def tox_extend_envs() -> Iterable[str]:
    """Return ``TASK-PRUNER`` for every pairing; `[testenv]` in tox.ini says what it runs."""
    tasks, pruners = registered("task", "tasks"), registered("pruner", "pruners")
    return [f"{task}-{pruner}" for task in tasks for pruner in pruners]


def registered(decorator: str, folder: str) -> list[str]:
    """Return the names that a decorator registers in the files of a folder."""
    decorated = re.compile(rf'^@{decorator}\(\s*"(\w+)"', re.MULTILINE)
    files = sorted((PROJECT / folder).rglob("*.py"))
    return [name for file in files for name in decorated.findall(file.read_text(encoding="utf-8"))]
