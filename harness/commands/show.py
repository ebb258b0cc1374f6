"""The command ``show``: summarise one run that is done."""

from __future__ import annotations

import argparse
import json

from harness.commands import options
from harness.results.summary import summarise, summarise_events
from harness.storage.store import Store


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a run's folder, its name, the beginning of its name, or its hash",
    )
    options.add_json(parser, "print the record instead")
    options.add_results(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Print the summary of a record and its events, or the record as JSON."""
    record = Store(arguments.results).find(arguments.run)
    if arguments.json:
        print(json.dumps(record, indent=1))
    else:
        print(summarise(record), summarise_events(record), sep="\n\n")
    return 0
