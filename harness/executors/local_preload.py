"""Imported once by the fork server of `harness.executors.local`, so that no run waits for imports.

A module of its own, because the server imports it by name and the matrix itself never imports
torch. Nothing is run and no GPU is touched: each forked process starts fresh.
"""

import contextlib

from harness.importing import own_packages_first

own_packages_first()

import harness.engine.run_plan  # noqa: E402, F401  # imported for the forked processes
from harness.errors import RequestError  # noqa: E402
from harness.registry import Registry  # noqa: E402

registry = Registry()
for kind in ("task", "pruner"):
    for entry in registry.of_kind(kind).values():
        # An import that fails is reported by the run that needs it.
        with contextlib.suppress(RequestError):
            entry.load()
