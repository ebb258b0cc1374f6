"""The project's own speed, as ratios of two figures measured in one run.

    python -m benchmarks.speed [NAME ...] [--json] [--publish]

Exit code 1 if a ratio is above its limit.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import cast

from benchmarks.measurement import Comparison
from benchmarks.publish.runs import read_rows, write_rows
from harness.errors import nearest
from harness.record import Provenance
from harness.results.comparable import machine
from harness.results.provenance import environment

BENCHMARKS = {
    "coldstart": "commands:coldstart",
    "overhead": "training:overhead",
    "masked": "training:masked",
    "prunings": "training:prunings",
    "scoring": "training:scoring",
    "psmm": "psmm:measure",
    "sparse": "sparse:measure",
    "trace": "networks:trace",
    "vgg16": "networks:vgg16",
    "resume": "commands:resume",
    "slots": "matrix:slots",
    "perrun": "matrix:perrun",
    "shared": "shared:measure",
    "measure": "measuring:measure",
    "report": "commands:report",
    "nyu_reading": "nyu_reading:measure",
}
"""The function ``() -> list[Comparison]`` of each benchmark, as ``module:function``."""


def main() -> int:
    """Run the named benchmarks, or all, and print each figure as soon as it is measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", action="store_true", help="a line of JSON for each figure")
    parser.add_argument(
        "--publish", action="store_true", help="put the figures among the published results"
    )
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in BENCHMARKS:
            print(f"error: unknown benchmark {name!r}{nearest(name, BENCHMARKS)}", file=sys.stderr)
            return 2
    short = 0
    for name in arguments.names or BENCHMARKS:
        module, function = BENCHMARKS[name].split(":")
        measured = []
        for line in getattr(importlib.import_module(f"benchmarks.speed.{module}"), function)():
            print(_as_json(line) if arguments.json else _as_text(line), flush=True)
            short += line.falls_short
            measured.append(line)
        if arguments.publish:
            publish(name, measured)
    return 1 if short else 0


def publish(name: str, measured: Sequence[Comparison]) -> None:
    """Put the figures of a benchmark among the published ones, in place of its former figures."""
    import torch  # not above: new processes import this file, and their memory is measured

    # Only what holds in the processes of every benchmark, too: some flush denormal numbers.
    described = environment(torch.device("cpu"))
    common = {key: described[key] for key in ("device", "threads", "versions")}
    measured_on = machine(cast(Provenance, common)) or ""
    rows = [row for row in read_rows("speed") if row["benchmark"] != name]
    rows += [
        {
            "benchmark": name,
            "name": line.name,
            "ours": f"{line.ours:.4g}",
            "theirs": f"{line.theirs:.4g}",
            "unit": line.unit,
            "limit": "" if line.limit is None else f"{line.limit:.3g}",
            "machine": measured_on,
        }
        for line in measured
    ]
    write_rows("speed", sorted(rows, key=lambda row: list(BENCHMARKS).index(row["benchmark"])))


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
