"""``matrix``: every run of a suite, wherever there is room, whatever happens."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from harness.command_line import distinct
from harness.commands.run import overrides, split_pairing
from harness.errors import Interrupted, RequestError
from harness.matrix.board import Board, counted, ended_badly
from harness.matrix.dispatch import RESULTS, Dispatch, Tally
from harness.matrix.estimates import Estimates
from harness.matrix.executor import Executor, Order, Outcome, Resources, find_executor
from harness.matrix.look import endings, left_out, states, would_run
from harness.matrix.plan import Matrix, by_reason, plan_matrix, reasons, write_matrix
from harness.matrix.suite import (
    ALL,
    Axes,
    Names,
    Suite,
    check_profile,
    check_seeds,
    check_sparsities,
    find_suite,
    parse_seeds,
)
from harness.registry import Registry
from harness.signals import Urgency
from harness.storage.store import Store
from harness.text import several

Value = TypeVar("Value")


def execute(arguments: argparse.Namespace) -> int:
    """Plan, carry out what is not done yet, and sum up; return 1 if a run failed."""
    make = find_executor(arguments.executor)
    suite = requested_suite(arguments)
    arguments.plugin = distinct([*suite.plugins, *arguments.plugin])
    matrix = plan_matrix(
        suite,
        Registry(arguments.plugin),
        overrides=overrides(arguments.set),
        plugins=[plugin.name for plugin in arguments.plugin],
        data_folder=arguments.data,
        results=arguments.results,
    )
    if not (matrix.plans or matrix.failed):
        why = "; ".join(by_reason(reasons(matrix.left_out)))
        raise RequestError(f"{matrix.name}: none of its runs can be carried out: {why}")
    store = Store(arguments.results)
    if arguments.dry_run:
        return _tell(arguments, matrix, store)
    again = _once_more(arguments, matrix, store)
    tally, estimates = _look(matrix, store, again)
    if tally.waiting:
        print(f"{matrix.name}: {counted(tally)}", file=sys.stderr, flush=True)
        _carry_out(arguments, make, suite, matrix, store, tally, estimates)
    else:
        write_matrix(matrix, store.folder, _command(arguments))
    if not tally.waiting:
        for run_id in again:
            if tally.outcomes[run_id].status in RESULTS:
                store.replace(run_id)
    print(_summary(matrix, tally))
    if arguments.json:
        print(json.dumps(_as_object(matrix, tally)))
    if tally.waiting:
        raise Interrupted
    return 1 if ended_badly(tally.outcomes) or matrix.failed else 0


def _command(arguments: argparse.Namespace) -> str:
    """Return the command, to be shown to the user."""
    return shlex.join(["python", "-m", "harness", *arguments.words])


def _once_more(arguments: argparse.Namespace, matrix: Matrix, store: Store) -> Collection[str]:
    """Return the runs that are done, and that are to be carried out once more."""
    return matrix.plans.keys() & store.run_ids() if arguments.again else ()


def _look(matrix: Matrix, store: Store, again: Collection[str]) -> tuple[Tally, Estimates]:
    """Return what is done already, and what runs took so far."""
    tally, known = Tally(len(matrix.plans)), []
    once_more = store.again()
    for run_id in matrix.plans:
        try:
            record = (once_more if run_id in again else store).record(run_id)
        except RequestError as error:
            tally.settle(run_id, Outcome("damaged", str(error)))
            continue
        if record is not None:
            known.append(record)
            tally.settle(run_id, Outcome(record["status"], record["reason"]))
    tally.done_before = len(known)
    return tally, Estimates(known)


def _tell(arguments: argparse.Namespace, matrix: Matrix, store: Store) -> int:
    """Say what would be run, and do nothing."""
    planned = would_run(matrix.plans, store, arguments.again)
    for run_id, (state, why) in planned.items():
        print(f"{state:<8}  {run_id}{f'  ({why})' if why else ''}")
    for what, reason in reasons(matrix.left_out).items():
        print(f"left out  {what}: {reason}")
    found = Counter(state for state, _ in planned.values())
    found["left out"] = len(matrix.left_out)
    told = ", ".join(f"{number} {state}" for state, number in sorted(found.items()) if number)
    print(f"{matrix.name}: {several(len(planned), 'run')}: {told}")
    if arguments.json:
        states = {run_id: state for run_id, (state, _) in planned.items()}
        print(json.dumps({"runs": states, "left_out": reasons(matrix.left_out)}))
    return 0


def _carry_out(
    arguments: argparse.Namespace,
    make: type[Executor],
    suite: Suite,
    matrix: Matrix,
    store: Store,
    tally: Tally,
    estimates: Estimates,
) -> None:
    again = _once_more(arguments, matrix, store)
    resources = _resources(arguments, suite)
    urgency = Urgency()
    with urgency.listening():
        executor = make(resources, tally.hear, store.folder)
        write_matrix(matrix, store.folder, _command(arguments))
        board = Board(matrix.name, matrix.plans, tally, estimates, executor.slots, sys.stderr)
        orders = [
            Order(
                # Wherever it is carried out, the working folder may be another.
                dataclasses.replace(plan, data_folder=plan.data_folder.resolve()),
                tuple(path.resolve() for path in arguments.plugin),
                store.folder.resolve(),
                arguments.checkpoint_every,
                estimates.bytes(plan),
                arguments.cache and arguments.cache.resolve(),
                run_id in again,
            )
            for run_id, plan in matrix.plans.items()
            if run_id not in tally.outcomes
        ]
        with board.showing():
            Dispatch(executor, store, tally, urgency).carry_out(orders, board.show)


def _resources(arguments: argparse.Namespace, suite: Suite) -> Resources:
    hours = arguments.hours or suite.hours
    gigabytes = arguments.gigabytes or suite.gigabytes
    return Resources(
        jobs=arguments.jobs,
        device=arguments.device,
        exclusive=arguments.exclusive,
        time_limit=None if hours is None else 3600 * hours,
        memory_limit=None if gigabytes is None else int(1e9 * gigabytes),
        threads=suite.threads,
        partition=arguments.partition,
    )


def requested_suite(arguments: argparse.Namespace) -> Suite:
    """Return the suite that the arguments name or make up; their axes stand in for its own.

    Raises:
        RequestError: it is not known, or an axis is missing or wrong.
    """
    given: dict[str, Any] = {}
    for axis, parse in _AXES.items():
        if (text := getattr(arguments, axis)) is not None:
            given[axis] = parse(axis, text)
    if arguments.pairing is not None:
        if given.keys() & {"tasks", "pruners"}:
            raise RequestError("--pairing replaces --tasks and --pruners")
        task, pruner = split_pairing(arguments.pairing)
        given |= {"tasks": Names((task,)), "pruners": Names((pruner,))}
    if arguments.suite is not None:
        suite = find_suite(arguments.suite)
        axes = tuple(dataclasses.replace(part, **given) for part in suite.axes)
        profile = suite.profile if arguments.profile is None else check_profile(arguments.profile)
        return dataclasses.replace(suite, axes=axes, profile=profile)
    for axis in ("tasks", "pruners"):
        if axis not in given:
            raise RequestError(f"--suite or --{axis} is missing (--{axis} all means every one)")
    profile = "embedded" if arguments.profile is None else check_profile(arguments.profile)
    return Suite("command-line", "Asked for on the command line", (Axes(**given),), profile)


def _names(axis: str, text: str) -> Names:
    return ALL if text == "all" else Names(_values(axis, text, str))


def _sparsities(axis: str, text: str) -> tuple[float, ...]:
    sparsities = _values(axis, text, float)
    check_sparsities(sparsities)
    return sparsities


def _seeds(axis: str, text: str) -> tuple[int, ...]:
    try:
        seeds = parse_seeds(text)
    except RequestError as error:
        raise RequestError(f"--{axis} {error}") from None
    check_seeds(seeds)
    return seeds


_AXES: dict[str, Callable[[str, str], Any]] = {
    "tasks": _names,
    "pruners": _names,
    "sparsities": _sparsities,
    "seeds": _seeds,
}


def _values(axis: str, text: str, kind: Callable[[str], Value]) -> tuple[Value, ...]:
    """Return what stands between commas, each once."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise RequestError(f"--{axis}: is empty")
    try:
        values = tuple(map(kind, words))
    except ValueError:
        raise RequestError(f"--{axis} {text}: is not a list of numbers, as in 0,1,2") from None
    if len(set(values)) < len(values):
        raise RequestError(f"--{axis} {text}: has a value twice")
    return values


def _summary(matrix: Matrix, tally: Tally) -> str:
    """Say how all runs ended, and name those that have no result."""
    lines = [f"{matrix.name}: {counted(tally)}"]
    if tally.done_before:
        lines.append(f"  {tally.done_before} of them were done before")
    lines += endings(tally, "failed", "damaged", "skipped", "diverged", "collapsed")
    lines += left_out(matrix.left_out)
    return "\n".join(lines)


def _as_object(matrix: Matrix, tally: Tally) -> dict[str, Any]:
    return {
        "name": matrix.name,
        "runs": states(tally.outcomes, tally),
        "waiting": tally.waiting,
        "left_out": reasons(matrix.left_out),
    }
