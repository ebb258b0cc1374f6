"""``run``: one run, from the request to its record."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import Any

from harness.api import plan_pairing, run_pairing
from harness.commands import options
from harness.errors import RequestError, RunFailed
from harness.matrix.state import preview
from harness.registry import Registry
from harness.results.summary import summarise
from harness.spec import Plan
from harness.storage.store import Store

EXAMPLES = """\
examples:
  python -m harness run --task ptb --pruner earlycrop_u
  python -m harness run --task digits --pruner snip --sparsity 0.995 --seed 1 --set epochs=20
  python -m harness run --task digits --pruner crop_s --budget macs=0.25
  python -m harness run --task digits --pruner mine --plugin mine.py

A run that is done is not repeated, except with --again. The same command resumes a run that was
interrupted.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} --task NAME --pruner NAME [option ...]"
    parser.epilog = EXAMPLES
    what = parser.add_argument_group("what to run")
    what.add_argument("--task", metavar="NAME", help="see: python -m harness list tasks")
    what.add_argument("--pruner", metavar="NAME", help="see: python -m harness list pruners")
    what.add_argument(
        "--pairing", metavar="TASK-PRUNER", help="both in one word, as in ptb-earlycrop_u"
    )
    what.add_argument(
        "--sparsity",
        type=options.number,
        metavar="S",
        help="fraction of the prunable weights to remove (default: 0.98 unless the task sets "
        "another)",
    )
    what.add_argument(
        "--budget",
        action="append",
        metavar="KIND=AMOUNT",
        help="what the network may cost, in place of a sparsity: macs, params, bytes or latency; a "
        "fraction of the dense network's, as in macs=0.25, or an amount, as in bytes=2MB",
    )
    what.add_argument(
        "--seed",
        type=options.whole_number,
        default=0,
        metavar="N",
        help="0, 1, 2 ... (default: 0)",
    )
    options.add_profile(what, default="embedded")
    options.add_set(what)
    options.add_plugin(what)
    where = parser.add_argument_group("where and how")
    options.add_where(where)
    options.add_track(where)
    options.add_again(where, "the run")
    options.add_json(where, "also print the record, as the last line")


def execute(arguments: argparse.Namespace) -> int:
    """Carry out the run, or show it if it is already done."""
    _say_what_is_ignored(arguments)
    if arguments.dry_run:
        return _preview(arguments)
    try:
        record = run_pairing(
            **_request(arguments),
            device=arguments.device,
            again=arguments.again,
            checkpoint_every=arguments.checkpoint_every,
            track=arguments.track,
            progress=sys.stderr,
        )
    except RunFailed:
        if arguments.json:
            _print_failure(arguments)
        raise
    print(summarise(record))
    if arguments.json:
        print(json.dumps(record))
    return 0


def requested(arguments: argparse.Namespace, registry: Registry | None = None) -> Plan:
    """Return the plan of the run that the arguments describe.

    Args:
        arguments: of the command.
        registry: finds tasks and pruners; None for a new one.

    Raises:
        RequestError: a name or a value is unknown or not permitted.
    """
    return plan_pairing(**_request(arguments), device=arguments.device, registry=registry)[1]


def _request(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return which run is wanted, as `plan_pairing` takes it."""
    task, pruner = _pairing(arguments)
    return {
        "task": task,
        "pruner": pruner,
        "sparsity": arguments.sparsity,
        "budget": _budget(arguments.budget),
        "seed": arguments.seed,
        "profile": arguments.profile,
        "settings": options.parse_settings(arguments.set),
        "results": arguments.results,
        "data": arguments.data,
        "plugins": arguments.plugin,
    }


def _budget(given: list[str] | None) -> str | None:
    if given is not None and len(given) > 1:
        raise RequestError(f"--budget {' and '.join(given)}: a run has one budget")
    return given[0] if given else None


def _pairing(arguments: argparse.Namespace) -> tuple[str, str]:
    task, pruner = arguments.task, arguments.pruner
    if arguments.pairing is not None:
        if task or pruner:
            raise RequestError("--pairing replaces --task and --pruner")
        task, pruner = options.split_pairing(arguments.pairing)
    if not task:
        raise RequestError("--task is missing (see: python -m harness list tasks)")
    if not pruner:
        raise RequestError("--pruner is missing (see: python -m harness list pruners)")
    return task, pruner


def _say_what_is_ignored(arguments: argparse.Namespace) -> None:
    """Say so if a sparsity is given to a method that takes none."""
    if arguments.sparsity:
        pruner = Registry(arguments.plugin).find("pruner", _pairing(arguments)[1])
        if not pruner.arguments.get("prunes", True):
            print(f"{pruner.name} takes no sparsity: --sparsity is ignored", file=sys.stderr)


def _preview(arguments: argparse.Namespace) -> int:
    """Show what would be run."""
    plan = requested(arguments)
    store = Store(arguments.results)
    state, why = preview([plan.run_id], store, arguments.again)[plan.run_id]
    print(f"{state:<8}  {plan.run_id}{f'  ({why})' if why else ''}")
    if arguments.json:
        print(json.dumps({"runs": {plan.run_id: state}}))
    return 0


def _print_failure(arguments: argparse.Namespace) -> None:
    """Print the record of a failed run, if it could leave one."""
    with contextlib.suppress(RequestError):
        plan = requested(arguments)
        if (failure := Store(arguments.results).failure(plan.run_id)) is not None:
            print(json.dumps(failure))
