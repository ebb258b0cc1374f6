"""``check``: the contract tests over one task or pruner, plug-ins included."""

from __future__ import annotations

import argparse
from functools import partial

from harness.commands import options
from harness.errors import RequestError, nearest
from harness.registry import Entry, Registry
from harness.spec import Plan, plan
from harness.text import several

DEFAULT_TASK = "digits"
"""The task that a pruner is tried on."""

SPARSITY = 0.9


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("kind", metavar="task|pruner", help="what to check")
    parser.add_argument("name", metavar="NAME", help="its name; see: python -m harness list")
    parser.add_argument(
        "--task",
        metavar="NAME",
        help=f"the task that a pruner is tried on (default: {DEFAULT_TASK})",
    )
    options.add_profile(parser, default="smoke")
    options.add_set(parser)
    options.add_data(parser)
    options.add_plugin(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Try the rules of the contract, print a line for each, and return 1 if any is broken.

    An error that several rules meet, such as one of a class that cannot be built, is printed once.
    """
    kinds = ("task", "pruner")
    if arguments.kind not in kinds:
        raise RequestError(f"cannot check {arguments.kind!r}{nearest(arguments.kind, kinds)}")
    registry = Registry(arguments.plugin)
    entry = registry.find("task" if arguments.kind == "task" else "pruner", arguments.name)
    if entry.kind == "task" and arguments.task is not None:
        raise RequestError("--task is for check pruner only: the task that a pruner is tried on")
    planned = partial(_plan, arguments, registry, entry)
    planned()  # a wrong request is refused before torch is imported

    from harness.contracts import PRUNER_CONTRACT, TASK_CONTRACT, Subject, try_rule

    subject = Subject(registry, entry, planned)
    rules = TASK_CONTRACT if entry.kind == "task" else PRUNER_CONTRACT
    broken: set[str] = set()
    for rule in rules:
        verdict, why = try_rule(rule, subject)
        # An error during a run has the same end, after the place where it was raised.
        if verdict == "BROKEN" and any(why.endswith(known) for known in broken):
            verdict, why = "skipped", "the same error"
        elif verdict == "BROKEN":
            broken.add(why)
        promise = (rule.__doc__ or "").partition("\n")[0].rstrip(".")
        print(f"{verdict:<7} {promise}{f': {why}' if why else ''}", flush=True)
    result = f"passes all {len(rules)} checks"
    if broken:
        result = f"fails {len(broken)} of {several(len(rules), 'check')}"
    print(f"{entry.kind} {entry.name} {result}")
    return 1 if broken else 0


def _plan(
    arguments: argparse.Namespace, registry: Registry, entry: Entry, epochs: int | None = None
) -> Plan:
    """Return a plan that pairs a task with dense training, or a pruner with a task.

    Args:
        arguments: of the command.
        registry: finds tasks and pruners.
        entry: the task or pruner to check.
        epochs: the budget, unless ``--set`` gives another; None for the task's own.

    Raises:
        RequestError: a name or a value is unknown or not permitted.
    """
    is_task = entry.kind == "task"
    budget = {} if epochs is None else {"epochs": str(epochs)}
    return plan(
        registry,
        entry.name if is_task else arguments.task or DEFAULT_TASK,
        "dense" if is_task else entry.name,
        sparsity=SPARSITY,
        profile=arguments.profile,
        overrides={**budget, **options.parse_settings(arguments.set)},
        data_folder=arguments.data,
    )
