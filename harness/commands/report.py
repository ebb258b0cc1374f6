"""``report``: tables, figures and one HTML file about a results folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.api import write_report
from harness.commands import options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    options.add_results(parser)
    parser.add_argument(
        "--out",
        type=options.path,
        default=Path("report"),
        metavar="DIR",
        help="folder for the report (default: report)",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Write the report and print the path of its page."""
    print(write_report(arguments.results, arguments.out))
    return 0
