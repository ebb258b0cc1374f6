"""``check``: the contract tests over one task or pruner, plug-ins too."""

from __future__ import annotations

import argparse

from harness.errors import RequestError, nearest
from harness.registry import Registry


def execute(arguments: argparse.Namespace) -> int:
    """Run the contract tests, a line for each, and return 1 if any fails."""
    kinds = ("task", "pruner")
    if arguments.kind not in kinds:
        raise RequestError(f"cannot check {arguments.kind!r}{nearest(arguments.kind, kinds)}")
    registry = Registry(arguments.plugin)
    entry = registry.find("task" if arguments.kind == "task" else "pruner", arguments.name)

    from harness.contracts import PRUNER_CONTRACT, TASK_CONTRACT, Broken, Subject

    subject = Subject(registry, entry, arguments.data)
    broken = 0
    for rule in TASK_CONTRACT if entry.kind == "task" else PRUNER_CONTRACT:
        promise = (rule.__doc__ or "").partition("\n")[0].rstrip(".")
        try:
            rule(subject)
        except Broken as error:
            broken += 1
            print(f"BROKEN  {promise}: {error}", flush=True)
        else:
            print(f"ok      {promise}", flush=True)
    verdict = f"{broken} rules are broken" if broken else "every rule is kept"
    print(f"{entry.kind} {entry.name}: {verdict}")
    return 1 if broken else 0
