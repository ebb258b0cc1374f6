"""The command line: a contract that users' scripts depend on.

The options and the code of each command are in a module of `harness.commands`. Only the module of
the requested command is imported, which keeps the start quick; that is also why this is argparse,
since larger libraries would take longer to import than the rest of ``list`` takes to run.

Exit codes: 0, done (also collapsed or diverged, which are results); 1, the run failed; 2, the
request was wrong.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from harness.errors import Interrupted, RequestError, RunFailed, nearest
from harness.output import unbreakable
from harness.signals import ending_at_once

COMMANDS = {
    "list": "list the tasks, pruners and suites, or what can be set for one of them",
    "run": "run one method on one task, or resume a run that was interrupted",
    "matrix": "run every combination of a suite that is not done yet",
    "advise": "try a few methods in a short time, and say which one to take",
    "status": "show which runs of a results folder are done, running, waiting or failed",
    "merge": "copy the runs of other results folders into this one",
    "show": "show what a run did, epoch by epoch",
    "report": "write tables, figures and one HTML file about a results folder",
    "export": "write a finished network in a format that can be used without this project",
    "track": "show finished runs in a tracker, such as TensorBoard",
    "measure": "measure finished networks again, one at a time, alone on the device",
    "sensitivity": "show how much each layer or group of channels can lose before the metric falls",
    "compare": "compare two runs, or two results folders",
    "data": "list, fetch or check the data of the tasks",
    "check": "test whether a task or a pruner meets its contract",
}
"""The commands with their help."""

RESUMABLE = ("run", "matrix", "advise")
"""Commands that save their work when they are interrupted."""

PRINTED = ("list", "show", "status", "compare", "data")
"""Commands that have failed if their output is lost."""


def main(words: Sequence[str] | None = None) -> int:
    """Execute a command and return its exit code.

    Args:
        words: the command and its options; None for those of this process.
    """
    words = sys.argv[1:] if words is None else list(words)
    command = words[0] if words else ""
    with unbreakable() as (out, _), ending_at_once():
        try:
            code = _execute(words)
        except KeyboardInterrupt:
            saved = (
                ": the same command resumes from the last checkpoint"
                if command in RESUMABLE
                else ""
            )
            code = _print_error(f"interrupted{saved}", 1)
        except SystemExit:  # argparse has printed the help
            out.flush()
            if out.failure is None:
                raise
            code = 0 if out.reader_left else 1
        out.flush()
        if out.failure is None or out.reader_left:
            return code
        _print_error(
            f"warning: cannot write to standard output: {out.failure.strerror}; "
            "some of the output is lost"
        )
        return code if command in COMMANDS and command not in PRINTED else 1


def _execute(words: Sequence[str]) -> int:
    """Execute a command, turn any exception into one line, and return the exit code."""
    try:
        arguments = parse(words)
    except RequestError as error:
        return _print_error(f"error: {error}", 2)
    try:
        if getattr(arguments, "cache", None) is not None:
            from harness.data.cache import use_cache

            use_cache(arguments.cache)
        code: int = _module(arguments.command).execute(arguments)
        return code
    except RequestError as error:
        return _print_error(f"error: {error}", 2)
    except RunFailed as error:
        return _print_error(f"failed: {error}", 1)
    except Interrupted:
        return _print_error("interrupted: the same command resumes from here", 1)
    except SystemExit as error:
        return _print_error(f"failed: a plug-in calls sys.exit({error.code})", 1)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return _print_error(f"failed: {where}{error.strerror or error}", 1)


def _print_error(line: str, code: int = 0) -> int:
    """Print one line on standard error and return the exit code."""
    print(" ".join(line.splitlines()), file=sys.stderr)
    return code


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"harness.commands.{command}")


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error as one line."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message} (see {self.prog} --help)")


def _without_options(words: Sequence[str]) -> str:
    """Return the error for a run that names its task and pruner without options."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    task, pruner = names if len(names) == 2 else ("TASK", "PRUNER")
    return (
        f"run takes no positional arguments; use --task {task} --pruner {pruner}, "
        f"or --pairing {task}-{pruner}"
    )


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of a command line.

    Raises:
        RequestError: the command line is wrong.
    """
    parser = _Parser(
        prog="python -m harness",
        description="Run every pruning method on every kind of task, under equal conditions.",
        epilog="python -m harness COMMAND --help describes one command.",
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
    requested = words[0] if words else ""
    if requested in COMMANDS:
        _module(requested).add_options(parsers[requested])
    elif requested and not requested.startswith("-"):
        raise RequestError(f"unknown command {requested!r}{nearest(requested, COMMANDS)}")
    arguments, unknown = parser.parse_known_args(words)
    if arguments.command != requested:
        raise RequestError(
            f"missing command; choose from {', '.join(COMMANDS)} (see {parser.prog} --help)"
        )
    if unknown and requested == "run" and not unknown[0].startswith("-"):
        raise RequestError(_without_options(unknown))
    if unknown:
        options = [o for a in parsers[arguments.command]._actions for o in a.option_strings]
        hint = nearest(unknown[0].partition("=")[0], options)
        raise RequestError(f"unknown argument {unknown[0]!r} of {arguments.command}{hint}")
    arguments.words = words
    if hasattr(arguments, "plugin"):
        from harness.storage.files import distinct

        arguments.plugin = distinct(arguments.plugin)
    return arguments
