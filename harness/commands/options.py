"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from harness.data.cache import VARIABLE
from harness.errors import RequestError
from harness.spec import PROFILES

Parser = argparse._ActionsContainer
"""A parser or one of its groups."""


def add_results(parser: Parser, text: str = "folder of runs and their records") -> None:
    """Add ``--results``, explained by a text."""
    parser.add_argument(
        "--results",
        type=path,
        default=Path("results"),
        metavar="DIR",
        help=f"{text} (default: results)",
    )


def add_json(parser: Parser, text: str) -> None:
    """Add ``--json``, explained by a text."""
    parser.add_argument("--json", action="store_true", help=text)


def add_plugin(parser: Parser) -> None:
    """Add ``--plugin``."""
    parser.add_argument(
        "--plugin",
        type=path,
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file that defines more tasks or pruners; may be repeated",
    )


def add_set(parser: Parser) -> None:
    """Add ``--set``."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the task, the pruner or the engine; may be repeated",
    )


def add_profile(parser: Parser, default: str | None) -> None:
    """Add ``--profile``; without a default the suite decides."""
    parser.add_argument(
        "--profile",
        default=default,
        metavar="NAME",
        help=f"{', '.join(PROFILES)} (default: {default or 'that of the suite, or embedded'})",
    )


def add_data(parser: Parser) -> None:
    """Add ``--data`` and ``--cache``."""
    parser.add_argument(
        "--data",
        type=path,
        default=Path("data"),
        metavar="DIR",
        help="folder of official data; only data fetch writes to it (default: data)",
    )
    parser.add_argument(
        "--cache",
        type=path,
        metavar="DIR",
        help=f"folder for decoded copies of data (default: ${VARIABLE}, or your cache folder)",
    )


def add_device(parser: Parser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1 ... (default: auto, a GPU if there is one)",
    )


def add_where(parser: Parser) -> None:
    """Add the options of device, folders and checkpoints."""
    add_device(parser)
    add_data(parser)
    add_results(parser)
    parser.add_argument(
        "--checkpoint-every",
        type=seconds,
        default=60.0,
        metavar="SECONDS",
        help="time between two checkpoints (default: 60)",
    )


def add_track(parser: Parser) -> None:
    """Add ``--track``."""
    parser.add_argument(
        "--track",
        type=names,
        default=[],
        metavar="A,B",
        help="show the runs live in tensorboard, wandb, mlflow, trackio or any installed tracker",
    )


def add_again(parser: Parser, what: str) -> None:
    """Add ``--dry-run`` and ``--again``."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show what is done and what would be run, without running anything",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help=f"repeat {what} even if it is done; the new result replaces the old one",
    )


def parse_settings(items: Sequence[str]) -> dict[str, str]:
    """Return the values of ``--set`` by name.

    Raises:
        RequestError: an item does not have the form KEY=VALUE.
    """
    settings: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise RequestError(f"--set {item} is not KEY=VALUE (as in epochs=20)")
        settings[name] = value
    return settings


def split_pairing(text: str) -> tuple[str, str]:
    """Return the task and the pruner in the value of ``--pairing``.

    Raises:
        RequestError: it does not have the form TASK-PRUNER.
    """
    task, dash, pruner = text.partition("-")
    if not dash:
        raise RequestError(f"--pairing {text} is not TASK-PRUNER (as in ptb-earlycrop_u)")
    return task, pruner


def names(text: str) -> list[str]:
    """Return the names between commas; a text without a name is refused."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return found


def path(text: str) -> Path:
    """Return a path; an empty one is refused."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty; . means the current folder")
    return Path(text)


def number(text: str) -> float:
    """Return a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def positive(text: str) -> float:
    """Return a finite number greater than 0."""
    value = number(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not greater than 0")
    return value


def whole_number(text: str) -> int:
    """Return a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def seconds(text: str) -> float:
    """Return a number of seconds, at least 0."""
    value = number(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value
