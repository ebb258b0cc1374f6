"""``run``: one run, from the request to its record."""

from __future__ import annotations

import argparse
import json
import sys

from harness.errors import RequestError, nearest
from harness.registry import Registry
from harness.spec import Plan, plan
from harness.store import Store
from harness.summary import summarise


def execute(arguments: argparse.Namespace) -> int:
    """Carry out the run, or show it if it was done before."""
    registry = Registry(arguments.plugin)
    wanted = requested(arguments, registry)
    store = Store(arguments.results)
    record = store.record(wanted.run_id)
    if record is None:
        # Importing torch takes seconds: only now, when the request is known to be good.
        from harness.device import find_device
        from harness.engine import Stop, carry_out

        device = find_device(arguments.device)
        stop = Stop()
        with stop.listening():
            record = carry_out(
                wanted,
                registry,
                store,
                device,
                lambda line: print(line, file=sys.stderr, flush=True),
                stop,
                arguments.checkpoint_every,
            )
    else:
        print("was done before", file=sys.stderr)
    print(summarise(record))
    if arguments.json:
        print(json.dumps(record))
    return 0


def requested(arguments: argparse.Namespace, registry: Registry) -> Plan:
    """Return the plan that the arguments ask for."""
    task, pruner = _pairing(arguments, registry)
    overrides: dict[str, str] = {}
    for item in arguments.set:
        name, equals, value = item.partition("=")
        if not equals:
            raise RequestError(f"--set {item}: is not of the form KEY=VALUE")
        overrides[name] = value
    return plan(
        registry,
        task,
        pruner,
        sparsity=arguments.sparsity,
        seed=arguments.seed,
        profile=arguments.profile,
        overrides=overrides,
        plugins=[plugin.name for plugin in arguments.plugin],
        data_folder=arguments.data,
    )


def _pairing(arguments: argparse.Namespace, registry: Registry) -> tuple[str, str]:
    task, pruner = arguments.task, arguments.pruner
    if arguments.pairing is not None:
        if task or pruner:
            raise RequestError("--pairing stands in place of --task and --pruner")
        task, _, pruner = arguments.pairing.partition("-")
    for kind, name in (("task", task), ("pruner", pruner)):
        if not name:
            known = registry.of_kind("task" if kind == "task" else "pruner")
            raise RequestError(f"--{kind} is missing{nearest('', known)}")
    return task, pruner
