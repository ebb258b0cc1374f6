"""The command line: a contract that users' scripts depend on.

Exit codes: 0 done (also collapsed or diverged, which are results), 1 the run failed, 2 the
request was wrong.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from harness.errors import Interrupted, RequestError, RunFailed, nearest
from harness.spec import PROFILES

COMMANDS = {
    "list": "what there is: tasks, pruners",
    "run": "carry out one run, or go on with it",
    "show": "one run that is done",
    "compare": "two runs, or two results folders",
    "data": "what data a task needs, and whether they are there",
    "check": "the contract tests, for plug-ins too",
}


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a command and return its exit code."""
    try:
        arguments = parse(sys.argv[1:] if words is None else words)
        command = importlib.import_module(f"harness.commands.{arguments.command}")
        code: int = command.execute(arguments)
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


class _Parser(argparse.ArgumentParser):
    """A parser that complains in one line and names the nearest word."""

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
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {name: commands.add_parser(name, help=text) for name, text in COMMANDS.items()}
    _list_options(parsers["list"])
    _run_options(parsers["run"])
    _show_options(parsers["show"])
    _compare_options(parsers["compare"])
    _data_options(parsers["data"])
    _check_options(parsers["check"])
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise RequestError(f"unknown command {words[0]!r}{nearest(words[0], COMMANDS)}")
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        options = [o for a in parsers[arguments.command]._actions for o in a.option_strings]
        hint = nearest(unknown[0].partition("=")[0], options)
        raise RequestError(f"unknown argument {unknown[0]!r} of {arguments.command}{hint}")
    return arguments


def _list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", help="tasks or pruners; both if left out")
    parser.add_argument("--json", action="store_true", help="one array of objects")
    _plugin_option(parser)


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", metavar="NAME")
    parser.add_argument("--pruner", metavar="NAME")
    parser.add_argument(
        "--pairing", metavar="TASK-PRUNER", help="both in one word, as in ptb-earlycrop_u"
    )
    parser.add_argument(
        "--sparsity",
        type=float,
        metavar="S",
        help="fraction of the prunable weights to remove (default 0.98 unless the task differs)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--profile", default="embedded", help=f"{', '.join(PROFILES)}")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the task, the pruner or the engine; may be given again",
    )
    parser.add_argument("--json", action="store_true", help="the record as the last line")
    parser.add_argument(
        "--checkpoint-every",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how much work a kill may cost (default 60)",
    )
    _data_folder_option(parser)
    _results_option(parser)
    _plugin_option(parser)


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's name, its beginning, or its hash")
    parser.add_argument("--json", action="store_true", help="the record")
    _results_option(parser)


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A")
    parser.add_argument("second", metavar="B")
    _results_option(parser)


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="list|check")
    parser.add_argument("task", nargs="?", metavar="TASK")
    _data_folder_option(parser)
    _plugin_option(parser)


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="task|pruner")
    parser.add_argument("name", metavar="NAME")
    _data_folder_option(parser)
    _plugin_option(parser)


def _results_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")


def _data_folder_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="where official data lie"
    )


def _plugin_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE")
