"""``matrix``: every run of a suite, on this machine or on a cluster."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from harness.commands import options
from harness.errors import Interrupted, RequestError
from harness.matrix.dispatch import Tally
from harness.matrix.executor import Resources
from harness.matrix.plan import Matrix
from harness.matrix.request import MatrixRequest, as_object
from harness.matrix.state import (
    counted,
    left_out_lines,
    outcome_lines,
    preview,
    reasons,
    unmeasured_lines,
)
from harness.matrix.suite import Suite, parse_seeds, select_runs
from harness.text import several

Value = TypeVar("Value")

EXAMPLES = """\
examples:
  python -m harness matrix --suite smoke
  python -m harness matrix --suite embedded --tasks digits --seeds 0-4 --jobs 2
  python -m harness matrix --tasks digits,ptb --pruners dense,snip --sparsities 0.9,0.98
  python -m harness matrix --tasks digits --pruners crop_s,snap --budgets macs=0.5,macs=0.25

Runs that are done are not repeated, except with --again; runs that were interrupted are resumed.
Ctrl-C lets the current runs finish; a second Ctrl-C saves and stops them.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.usage = (
        f"{parser.prog} --suite NAME [option ...]\n"
        f"       {parser.prog} --tasks A,B --pruners C,D [option ...]"
    )
    parser.epilog = EXAMPLES
    what = parser.add_argument_group("what to run; these options replace the values of the suite")
    what.add_argument(
        "--suite", metavar="NAME", help="see: python -m harness list suites; or a FILE"
    )
    what.add_argument(
        "--tasks",
        "--task",
        metavar="A,B",
        help="names, or all; tasks that the suite has select its runs on them",
    )
    what.add_argument("--pruners", "--pruner", metavar="C,D", help="names, or all")
    what.add_argument("--pairing", metavar="TASK-PRUNER", help="one of each, in one word")
    what.add_argument(
        "--sparsities",
        "--sparsity",
        metavar="S,T",
        help="as in 0.9,0.98 (default: the task's own)",
    )
    what.add_argument(
        "--budgets",
        "--budget",
        metavar="B,C",
        help="what the networks may cost, in place of sparsities, as in macs=0.5,macs=0.25",
    )
    what.add_argument(
        "--seeds", "--seed", metavar="N,M", help="as in 0,1,2 or 0-4 or 0-2,7 (default: 0)"
    )
    options.add_profile(what, default=None)
    options.add_set(what)
    options.add_plugin(what)
    where = parser.add_argument_group("where and how")
    add_executor(where)
    where.add_argument(
        "--exclusive",
        action="store_true",
        help="one run at a time, so that nothing disturbs its timings",
    )
    where.add_argument(
        "--measure",
        metavar="WHEN",
        help="when the networks are measured: end (after all training, alone on the machine), "
        "during (each after its run, beside other runs) or never (measure --missing does it "
        "later); default: that of the suite, or end; during on clusters and in the profile smoke",
    )
    where.add_argument(
        "--hours", type=options.positive, metavar="H", help="stop a run that takes longer"
    )
    where.add_argument(
        "--gigabytes", type=options.positive, metavar="GB", help="stop a run that needs more memory"
    )
    where.add_argument("--partition", metavar="NAME", help="partition of the cluster")
    options.add_where(where)
    options.add_track(where)
    options.add_again(where, "every run")
    options.add_json(where, "also print how each run ended, as the last line")


def add_executor(parser: options.Parser) -> None:
    """Add ``--executor`` and ``--jobs``."""
    parser.add_argument(
        "--executor",
        default="local",
        metavar="NAME",
        help="local, slurm, ray, or debug: in this process (default: local)",
    )
    parser.add_argument(
        "--jobs",
        type=jobs,
        metavar="N",
        help="runs at a time (default: auto, as many as the machine has room for)",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Plan the matrix, run what is not done yet, and sum up; return 1 if a run failed."""
    request = MatrixRequest(
        requested_suite(arguments),
        command=shlex.join(["python", "-m", "harness", *arguments.words]),
        settings=options.parse_settings(arguments.set),
        plugins=arguments.plugin,
        data=arguments.data,
        results=arguments.results,
        executor=arguments.executor,
        resources=_resources(arguments),
        again=arguments.again,
        checkpoint_every=arguments.checkpoint_every,
        cache=arguments.cache,
        measure=arguments.measure,
        track=arguments.track,
    )
    matrix = request.plan()
    if arguments.dry_run:
        return _preview(arguments, matrix, request)
    tally = request.run(matrix, sys.stderr)
    print(_summary(matrix, tally))
    if arguments.json:
        print(json.dumps(as_object(matrix, tally)))
    if tally.waiting or tally.measuring_interrupted:
        raise Interrupted
    ended_badly = any(each.status in ("failed", "damaged") for each in tally.outcomes.values())
    return 1 if ended_badly or matrix.failed or tally.not_measured else 0


def _preview(arguments: argparse.Namespace, matrix: Matrix, request: MatrixRequest) -> int:
    """Show what would be run."""
    planned = preview(matrix.plans, request.store, arguments.again)
    for run_id, (state, why) in planned.items():
        print(f"{state:<8}  {run_id}{f'  ({why})' if why else ''}")
    for what, reason in reasons(matrix.left_out).items():
        print(f"left out  {what}: {reason}")
    found = Counter(state for state, _ in planned.values())
    found["left out"] = len(matrix.left_out)
    counts = ", ".join(f"{number} {state}" for state, number in sorted(found.items()) if number)
    print(f"{matrix.name}: {several(len(planned), 'run')}: {counts}")
    if arguments.json:
        states = {run_id: state for run_id, (state, _) in planned.items()}
        print(json.dumps({"runs": states, "left_out": reasons(matrix.left_out)}))
    return 0


def _summary(matrix: Matrix, tally: Tally) -> str:
    """Return how all runs ended, with the names of those that have no result."""
    lines = [f"{matrix.name}: {counted(tally)}"]
    if tally.done_before:
        was = "was" if tally.done_before == 1 else "were"
        lines.append(f"  {tally.done_before} {was} already done")
    lines += outcome_lines(tally, "failed", "damaged", "skipped", "diverged", "collapsed")
    lines += left_out_lines(matrix.left_out)
    lines += unmeasured_lines(tally)
    return "\n".join(lines)


def _resources(arguments: argparse.Namespace) -> Resources:
    hours, gigabytes = arguments.hours, arguments.gigabytes
    return Resources(
        jobs=arguments.jobs,
        device=arguments.device,
        exclusive=arguments.exclusive,
        time_limit=None if hours is None else 3600 * hours,
        memory_limit=None if gigabytes is None else int(1e9 * gigabytes),
        partition=arguments.partition,
    )


def requested_suite(arguments: argparse.Namespace) -> Suite:
    """Return the suite that the arguments name or describe.

    Raises:
        RequestError: it is unknown, or an axis is missing or wrong.
    """
    axes: dict[str, Any] = {
        axis: parse(axis, text)
        for axis, parse in _AXES.items()
        if (text := getattr(arguments, axis)) is not None
    }
    if arguments.pairing is not None:
        if axes.keys() & {"tasks", "pruners"}:
            raise RequestError("--pairing replaces --tasks and --pruners")
        task, pruner = options.split_pairing(arguments.pairing)
        axes |= {"tasks": [task], "pruners": [pruner]}
    return select_runs(
        arguments.suite, axes, arguments.profile, "command-line", "Given on the command line"
    )


def names(axis: str, text: str) -> str | list[str]:
    """Return the names between commas, or ``all``."""
    return text if text == "all" else _split(axis, text, str)


def _sparsities(axis: str, text: str) -> list[float]:
    return _split(axis, text, float)


def _budgets(axis: str, text: str) -> list[str]:
    return _split(axis, text, str)


def seeds(axis: str, text: str) -> list[int]:
    """Return the seeds in a text such as ``0-4``."""
    try:
        return list(parse_seeds(text))
    except RequestError as error:
        raise RequestError(f"--{axis} {error}") from None


_AXES: dict[str, Callable[[str, str], Any]] = {
    "tasks": names,
    "pruners": names,
    "sparsities": _sparsities,
    "budgets": _budgets,
    "seeds": seeds,
}


def _split(axis: str, text: str, kind: Callable[[str], Value]) -> list[Value]:
    """Return the values between commas."""
    try:
        return [kind(word.strip()) for word in text.split(",") if word.strip()]
    except ValueError:
        raise RequestError(f"--{axis} {text} is not a list of numbers, as in 0,1,2") from None


def jobs(text: str) -> int | None:
    """Return a number of jobs; None for as many as there is room for."""
    if text == "auto":
        return None
    number = options.whole_number(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1")
    return number
