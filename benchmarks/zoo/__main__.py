"""Try tracing and cutting on networks of other libraries, and write what came of it.

python -m benchmarks.zoo [--family NAME ...] [--network NAME ...] [--limit N] [--write FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.zoo import pool, table
from benchmarks.zoo.trial import TOLERANCE
from harness.errors import nearest


def main() -> int:
    """Try what is asked for, print a line for each network and counts per family."""
    # Weights are random: nothing is ever downloaded.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from benchmarks.zoo.families import FAMILIES, try_one, versions

    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("--family", action="append", metavar="NAME", help=", ".join(FAMILIES))
    parser.add_argument("--network", action="append", metavar="NAME", help="these only")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N of each family")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trials at once")
    parser.add_argument("--seconds", type=float, default=300.0, help="for one network")
    parser.add_argument("--gigabytes", type=float, default=12.0, help="for one network")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write a page in Markdown")
    arguments = parser.parse_args()
    for family in arguments.family or ():
        if family not in FAMILIES:
            print(f"error: unknown family {family!r}{nearest(family, FAMILIES)}", file=sys.stderr)
            return 2
    families = arguments.family or list(FAMILIES)
    names = [
        (family, name)
        for family in families
        for name in FAMILIES[family].names()[: arguments.limit]
        if not arguments.network or name in arguments.network
    ]
    rows = []
    for family, name, result in pool.results(
        try_one,
        names,
        jobs=arguments.jobs,
        seconds=arguments.seconds,
        gigabytes=arguments.gigabytes,
        preload=["torch", *sorted({m for f in families for m in FAMILIES[f].modules})],
    ):
        rows.append((family, name, result))
        print(f"{family} {name}: {result.outcome} {result.reason}".rstrip(), flush=True)
        # After each network, so that an interrupted run leaves what it has tried.
        if arguments.write is not None:
            arguments.write.parent.mkdir(parents=True, exist_ok=True)
            page = table.page(rows, versions(), TOLERANCE, arguments.limit)
            arguments.write.write_text(page, encoding="utf-8")
    print(*table.summary(rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
