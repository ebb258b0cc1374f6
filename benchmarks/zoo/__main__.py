"""Trace and cut networks of other libraries, and write the results.

python -m benchmarks.zoo [--family NAME ...] [--network NAME ...] [--limit N] [--write FILE]
python -m benchmarks.zoo --transformers [the same options]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.zoo import pool, table
from benchmarks.zoo.trial import TOLERANCE, Result
from harness.errors import nearest


def main() -> int:
    """Try the networks, and print a line for each and counts per family."""
    # Weights are random: nothing is ever downloaded.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from benchmarks.zoo import families as known

    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("--family", action="append", metavar="NAME", help=", ".join(known.FAMILIES))
    parser.add_argument("--network", action="append", metavar="NAME", help="these only")
    parser.add_argument(
        "--transformers", action="store_true", help="networks with attention only, beside the peer"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N of each family")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trials at once")
    parser.add_argument("--seconds", type=float, default=300.0, help="for one network")
    parser.add_argument("--gigabytes", type=float, default=12.0, help="for one network")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write a page in Markdown")
    arguments = parser.parse_args()
    choice = known.TRANSFORMERS if arguments.transformers else known.FAMILIES
    for family in arguments.family or ():
        if family not in choice:
            print(f"error: unknown family {family!r}{nearest(family, choice)}", file=sys.stderr)
            return 2
    families = arguments.family or list(choice)
    names = [
        (family, name)
        for family in families
        for name in choice[family].names()[: arguments.limit]
        if not arguments.network or name in arguments.network
    ]

    def tried(trial: pool.Trial) -> Iterator[table.Row]:
        for family, name, result in pool.results(
            trial,
            names,
            jobs=arguments.jobs,
            seconds=arguments.seconds,
            gigabytes=arguments.gigabytes,
            preload=["torch", *sorted({m for f in families for m in choice[f].modules})],
        ):
            print(f"{family} {name}: {result.outcome} {result.reason}".rstrip(), flush=True)
            yield family, name, result

    rows: list[table.Row] = []
    peers: dict[tuple[str, str], Result] = {}

    def write() -> None:
        # After each network, so that an interrupted run leaves what it has tried.
        if arguments.write is not None:
            arguments.write.parent.mkdir(parents=True, exist_ok=True)
            versions = known.versions()
            page = (
                table.comparison(rows, peers, versions)
                if arguments.transformers
                else table.page(rows, versions, TOLERANCE, arguments.limit)
            )
            arguments.write.write_text(page, encoding="utf-8")

    for row in tried(known.cut_transformer if arguments.transformers else known.try_one):
        rows.append(row)
        write()
    if arguments.transformers:
        print("torch-pruning:")
        for family, name, result in tried(known.cut_transformer_by_peer):
            peers[family, name] = result
            write()
    print(*table.summary(rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
