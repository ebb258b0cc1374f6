"""``run``: one run, from the request to its record."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence

from harness.errors import RequestError, RunFailed, nearest
from harness.matrix.look import would_run
from harness.record import Record
from harness.registry import Registry
from harness.results.summary import summarise
from harness.signals import Stop
from harness.spec import Plan, plan
from harness.storage.store import Store, outcome


def execute(arguments: argparse.Namespace) -> int:
    """Carry out the run, or show it if it was done before."""
    registry = Registry(arguments.plugin)
    wanted = requested(arguments, registry)
    store = Store(arguments.results)
    if arguments.dry_run:
        return _tell(arguments, wanted, store)
    record = None if arguments.again else store.record(wanted.run_id)
    if record is not None:
        print(f"{wanted.run_id} was done before", file=sys.stderr)
    elif arguments.again and wanted.run_id in store.run_ids():
        record = _carry_out_again(arguments, registry, wanted, store)
    else:
        record = _carry_out(arguments, registry, wanted, store)
    print(summarise(record))
    if arguments.json:
        print(json.dumps(record))
    return 0


def _tell(arguments: argparse.Namespace, wanted: Plan, store: Store) -> int:
    """Say what would be run, and do nothing."""
    state, why = would_run([wanted.run_id], store, arguments.again)[wanted.run_id]
    print(f"{state:<8}  {wanted.run_id}{f'  ({why})' if why else ''}")
    if arguments.json:
        print(json.dumps({"runs": {wanted.run_id: state}}))
    return 0


def _carry_out_again(
    arguments: argparse.Namespace, registry: Registry, wanted: Plan, store: Store
) -> Record:
    """Carry out a run that is done; its new result takes the place of the old one at the end."""
    try:
        before = store.record(wanted.run_id)
    except RequestError as error:
        print(f"{error}; it is replaced", file=sys.stderr)
        before = None
    record = _carry_out(arguments, registry, wanted, store.again())
    store.replace(wanted.run_id)
    if before is not None:
        is_equal = outcome(before) == outcome(record)
        verdict = "equal to" if is_equal else "different from"
        print(f"the new result is {verdict} the old one, costs aside", file=sys.stderr)
    return record


def _carry_out(
    arguments: argparse.Namespace, registry: Registry, wanted: Plan, store: Store
) -> Record:
    stop = Stop()
    try:
        with stop.listening():
            # Importing torch takes seconds: only now, when the request is known to be good.
            from harness.device import find_device
            from harness.engine.run_plan import run_plan

            device = find_device(arguments.device)
            for entry in (wanted.task, wanted.pruner):
                entry.load()
            return run_plan(
                wanted,
                registry,
                store,
                device,
                lambda line: print(line, file=sys.stderr, flush=True),
                stop,
                arguments.checkpoint_every,
            )
    except RunFailed:
        if arguments.json:
            _print_failure(wanted, store)
        raise


def _print_failure(wanted: Plan, store: Store) -> None:
    """Print what a failed run has left for a record, if it could leave anything."""
    with contextlib.suppress(RequestError):
        if (failure := store.failure(wanted.run_id)) is not None:
            print(json.dumps(failure))


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
            raise RequestError("--pairing replaces --task and --pruner")
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
