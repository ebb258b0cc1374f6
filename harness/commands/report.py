"""``report``: tables, figures and one HTML file on a results folder."""

from __future__ import annotations

import argparse
import importlib


def execute(arguments: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    # By its name, as tasks and pruners are: the engine does not depend on it.
    page = importlib.import_module("reports.report").write(arguments.results, arguments.out)
    print(page)
    return 0
