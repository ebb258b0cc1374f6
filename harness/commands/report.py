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
    parser.add_argument(
        "--format",
        type=options.names,
        default=[],
        metavar="A,B",
        help="also write the tables, and a row for each run, as json or parquet",
    )
    parser.add_argument(
        "--measured-on",
        default="",
        metavar="TEXT",
        help="use the measurements of devices whose name contains this text (see: measure)",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Write the report and print the path of its page."""
    page = write_report(
        arguments.results,
        arguments.out,
        measured_on=arguments.measured_on,
        formats=arguments.format,
    )
    print(page)
    return 0
