"""The command line: a contract that users' scripts depend on.

Exit codes: 0 done (also collapsed or diverged, which are results), 1 the run failed, 2 the
request was wrong.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from harness.data.cache import VARIABLE, use_cache
from harness.errors import Interrupted, RequestError, RunFailed, nearest
from harness.spec import PROFILES

COMMANDS = {
    "list": "name the tasks, pruners and suites that there are",
    "run": "carry out a run, or go on with one that was interrupted",
    "matrix": "carry out every run of a suite that is not done yet",
    "status": "tell what of a results folder is done, at work, waiting or failed",
    "merge": "join results folders, from other machines say",
    "show": "tell what a run did, epoch by epoch",
    "report": "write tables, figures and one HTML file on a results folder",
    "compare": "put two runs, or two results folders, side by side",
    "data": "list, fetch or check the data of the tasks",
    "check": "hold a task or a pruner to its contract, plug-ins too",
}

EXAMPLES = """\
examples:
  python -m harness run --task ptb --pruner earlycrop_u
  python -m harness run --task digits --pruner snip --sparsity 0.995 --seed 1 --set epochs=20
  python -m harness run --task digits --pruner mine --plugin mine.py

A run that is done is not done twice. One that was interrupted goes on when it is asked for again.
"""


MATRIX_EXAMPLES = """\
examples:
  python -m harness matrix --suite smoke
  python -m harness matrix --suite embedded --tasks digits --seeds 0,1 --jobs 2
  python -m harness matrix --tasks digits,ptb --pruners dense,snip --sparsities 0.9,0.98

What is done is not done again, and what was interrupted goes on. Ctrl-C lets the runs at work
finish; a second one lets them save themselves and stops.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a command and return its exit code."""
    try:
        arguments = parse(sys.argv[1:] if words is None else words)
        if getattr(arguments, "cache", None) is not None:
            use_cache(arguments.cache)
        command = importlib.import_module(f"harness.commands.{arguments.command}")
        code: int = command.execute(arguments)
        sys.stdout.flush()
        return code
    except RequestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt):
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output, `head` say, has seen enough: let Python end without complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    """A parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message} (see {self.prog} --help)")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of a command line.

    Raises:
        RequestError: it cannot be understood.
    """
    parser = _Parser(
        prog="python -m harness",
        description="Run every pruning method on every kind of task, under equal conditions.",
        epilog="python -m harness COMMAND --help tells more of each.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    parsers = {
        name: commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        for name, text in COMMANDS.items()
    }
    _list_options(parsers["list"])
    _run_options(parsers["run"])
    _matrix_options(parsers["matrix"])
    _results_option(parsers["status"])
    _merge_options(parsers["merge"])
    _show_options(parsers["show"])
    _report_options(parsers["report"])
    _compare_options(parsers["compare"])
    _data_options(parsers["data"])
    _check_options(parsers["check"])
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise RequestError(f"unknown command {words[0]!r}{nearest(words[0], COMMANDS)}")
    arguments, unknown = parser.parse_known_args(words)
    if arguments.command is None:
        raise RequestError(
            f"which command? known: {', '.join(COMMANDS)} (see {parser.prog} --help)"
        )
    if unknown:
        options = [o for a in parsers[arguments.command]._actions for o in a.option_strings]
        hint = nearest(unknown[0].partition("=")[0], options)
        raise RequestError(f"unknown argument {unknown[0]!r} of {arguments.command}{hint}")
    arguments.words = words
    return arguments


def _list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", metavar="tasks|pruners|suites", help="all if left out")
    parser.add_argument("--json", action="store_true", help="print one array of objects")
    _results_option(parser)
    _plugin_option(parser)


def _run_options(parser: argparse.ArgumentParser) -> None:
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
        type=_number,
        metavar="S",
        help="fraction of the prunable weights to remove (default: 0.98, or as the task says)",
    )
    what.add_argument(
        "--seed", type=_whole_number, default=0, metavar="N", help="0, 1, 2 ... (default: 0)"
    )
    _profile_option(what, default="embedded")
    _set_option(what)
    _plugin_option(what)
    where = parser.add_argument_group("where and how")
    _where_options(where)
    where.add_argument(
        "--json", action="store_true", help="print the record, too, as the last line"
    )


def _matrix_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} --suite NAME [option ...]"
    parser.epilog = MATRIX_EXAMPLES
    what = parser.add_argument_group("what to run; axes stand in for those of the suite")
    what.add_argument(
        "--suite", metavar="NAME", help="see: python -m harness list suites; or a FILE"
    )
    what.add_argument("--tasks", "--task", metavar="A,B", help="names, or all")
    what.add_argument("--pruners", "--pruner", metavar="C,D", help="names, or all")
    what.add_argument("--pairing", metavar="TASK-PRUNER", help="one of each, in one word")
    what.add_argument(
        "--sparsities",
        "--sparsity",
        metavar="S,T",
        help="as in 0.9,0.98 (default: as the task says)",
    )
    what.add_argument("--seeds", "--seed", metavar="N,M", help="as in 0,1,2 (default: 0)")
    _profile_option(what, default=None)
    _set_option(what)
    _plugin_option(what)
    where = parser.add_argument_group("where and how")
    where.add_argument(
        "--executor", default="local", metavar="NAME", help="local, slurm or ray (default: local)"
    )
    where.add_argument(
        "--jobs", type=_jobs, metavar="N", help="runs at once (default: auto, as there is room for)"
    )
    where.add_argument(
        "--exclusive",
        action="store_true",
        help="one run at a time, so that timings are undisturbed",
    )
    where.add_argument("--hours", type=_positive, metavar="H", help="end a run that takes longer")
    where.add_argument(
        "--gigabytes", type=_positive, metavar="GB", help="end a run that holds more memory"
    )
    where.add_argument("--partition", metavar="NAME", help="of a cluster")
    _where_options(where)
    where.add_argument(
        "--json", action="store_true", help="print how each run ended, too, as the last line"
    )


def _merge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="results folders to take runs from"
    )
    _results_option(parser)


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="a run's folder, its name, the beginning of it, or its hash"
    )
    parser.add_argument("--json", action="store_true", help="print the record instead")
    _results_option(parser)


def _report_options(parser: argparse.ArgumentParser) -> None:
    _results_option(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report"),
        metavar="DIR",
        help="folder for the report (default: report)",
    )


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A", help="a run, as for show, or a results folder")
    parser.add_argument("second", metavar="B", help="another one")
    _results_option(parser)


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="list|fetch|check")
    parser.add_argument("task", nargs="?", metavar="TASK", help="list: all tasks if left out")
    _set_option(parser)
    _data_folder_option(parser)
    _plugin_option(parser)


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="task|pruner")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--task", metavar="NAME", help="what a pruner is tried on (default: digits)"
    )
    _profile_option(parser, default="smoke")
    _set_option(parser)
    _data_folder_option(parser)
    _plugin_option(parser)


def _profile_option(parser: argparse._ActionsContainer, default: str | None) -> None:
    parser.add_argument(
        "--profile",
        default=default,
        metavar="NAME",
        help=f"{', '.join(PROFILES)} (default: {default or 'as the suite says, or embedded'})",
    )


def _set_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the task, the pruner or the engine; may be given again",
    )


def _where_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1 ... (default: auto, a GPU if there is one)",
    )
    _data_folder_option(parser)
    _results_option(parser)
    parser.add_argument(
        "--checkpoint-every",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how much work a kill may cost (default: 60)",
    )


def _results_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="folder of the runs and their records (default: results)",
    )


def _data_folder_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="folder of official data, read by all but data fetch (default: data)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help=f"folder for decoded copies of data (default: ${VARIABLE}, or your cache folder)",
    )


def _plugin_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--plugin",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file with further tasks or pruners; may be given again",
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _jobs(text: str) -> int | None:
    """Return a number of jobs, None for as many as there is room for."""
    if text == "auto":
        return None
    number = _whole_number(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1")
    return number


def _positive(text: str) -> float:
    number = _number(text)
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not more than 0")
    return number


def _seconds(text: str) -> float:
    seconds = _number(text)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds
