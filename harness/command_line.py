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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from harness.data.decoded import VARIABLE, use_cache
from harness.errors import Interrupted, RequestError, RunFailed, nearest
from harness.output import unbreakable
from harness.signals import ending_at_once
from harness.spec import PROFILES

COMMANDS = {
    "list": "list the tasks, pruners and suites, or what can be set for one of them",
    "run": "carry out one run, or resume one that was interrupted",
    "matrix": "carry out every run of a suite that is not done yet",
    "status": "show which runs of a results folder are done, running, waiting or failed",
    "merge": "add the runs of other results folders to this one",
    "show": "show what a run did, epoch by epoch",
    "report": "write tables, figures and one HTML file about a results folder",
    "compare": "compare two runs, or two results folders",
    "data": "list, fetch or check the data of the tasks",
    "check": "test whether a task or a pruner keeps its contract",
}

EXAMPLES = """\
examples:
  python -m harness run --task ptb --pruner earlycrop_u
  python -m harness run --task digits --pruner snip --sparsity 0.995 --seed 1 --set epochs=20
  python -m harness run --task digits --pruner mine --plugin mine.py

A run that is done is not done twice, except with --again. The same command resumes a run that
was interrupted.
"""


MATRIX_EXAMPLES = """\
examples:
  python -m harness matrix --suite smoke
  python -m harness matrix --suite embedded --tasks digits --seeds 0-4 --jobs 2
  python -m harness matrix --tasks digits,ptb --pruners dense,snip --sparsities 0.9,0.98

Runs that are done are not done twice, except with --again; those that were interrupted are
resumed. Ctrl-C lets the current runs finish; a second Ctrl-C saves them and stops.
"""

STATUS_JSON = """\
--json prints one object. "matrices" is an array; each has "name", "command", "counts" by status,
"runs" and "left_out" (reasons by run). "other_runs" are the runs of no matrix.
"again" are runs that --again has not completed yet; "damaged" lists matrix files that cannot be
read. A run has a "status" (done, collapsed, diverged, failed, skipped, damaged, running,
interrupted or waiting) and a "reason", which may be null.
"""

COMPARE_JSON = """\
--json prints one object. For two runs: "a" and "b" (their names), "differences" (settings, data
and status), "metric", "quality", "sparsity" and "costs", whose entries have "a", "b" and "ratio",
and "not_compared" (costs that depend on the machine, if the machines differ). For two results
folders: "a" and "b", "runs" (each with "run", "metric", "a", "b" and "verdict") and
"over_seeds" (each with "run", "metric", "difference", "low", "high", "seeds" and "verdict").
"""

RESUMED = ("run", "matrix")
"""Commands that save what they have done when they are interrupted, and go on from there."""

PRINTED = ("list", "show", "status", "compare", "data")
"""Commands that have failed if what they print is lost."""


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a command and return its exit code."""
    words = sys.argv[1:] if words is None else list(words)
    command = words[0] if words else ""
    with unbreakable() as (out, _), ending_at_once():
        try:
            code = _carried_out(words)
        except KeyboardInterrupt:
            saved = (
                ": the same command resumes from the last checkpoint" if command in RESUMED else ""
            )
            code = _say(f"interrupted{saved}", 1)
        except SystemExit:  # argparse has printed the help
            out.flush()
            if out.failure is None:
                raise
            code = 0 if out.reader_left else 1
        out.flush()
        if out.failure is None or out.reader_left:
            return code
        _say(f"warning: standard output: {out.failure.strerror}; what was printed is lost")
        return code if command in COMMANDS and command not in PRINTED else 1


def _carried_out(words: Sequence[str]) -> int:
    """Carry out a command, turn what it raises into a line, and return the exit code."""
    try:
        arguments = parse(words)
    except RequestError as error:
        return _say(f"error: {error}", 2)
    try:
        if getattr(arguments, "cache", None) is not None:
            use_cache(arguments.cache)
        command = importlib.import_module(f"harness.commands.{arguments.command}")
        code: int = command.execute(arguments)
        return code
    except RequestError as error:
        return _say(f"error: {error}", 2)
    except RunFailed as error:
        return _say(f"failed: {error}", 1)
    except Interrupted:
        return _say("interrupted: the same command goes on from here", 1)
    except SystemExit as error:
        return _say(f"failed: a plug-in calls sys.exit({error.code})", 1)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return _say(f"failed: {where}{error.strerror or error}", 1)


def _say(line: str, code: int = 0) -> int:
    """Print one line on standard error and return the exit code."""
    print(" ".join(line.splitlines()), file=sys.stderr)
    return code


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
    _status_options(parsers["status"])
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
            f"missing command; choose from {', '.join(COMMANDS)} (see {parser.prog} --help)"
        )
    if unknown:
        options = [o for a in parsers[arguments.command]._actions for o in a.option_strings]
        hint = nearest(unknown[0].partition("=")[0], options)
        raise RequestError(f"unknown argument {unknown[0]!r} of {arguments.command}{hint}")
    arguments.words = words
    if hasattr(arguments, "plugin"):
        arguments.plugin = distinct(arguments.plugin)
    return arguments


def distinct(paths: Iterable[Path]) -> list[Path]:
    """Return each file once, whatever it is called, by the first of its names."""
    return list({_file(path): path for path in reversed(list(paths))}.values())[::-1]


def _file(path: Path) -> tuple[int, int] | str:
    """Return what tells a file from others: links to it have it in common."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def _list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        nargs="?",
        metavar="KIND",
        help="tasks, pruners, suites or conditions (default: all but conditions)",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="after task or pruner: list what can be set for it"
    )
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
    _again_options(where, "the run")
    where.add_argument(
        "--json", action="store_true", help="also print the record, as the last line"
    )


def _matrix_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} --suite NAME [option ...]"
    parser.epilog = MATRIX_EXAMPLES
    what = parser.add_argument_group("what to run; these replace the axes of the suite")
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
    what.add_argument(
        "--seeds", "--seed", metavar="N,M", help="as in 0,1,2 or 0-4 or 0-2,7 (default: 0)"
    )
    _profile_option(what, default=None)
    _set_option(what)
    _plugin_option(what)
    where = parser.add_argument_group("where and how")
    where.add_argument(
        "--executor", default="local", metavar="NAME", help="local, slurm or ray (default: local)"
    )
    where.add_argument(
        "--jobs",
        type=_jobs,
        metavar="N",
        help="runs at once (default: auto, as many as the machine has room for)",
    )
    where.add_argument(
        "--exclusive",
        action="store_true",
        help="one run at a time, so that nothing disturbs its timings",
    )
    where.add_argument("--hours", type=_positive, metavar="H", help="stop a run that takes longer")
    where.add_argument(
        "--gigabytes", type=_positive, metavar="GB", help="stop a run that needs more memory"
    )
    where.add_argument("--partition", metavar="NAME", help="partition of the cluster")
    _where_options(where)
    _again_options(where, "every run")
    where.add_argument(
        "--json", action="store_true", help="also print how each run ended, as the last line"
    )


def _again_options(parser: argparse._ActionsContainer, what: str) -> None:
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be run and what is done, and run nothing",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help=f"run {what} again even if it is done; the new result replaces the old one",
    )


def _status_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = STATUS_JSON
    parser.add_argument("--json", action="store_true", help="print one object instead")
    _results_option(parser)


def _merge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="+", type=_path, metavar="DIR", help="results folders to take runs from"
    )
    _results_option(parser)


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a run's folder, or its name, the beginning of its name, or its hash",
    )
    parser.add_argument("--json", action="store_true", help="print the record instead")
    _results_option(parser)


def _report_options(parser: argparse.ArgumentParser) -> None:
    _results_option(parser)
    parser.add_argument(
        "--out",
        type=_path,
        default=Path("report"),
        metavar="DIR",
        help="folder for the report (default: report)",
    )


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A", help="a run, as for show, or a results folder")
    parser.add_argument("second", metavar="B", help="another one")
    parser.epilog = COMPARE_JSON
    parser.add_argument("--json", action="store_true", help="print one object instead")
    _results_option(parser)


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="list|fetch|check")
    parser.add_argument("task", nargs="?", metavar="TASK", help="list: default all tasks")
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
        help="change a setting of the task, the pruner or the engine; may be repeated; see: "
        "python -m harness list task NAME",
    )


def _where_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1 ... (default: auto, which is a GPU if there is one)",
    )
    _data_folder_option(parser)
    _results_option(parser)
    parser.add_argument(
        "--checkpoint-every",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="time between two checkpoints (default: 60)",
    )


def _results_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--results",
        type=_path,
        default=Path("results"),
        metavar="DIR",
        help="folder with the runs and their records (default: results)",
    )


def _data_folder_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--data",
        type=_path,
        default=Path("data"),
        metavar="DIR",
        help="folder of official data, read by all but data fetch (default: data)",
    )
    parser.add_argument(
        "--cache",
        type=_path,
        metavar="DIR",
        help=f"folder for decoded copies of data (default: ${VARIABLE}, or your cache folder)",
    )


def _plugin_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--plugin",
        type=_path,
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file with more tasks or pruners; may be repeated",
    )


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty; . means the current folder")
    return Path(text)


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
