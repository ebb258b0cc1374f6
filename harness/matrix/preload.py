"""Imported once by the fork server: what runs import, so that each need not wait for it.

Nothing is run here, and no GPU is touched: a process that is forked afterwards is like new.
"""

import contextlib

import harness.engine  # noqa: F401  # imported for those that are forked
from harness.errors import RequestError
from harness.registry import Registry

registry = Registry()
for kind in ("task", "pruner"):
    for entry in registry.of_kind(kind).values():
        # What cannot be imported is told by the run that needs it.
        with contextlib.suppress(RequestError):
            entry.load()
