"""The command ``report``: tables, figures and an HTML page about a results folder."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path


def execute(arguments: argparse.Namespace) -> int:
    """Write the report and print the path of its page."""
    print(write_report(arguments.results, arguments.out))
    return 0


def write_report(results: Path, out: Path) -> Path:
    """Write the report on a results folder and return the path of its page.

    Args:
        results: the folder, which is only read.
        out: the report's folder; it is created if necessary, and files in it are replaced.

    Raises:
        RequestError: there are no results, or the folder cannot be created.
        RunFailed: a file cannot be written, for example because the disk is full.
    """
    # The package is imported by name because the harness must not depend on it. It is no entry
    # point: there is one report, in the same distribution, and nothing else can take its place.
    page: Path = importlib.import_module("reports.report").write(results, out)
    return page
