"""``track``: finished runs in a tracker, such as TensorBoard."""

from __future__ import annotations

import argparse
import contextlib
import sys

from harness.api import track_runs
from harness.commands import options
from harness.text import several

EXAMPLES = """\
examples:
  python -m harness track digits-crop_s --to tensorboard
  python -m harness track results/digits-* --to tensorboard,mlflow

What a tracker has shown before is not shown again. To follow runs while they are carried out, pass
--track NAME to run or matrix.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.epilog = EXAMPLES
    parser.add_argument("runs", metavar="RUN", nargs="+", help="finished runs, each as for show")
    parser.add_argument(
        "--to",
        metavar="A,B",
        type=options.names,
        required=True,
        help="tensorboard, wandb, mlflow, trackio, or another installed tracker",
    )
    options.add_results(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Show the runs in the trackers, and print where they can be seen."""
    with contextlib.redirect_stdout(sys.stderr):  # some trackers talk
        folders = track_runs(arguments.runs, arguments.to, results=arguments.results)
    for name, folder in folders.items():
        print(f"{name}: {several(len(arguments.runs), 'run')} in {folder}")
    return 0
