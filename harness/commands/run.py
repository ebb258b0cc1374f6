"""``run``: one run, from the request to its record."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from harness.durability.stop import Stop
from harness.errors import RequestError, RunFailed, nearest
from harness.registry import Registry
from harness.results.store import Record, Store
from harness.results.summary import summarise
from harness.spec import Plan, plan


def execute(arguments: argparse.Namespace) -> int:
    """Carry out the run, or show it if it was done before."""
    registry = Registry(arguments.plugin)
    wanted = requested(arguments, registry)
    store = Store(arguments.results)
    record = store.record(wanted.run_id)
    if record is None:
        try:
            record = _carry_out(arguments, registry, wanted, store)
        except RunFailed:
            failure = store.failure(wanted.run_id)
            if arguments.json and failure is not None:
                print(json.dumps(failure))
            raise
    else:
        print(f"{wanted.run_id} was done before", file=sys.stderr)
    print(summarise(record))
    if arguments.json:
        print(json.dumps(record))
    return 0


def _carry_out(
    arguments: argparse.Namespace, registry: Registry, wanted: Plan, store: Store
) -> Record:
    stop = Stop()
    with stop.listening():
        # Importing torch takes seconds: only now, when the request is known to be good.
        from harness.device import find_device
        from harness.engine import carry_out

        device = find_device(arguments.device)
        for entry in (wanted.task, wanted.pruner):
            entry.load()
        return carry_out(
            wanted,
            registry,
            store,
            device,
            lambda line: print(line, file=sys.stderr, flush=True),
            stop,
            arguments.checkpoint_every,
        )


def requested(arguments: argparse.Namespace, registry: Registry) -> Plan:
    """Return the plan that the arguments ask for."""
    task, pruner = _pairing(arguments, registry)
    return plan(
        registry,
        task,
        pruner,
        sparsity=arguments.sparsity,
        seed=arguments.seed,
        profile=arguments.profile,
        overrides=overrides(arguments.set),
        plugins=[plugin.name for plugin in arguments.plugin],
        data_folder=arguments.data,
        results=arguments.results,
    )


def overrides(items: Sequence[str]) -> dict[str, str]:
    """Return what ``--set`` changes, by name.

    Raises:
        RequestError: an item is not of the form KEY=VALUE.
    """
    changes: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise RequestError(f"--set {item}: is not of the form KEY=VALUE, as in epochs=20")
        changes[name] = value
    return changes


def _pairing(arguments: argparse.Namespace, registry: Registry) -> tuple[str, str]:
    task, pruner = arguments.task, arguments.pruner
    if arguments.pairing is not None:
        if task or pruner:
            raise RequestError("--pairing stands in place of --task and --pruner")
        task, pruner = split_pairing(arguments.pairing)
    if not task:
        raise RequestError(f"--task is missing{nearest('', registry.of_kind('task'))}")
    if not pruner:
        raise RequestError(f"--pruner is missing{nearest('', registry.of_kind('pruner'))}")
    return task, pruner


def split_pairing(text: str) -> tuple[str, str]:
    """Return the task and the pruner that ``--pairing`` names.

    Raises:
        RequestError: it is not of the form TASK-PRUNER.
    """
    task, dash, pruner = text.partition("-")
    if not dash:
        raise RequestError(
            f"--pairing {text}: is not of the form TASK-PRUNER, as in ptb-earlycrop_u"
        )
    return task, pruner
