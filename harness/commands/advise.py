"""``advise``: which method to take, by a few short matrices."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from harness.advice.findings import Advice, find_advice
from harness.advice.halving import successive_halving
from harness.advice.request import AdviceRequest
from harness.advice.summary import summarise_advice
from harness.advice.trials import Trials
from harness.api import AnyPath, Names, as_list, as_texts, plugin_files, write_report
from harness.commands import matrix, options
from harness.errors import RequestError
from harness.own_task import OwnTask, names_and_plugins

SEEDS = (0, 1, 2, 3)

EXAMPLES = """\
examples:
  python -m harness advise --task digits --budget latency=0.5
  python -m harness advise --task digits --budget macs=0.25 --pruners snap,taylor_s,group_norm_s
  python -m harness advise --task ptb --sparsity 0.9 --seeds 0-7 --minutes 60 --tolerance 2

All methods are run with two seeds, the better half of them with four, and so on; the last two are
run with all seeds. Every run is a complete one. Methods are chosen by the metric on the validation
data and compared by that on the test data, paired by seed with each other and with dense networks.
What is done is not repeated: the same command resumes, and you can add seeds or methods later.

Without --pruners, a budget tries slim_dense, snap, earlycrop_s and taylor_s: a narrow dense
network, and methods that remove channels before training, early in it and late in it. A sparsity
tries snip, earlycrop_u, gmp and magnitude_u, which remove single weights.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} --task NAME --budget KIND=AMOUNT [option ...]"
    parser.epilog = EXAMPLES
    what = parser.add_argument_group("what to find out")
    what.add_argument("--task", metavar="NAME", help="see: python -m harness list tasks")
    what.add_argument(
        "--budget",
        metavar="KIND=AMOUNT",
        help="what the network may cost: macs, params, bytes or latency; a fraction of the dense "
        "network's, as in latency=0.5, or an amount, as in bytes=2MB",
    )
    what.add_argument(
        "--sparsity",
        type=options.number,
        metavar="S",
        help="fraction of the prunable weights to remove, in place of a budget",
    )
    what.add_argument(
        "--pruners", metavar="A,B", help="methods to try, or all (default: four, see below)"
    )
    what.add_argument(
        "--seeds", metavar="N,M", help="seeds of the last round, as in 0-7 (default: 0-3)"
    )
    what.add_argument(
        "--minutes",
        type=options.positive,
        metavar="M",
        help="begin no round that would end after this time (default: no limit)",
    )
    what.add_argument(
        "--tolerance",
        type=options.number,
        metavar="T",
        help="also say whether the network loses at most T against dense, in the metric's unit",
    )
    options.add_profile(what, default="embedded")
    options.add_set(what)
    options.add_plugin(what)
    where = parser.add_argument_group("where and how")
    matrix.add_executor(where)
    options.add_where(where)
    where.add_argument(
        "--out", type=options.path, metavar="DIR", help="also write the report of the results there"
    )
    options.add_json(where, "print one JSON document instead of the table")


def execute(arguments: argparse.Namespace) -> int:
    """Print the advice."""
    if not arguments.task:
        raise RequestError("--task is missing (see: python -m harness list tasks)")
    found = advise(
        arguments.task,
        None if arguments.pruners is None else matrix.names("pruners", arguments.pruners),
        budget=arguments.budget,
        sparsity=arguments.sparsity,
        seeds=SEEDS if arguments.seeds is None else matrix.seeds("seeds", arguments.seeds),
        minutes=arguments.minutes,
        tolerance=arguments.tolerance,
        profile=arguments.profile,
        settings=options.parse_settings(arguments.set),
        results=arguments.results,
        data=arguments.data,
        plugins=arguments.plugin,
        executor=arguments.executor,
        device=arguments.device,
        jobs=arguments.jobs,
        checkpoint_every=arguments.checkpoint_every,
        out=arguments.out,
        progress=sys.stderr,
    )
    if arguments.json:
        print(json.dumps({**dataclasses.asdict(found), "verdict": found.verdict}))
    else:
        print(summarise_advice(found))
    return 0


def advise(
    task: str | OwnTask,
    pruners: Names | None = None,
    *,
    budget: str | None = None,
    sparsity: float | None = None,
    seeds: Iterable[int] = SEEDS,
    minutes: float | None = None,
    tolerance: float | None = None,
    profile: str = "embedded",
    settings: Mapping[str, Any] | None = None,
    results: AnyPath = "results",
    data: AnyPath = "data",
    plugins: AnyPath | Iterable[AnyPath] = (),
    executor: str = "local",
    device: str = "auto",
    jobs: int | None = None,
    checkpoint_every: float = 60.0,
    out: AnyPath | None = None,
    progress: TextIO | None = None,
) -> Advice:
    """Try a few methods on a task, and say which to take.

    Each round of `harness.advice.halving` is a matrix: runs that are done are not repeated.

    Args:
        task: name of the task, or a task that `task_from` made.
        pruners: the methods, at least two, or ``"all"``; None for four that suit what is asked.
        budget: what the network may cost, as in ``"latency=0.5"``; see `harness.budget`.
        sparsity: fraction of the weights to remove, in place of a budget.
        seeds: of the last round.
        minutes: begin no further round that would end later; None for no limit.
        tolerance: also say whether the method loses at most this against dense, in the unit of the
            metric.
        profile: ``"smoke"``, ``"embedded"`` or ``"paper"``.
        settings: values by name, for all runs that have such a setting.
        results: folder of runs and their records.
        data: folder of official data.
        plugins: Python files that define more tasks or pruners.
        executor: ``"local"``, ``"slurm"``, ``"ray"``, or ``"debug"``: in this process.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ...
        jobs: runs at a time; None for as many as the machine has room for.
        checkpoint_every: seconds between two checkpoints.
        out: folder for the report of the results folder; None for none.
        progress: a stream for a progress display, such as `sys.stderr`; None for none.

    Returns:
        The advice; its ``verdict`` says it in sentences.

    Raises:
        RequestError: the request is wrong, or no method can do what is asked.
        RunFailed: no method has a result, or a dense run failed.
        Interrupted: Ctrl-C was pressed; the same call resumes.
    """
    started = time.monotonic()
    (name,), files = names_and_plugins([task], plugin_files(plugins))
    request = AdviceRequest(
        name,
        None if pruners is None else as_list(pruners),
        list(seeds),
        budget=budget,
        sparsity=sparsity,
        minutes=minutes,
        tolerance=tolerance,
        profile=profile,
        settings=as_texts(settings),
        plugins=files,
        data=Path(data),
        results=Path(results),
        executor=executor,
        device=device,
        jobs=jobs,
        checkpoint_every=checkpoint_every,
    )
    trials = Trials(request, progress)

    def has_time_for(methods: Sequence[str], of_round: Sequence[int]) -> bool:
        end = time.monotonic() - started + trials.expected_seconds(methods, of_round)
        return minutes is None or end <= 60 * minutes

    rounds = successive_halving(request.methods, request.seeds, trials.evaluate, has_time_for)
    found = find_advice(request, rounds, trials.runs, trials.reasons)
    if out is not None:
        write_report(results, out)
    return found
