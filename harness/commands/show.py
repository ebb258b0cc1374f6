"""The command ``show``: summarise one run that is done."""

from __future__ import annotations

import argparse
import json

from harness.commands import options
from harness.results.measured import find_measured
from harness.results.summary import summarise, summarise_events
from harness.storage.store import Store


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a run's folder, its name, the beginning of its name, or its hash",
    )
    options.add_json(parser, "print the record as JSON instead")
    options.add_results(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Print the summary of a record and its events, or the record as JSON."""
    store = Store(arguments.results)
    if arguments.json:
        print(json.dumps(store.find(arguments.run), indent=1))
    else:
        record = find_measured(store, arguments.run)
        print(summarise(record), summarise_events(record), sep="\n\n")
    return 0
