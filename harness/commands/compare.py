"""``compare``: two runs, or two results folders, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import RequestError
from harness.store import Store
from harness.summary import number

Record = Mapping[str, Any]

COSTS = (
    "train_seconds",
    "peak_run_bytes",
    "energy_kwh",
    "step_ms",
    "inference_ms",
    "peak_step_bytes",
    "disk_bytes",
    "macs",
    "parameters",
)
TIMED = ("train_seconds", "energy_kwh", "step_ms", "inference_ms")
"""What depends on the device."""


def execute(arguments: argparse.Namespace) -> int:
    """Print what differs."""
    folders = [Path(arguments.first), Path(arguments.second)]
    if all(folder.is_dir() and not (folder / "record.json").exists() for folder in folders):
        _compare_folders(*folders)
    else:
        store = Store(arguments.results)
        _compare_runs(store.find(arguments.first), store.find(arguments.second))
    return 0


def _compare_runs(first: Record, second: Record) -> None:
    print(f"A  {first['run_id']}  {first['status']}")
    print(f"B  {second['run_id']}  {second['status']}")
    for key, before in first["spec"].items():
        if before != second["spec"][key]:
            print(f"   {key}: {before} -> {second['spec'][key]}")
    print(f"\n{'':<24}{'A':>12}{'B':>12}{'B / A':>10}")
    for name, before, after in _figures(first, second):
        ratio = after / before if before and after is not None else None
        print(f"{name:<24}{number(before):>12}{number(after):>12}{number(ratio):>10}")
    if not _same_device(first, second):
        print("\ntimes and energy are not compared: the runs were on different devices")


def _figures(first: Record, second: Record) -> Iterator[tuple[str, float | None, float | None]]:
    if first["quality"]["metric"] == second["quality"]["metric"]:
        for part in ("test", "validation"):
            name = f"{part} {first['quality']['metric']}"
            yield name, first["quality"][part], second["quality"][part]
    yield "weight sparsity", first["sparsity"]["weights"], second["sparsity"]["weights"]
    yield "effective sparsity", first["sparsity"]["effective"], second["sparsity"]["effective"]
    for name in COSTS:
        if name not in TIMED or _same_device(first, second):
            yield name, first["cost"][name], second["cost"][name]


def _same_device(first: Record, second: Record) -> bool:
    keys = ("device", "threads")
    return all(first["provenance"][key] == second["provenance"][key] for key in keys)


def _compare_folders(first: Path, second: Path) -> None:
    before = {_request(record): record for record in Store(first).records()}
    after = {_request(record): record for record in Store(second).records()}
    if not before and not after:
        raise RequestError(f"neither {first} nor {second} holds a run that is done")
    for request in sorted(before.keys() | after.keys()):
        one, other = before.get(request), after.get(request)
        if one is None or other is None:
            print(f"only in {second if one is None else first}: {request}")
        elif _outcome(one) == _outcome(other):
            print(f"equal: {request}, {_told(one)}")
        else:
            print(f"differs: {request}, {_told(one)} -> {_told(other)}")


def _request(record: Record) -> str:
    spec = record["spec"]
    overrides = " ".join(f"{name}={value}" for name, value in spec["overrides"].items())
    words = (spec["task"], spec["pruner"], f"{spec['sparsity']:g}", f"seed {spec['seed']}")
    return " ".join(word for word in (*words, spec["profile"], overrides) if word)


def _outcome(record: Record) -> tuple[object, ...]:
    quality = record["quality"]
    return record["status"], quality["test"], quality["validation"], record["sparsity"]["weights"]


def _told(record: Record) -> str:
    quality = record["quality"]
    return f"{record['status']}, test {quality['metric']} {number(quality['test'])}"
