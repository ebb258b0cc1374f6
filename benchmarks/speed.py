"""The project's own speed, as ratios whose two sides are measured in one run.

    python -m benchmarks.speed [NAME ...] [--json]

Exit code 1 if a ratio is above its limit.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict

from benchmarks.measurement import Comparison
from harness.errors import nearest

BENCHMARKS = (
    "coldstart",
    "overhead",
    "masked",
    "scoring",
    "psmm",
    "sparse",
    "trace",
    "vgg16",
    "resume",
    "slots",
    "perrun",
    "report",
    "nyu_reading",
)
"""Modules of this package with a function ``measure() -> list[Comparison]``."""


def main() -> int:
    """Measure what is named, or all, and print a line for each figure as it comes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", action="store_true", help="a line of JSON for each figure")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in BENCHMARKS:
            print(f"error: unknown benchmark {name!r}{nearest(name, BENCHMARKS)}", file=sys.stderr)
            return 2
    short = 0
    for name in arguments.names or BENCHMARKS:
        for line in importlib.import_module(f"benchmarks.{name}").measure():
            print(_as_json(line) if arguments.json else _as_text(line), flush=True)
            short += line.falls_short
    return 1 if short else 0


def _as_json(line: Comparison) -> str:
    return json.dumps({**asdict(line), "ratio": line.ratio})


def _as_text(line: Comparison) -> str:
    limit = "" if line.limit is None else f" (limit {line.limit:g})"
    verdict = "  FALLS SHORT" if line.falls_short else ""
    return (
        f"{line.name:<32} {line.ours:>9.4g} / {line.theirs:<9.4g} {line.unit:<4} "
        f"= {line.ratio:.3f}{limit}{verdict}"
    )


if __name__ == "__main__":
    sys.exit(main())
