"""Whether two results folders hold the same results, costs and provenance left aside.

Runs that only the later folder holds, and keys that only the later version writes, count as no
difference: they are new.

    python -m benchmarks.same_results BEFORE AFTER

For a change of the code that should change no result: run the same matrix before and after it, as

    python -m harness matrix --tasks ptb,digits --pruners dense,crop_s --profile smoke
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.storage.store import Store

LEFT_ASIDE = ("cost", "provenance")
SWITCHES = ("kernel", "channels_last", "augmentation")
"""Settings that earlier versions wrote as ``on`` and ``off``."""


def main() -> int:
    """Print every difference, and return 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_results")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    arguments = parser.parse_args()
    before, after = Store(arguments.before), Store(arguments.after)
    differing = 0
    runs = sorted(before.run_ids())
    for run in runs:
        first, second = (_compared(store.record(run)) for store in (before, after))
        differences = list(differences_between(first, second))
        differing += bool(differences)
        for path, ours, theirs in differences[:5]:
            print(f"{run}: {path}: {ours!r} and {theirs!r}")
    new = len({*after.run_ids()} - {*runs})
    print(f"{len(runs) - differing} of {len(runs)} runs have the same results; {new} are new")
    return 1 if differing or not runs else 0


def _compared(record: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {name: part for name, part in (record or {}).items() if name not in LEFT_ASIDE}


def differences_between(
    before: Any, after: Any, path: str = "$"
) -> Iterator[tuple[str, object, object]]:
    """Iterate over all places where two JSON documents differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name, value in before.items():
            yield from differences_between(value, after.get(name), f"{path}.{name}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (first, second) in enumerate(zip(before, after, strict=True)):
            yield from differences_between(first, second, f"{path}[{place}]")
    elif before != after:
        is_switch = path.rpartition(".")[2] in SWITCHES
        if not (is_switch and (before == "on") == after):
            yield path, before, after


if __name__ == "__main__":
    sys.exit(main())
