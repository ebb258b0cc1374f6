"""Imported once by the fork server: what runs import, so that each need not wait for it.

Nothing is run here, and no GPU is touched: a process that is forked afterwards is like new.
"""

import contextlib

from harness.importing import own_packages_first

own_packages_first()

import harness.engine.run_plan  # noqa: E402, F401  # imported for those that are forked
from harness.errors import RequestError  # noqa: E402
from harness.registry import Registry  # noqa: E402

registry = Registry()
for kind in ("task", "pruner"):
    for entry in registry.of_kind(kind).values():
        # What cannot be imported is told by the run that needs it.
        with contextlib.suppress(RequestError):
            entry.load()
