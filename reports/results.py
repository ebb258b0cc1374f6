"""Records in, one data frame with a row per run out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.errors import RequestError
from harness.matrix.manifest import manifest_files, read_manifest
from harness.results.comparable import (
    DEPENDS_ON_MACHINE,
    FIRST_ENGINE,
    OBSERVATIONS,
    disturbed,
    is_observed,
    machine,
    not_comparable,
)
from harness.settings import as_text
from harness.storage.damage import damage
from harness.storage.store import SCHEMA, Record, Store
from reports.provenance import details, without_paths
from reports.quantities import COSTS, ENERGY

READINGS = (
    "kernel_change",
    "kernel_alignment",
    "kernel_drift_at_trigger",
    "kernel_alignment_at_trigger",
)
"""What only an observed run has."""

VARIANTS = ("masks",)
"""Conditions that make another method of a method, where others make another task of a task."""

TESTED = ("done", "collapsed")
"""How runs end that have a result."""

UNTRIED = ("skipped", "missing")
"""What is said of runs that nobody began, or that cannot be carried out."""


@dataclass(frozen=True)
class Results:
    """What a results folder holds.

    Attributes:
        runs: a row for each run that counts, with the columns of `flatten` and the section, the
            setting and the method that it belongs to. What a matrix asked for and the folder does
            not hold is among them: "missing", or "skipped" if it was left out.
        records: all of them, by run.
        details: what is shown of each, by run, as `reports.provenance.details` gives it.
        notes: what is not counted, and why.
    """

    runs: pd.DataFrame
    records: Mapping[str, Record]
    details: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str] = ()


def read(folder: Path) -> Results:
    """Read every run of a results folder, and what its matrices asked for.

    Raises:
        RequestError: there is neither.
    """
    if not folder.is_dir():
        raise RequestError(f"results folder {folder}: does not exist")
    store = Store(folder)
    records: dict[str, Record] = {}
    shown: dict[str, Mapping[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    unread: dict[str, str] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        run_id = path.name
        try:
            record = store.record(run_id) or store.failure(run_id)
            if record is None:
                if (path / "journal.jsonl").exists():
                    unread[run_id] = "is not finished, and not counted"
                continue
            record = {**record, "run_id": run_id}
            row, shown[run_id] = flatten(record), details(record, _traceback(record, store))
        except RequestError as error:
            unread[run_id] = str(error).removeprefix(f"{path}/")
            continue
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            unread[run_id] = f"the record is damaged ({type(error).__name__}: {error})"
            continue
        rows.append(row)
        records[run_id] = record
    asked, damaged = _asked_for(folder)
    for run_id, record in asked.items():
        if run_id not in records:
            why = record["reason"] or unread.get(run_id, "asked for, and not run yet")
            records[run_id] = {**record, "reason": why}
            rows.append({**flatten(records[run_id]), "recorded": False})
            shown[run_id] = details(records[run_id], None)
    notes = [*(f"{run_id}: {reason}" for run_id, reason in unread.items()), *damaged]
    if not rows and not notes:
        raise RequestError(f"results folder {folder}: holds no run")
    runs, superseded = _those_that_count(_with_sections(pd.DataFrame(rows, dtype=object)))
    return Results(runs, records, shown, [*notes, *superseded])


def _traceback(record: Record, store: Store) -> str | None:
    """Return what a failed run left."""
    left = store.failure_details(record["run_id"]) if record["status"] == "failed" else ""
    return without_paths(left) if left else None


def _asked_for(folder: Path) -> tuple[dict[str, Record], list[str]]:
    """Return what matrices asked for, by run, and which of them cannot be read."""
    asked: dict[str, Record] = {}
    damaged = []
    for path in manifest_files(folder):
        try:
            matrix = read_manifest(path)
            for record in (*matrix.runs.values(), *matrix.left_out.values()):
                flatten(record)
                asked[record["run_id"]] = record
        except RequestError:
            damaged.append(f"{path.relative_to(folder)}: is damaged; what it asked for is unknown")
    return asked, damaged


def flatten(record: Record) -> dict[str, Any]:
    """Return a record as one row.

    Raises:
        RequestError: its schema is older than what can be read, or it is damaged.
    """
    if record["schema"] < SCHEMA:
        raise RequestError(
            f"has schema {record['schema']}, older than {SCHEMA}, the oldest that can be read"
        )
    if (what := damage(record)) is not None:
        raise RequestError(f"the record is damaged: {what}")
    spec, quality, sparsity = record["spec"], record["quality"], record["sparsity"]
    settings = record["settings"]
    reasons = {**not_comparable(record), **_reasons_of_readings(record)}
    return {
        "run_id": record["run_id"],
        "status": record["status"],
        "reason": None if record["reason"] is None else without_paths(record["reason"]),
        "task": spec["task"],
        "task_title": record["task"]["title"] or spec["task"],
        "profile": spec["profile"],
        "pruner": spec["pruner"],
        "pruner_title": record["pruner"]["title"] or spec["pruner"],
        "group": record["pruner"]["group"],
        "engine_version": record.get("engine", FIRST_ENGINE),
        "task_version": record["task"]["version"],
        "pruner_version": record["pruner"]["version"],
        "overrides": {k: v for k, v in spec["overrides"].items() if k not in OBSERVATIONS},
        "options": frozenset(settings),
        "sparsity": float(spec["sparsity"]),
        "seed": int(spec["seed"]),
        "source": record["data"]["source"],
        "data_name": record["data"]["name"],
        "stands_in": _stands_in(record),
        "data_sha256": record["data"]["sha256"],
        "metric": quality["metric"],
        "goal": quality["goal"],
        "test": quality["test"],
        "validation": quality["validation"],
        "baseline": None if quality["baseline"] is None else float(quality["baseline"]),
        "further": dict(quality["further"]),
        "weight_sparsity": sparsity.get("weights"),
        "node_sparsity": sparsity.get("nodes"),
        "effective_sparsity": sparsity.get("effective"),
        "compression": _compression(sparsity.get("weights")),
        "observed": is_observed(record),
        "disturbed": disturbed(record),
        "recorded": True,
        "started": record["provenance"].get("started") or "",
        "device": machine(record["provenance"]),
        **_costs(record, reasons),
        **_events(record),
        "reasons": {key: without_paths(why) for key, why in reasons.items()},
    }


def _stands_in(record: Record) -> bool:
    """Return whether real data stand in for published ones.

    Records from before that was declared say it of no data. Then those of a built-in task, whose
    version is a number, do; those of a plug-in, whose version is a hash, are its user's own.
    """
    data = record["data"]
    if data["source"] != "real":
        return False
    if "stands_in_for" in data:
        return data["stands_in_for"] is not None
    return isinstance(record["task"]["version"], int)


def _compression(removed: float | None) -> float | None:
    return None if removed is None or removed >= 1 else 1 / (1 - removed)


def _costs(record: Record, reasons: Mapping[str, str]) -> dict[str, Any]:
    cost = record["cost"]
    layers = record["sparsity"].get("per_layer")
    row = {key: None if key in reasons else cost.get(key) for key in COSTS}
    row["energy_measured"] = str(cost.get("energy_method") or "").startswith("measured")
    row["energy_method"] = cost.get("energy_method")
    if layers and row["parameters"] is not None:
        row["paper_disk"] = paper_disk(layers)
        masked = any(layer["kept"] < math.prod(layer["shape"]) for layer in layers)
        # Weights, gradients, two Adam moments and the mask; masked weights are copied once more.
        row["current_allocation"] = cost["parameters"] * 4 * (6 if masked else 5) / 1e6
    return row


def paper_disk(layers: Sequence[Mapping[str, Any]]) -> float:
    """Return the size on disk by the official code's formula, in its "MB".

    A weight of m rows and n columns takes 34 for each entry that is left and
    2 (min(m, n) + 1) besides: bits rather than bytes. Norms are left out here.
    """
    total = 0
    for layer in layers:
        rows, *rest = layer["shape"]
        total += 34 * layer["kept"] + 2 * (min(rows, math.prod(rest)) + 1)
    return total / 1e6


def _events(record: Record) -> dict[str, Any]:
    """Return what the paper's argument rests on, from the moments of pruning."""
    events = record["events"]
    prunings = [event for event in events if event["verb"] == "prune"]
    flow = prunings[0].get("gradient_flow") if prunings else None
    pruning = _pruning_with_kernel(record)
    kernel = pruning["kernel"] if pruning else {}
    epoch = _epoch_of_trigger(record)
    return {
        "pruned_after": [_epochs(event["spent"], record) for event in prunings],
        "gradient_flow_change": _relative_change(flow),
        "kernel_change": kernel.get("change", _change_from_the_first(pruning)),
        "kernel_alignment": kernel.get("alignment"),
        "kernel_drift_at_trigger": epoch.get("drift"),
        "kernel_alignment_at_trigger": epoch.get("alignment"),
    }


def _pruning_with_kernel(record: Record) -> Mapping[str, Any] | None:
    """Return the first pruning, if the kernel was measured there."""
    first = next((event for event in record["events"] if event["verb"] == "prune"), None)
    return first if first and first.get("kernel") else None


def _change_from_the_first(pruning: Mapping[str, Any] | None) -> float | None:
    """Return the change of a record that knows the distances to the first kernel only.

    Just at the start of training are they the distance that the pruning itself makes.
    """
    if pruning is None or pruning["spent"]:
        return None
    after = pruning["kernel"].get("after")
    change: float | None = after.get("change") if isinstance(after, Mapping) else None
    return change


def _epoch_of_trigger(record: Record) -> Mapping[str, Any]:
    """Return what was read of the kernel in the epoch in which the first trigger fired."""
    for event in record["events"]:
        if event["verb"] == "train" and event["ended_by"] == "trigger" and event["epochs"]:
            kernel: Mapping[str, Any] = event["epochs"][-1].get("kernel") or {}
            return kernel
    return {}


def _reasons_of_readings(record: Record) -> dict[str, str]:
    """Return why a record that was observed lacks a reading."""
    reasons = {}
    pruning, epoch = _pruning_with_kernel(record), _epoch_of_trigger(record)
    if pruning and "change" not in pruning["kernel"] and pruning["spent"]:
        reasons["kernel_change"] = "the record holds distances to the first kernel only"
    if epoch and "drift" not in epoch:
        reasons["kernel_drift_at_trigger"] = "the record holds distances to the first kernel only"
    return reasons


def _relative_change(flow: Mapping[str, float | None] | None) -> float | None:
    if not flow or not flow["before"] or flow["after"] is None:
        return None
    return abs(flow["after"] - flow["before"]) / flow["before"]


def _epochs(steps: int, record: Record) -> float:
    cost = record["cost"]
    return float(steps * cost["epochs"] / cost["steps"]) if cost["steps"] else 0.0


def _with_sections(runs: pd.DataFrame) -> pd.DataFrame:
    """Say for each run which others it can be compared with, and which method it is.

    A setting that not every method of the task has belongs to the method.
    """
    if runs.empty:
        return runs
    settings, variants, methods = [], [], []
    common = {
        task: frozenset.intersection(*together["options"])
        for task, together in runs.groupby("task")
    }
    for run in runs.itertuples():
        own = {
            name: value
            for name, value in run.overrides.items()
            if name in VARIANTS or name not in common[run.task]
        }
        setting = _as_text({k: v for k, v in run.overrides.items() if k not in own})
        variant = _as_text(own)
        settings.append(setting)
        variants.append(variant)
        methods.append(f"{run.pruner} ({variant})" if variant else run.pruner)
    titles = [
        f"{title} ({variant})" if variant else title
        for title, variant in zip(runs["pruner_title"], variants, strict=True)
    ]
    places = list(zip(runs["task"], runs["profile"], settings, strict=True))
    # Nobody knows the data of what was left out: they are those of the others, if there are any.
    known = {place: sha for place, sha in zip(places, runs["data_sha256"], strict=True) if sha}
    sections = [
        (task, profile, sha or known.get((task, profile, setting), ""), setting)
        for (task, profile, setting), sha in zip(places, runs["data_sha256"], strict=True)
    ]
    return runs.assign(
        setting=settings, section=sections, method=methods, method_title=titles
    ).sort_values(["task", "profile", "setting", "method", "sparsity", "seed"], ignore_index=True)


def _as_text(overrides: Mapping[str, Any]) -> str:
    return without_paths(", ".join(f"{k}={as_text(v)}" for k, v in sorted(overrides.items())))


def _those_that_count(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Leave the runs of the newest versions, and of each seed the least observed, begun last."""
    if runs.empty:
        return runs, []
    notes = []
    places = {"engine": ["section"], "task": ["section"], "pruner": ["section", "pruner"]}
    for what, place in places.items():
        older = _older(runs, f"{what}_version", place)
        runs = runs[~runs["run_id"].isin(older)]
        whose = "the" if what == "engine" else "its"
        notes += [f"{run}: is of an older version of {whose} {what}" for run in older]
    together: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs.to_dict("records"):
        key = tuple(run[name] for name in ("section", "method", "sparsity", "seed"))
        together.setdefault(key, []).append(run)
    kept = []
    for same in together.values():
        *others, counts = sorted(same, key=_precedence)
        kept.append(_with_readings(counts, others[::-1]))
        notes += [
            f"{run['run_id']}: another run of the same seed counts in its place"
            for run in others
            if run["recorded"]
        ]
    return pd.DataFrame(kept, columns=runs.columns, dtype=object), sorted(notes)


def _precedence(run: Row) -> tuple[Any, ...]:
    """Return what a run is sorted by among those of its seed: the last one counts.

    A result comes before none, and a run without observations before one with them.
    """
    has_result = run["recorded"] and run["status"] != "failed"
    return run["recorded"], has_result, not run["observed"], run["started"], run["run_id"]


def _with_readings(run: dict[str, Any], others: Iterable[Row]) -> dict[str, Any]:
    """Return a run with the readings, and nothing else, of an observed run of the same seed."""
    if run["observed"] or run["status"] not in TESTED:
        return run
    observed = next((o for o in others if o["observed"] and o["status"] in TESTED), None)
    if observed is None:
        return run
    readings = {key: observed[key] for key in READINGS}
    reasons = {key: why for key, why in observed["reasons"].items() if key in READINGS}
    return {**run, **readings, "reasons": {**run["reasons"], **reasons}}


def _older(runs: pd.DataFrame, version: str, place: list[str]) -> list[str]:
    """Return the runs that another of the same place has a newer version than.

    Of the versions of a plug-in, which are hashes, that of the run begun last is the newest.
    """
    together: dict[tuple[Any, ...], list[Row]] = {}
    for run in runs.to_dict("records"):
        if run["recorded"]:
            together.setdefault(tuple(run[key] for key in place), []).append(run)
    older = []
    for same in together.values():
        newest = max(same, key=lambda run: (_number(run[version]), run["started"]))[version]
        older += [run["run_id"] for run in same if run[version] != newest]
    return sorted(older)


def _number(version: int | str) -> int:
    return version if isinstance(version, int) else 0


Row = Mapping[str, Any]
"""A run, as `flatten` gives it."""


def majority_device(runs: Iterable[Row]) -> str | None:
    """Return the machine that most of the runs were measured on."""
    counted = Counter(run["device"] for run in runs if run["device"] is not None)
    return min(counted, key=lambda device: (-counted[device], device)) if counted else None


def values(runs: Sequence[Row], key: str, device: str | None) -> tuple[dict[int, float], str]:
    """Return a quantity of runs by seed; where there is none, why.

    Args:
        runs: of one method, sparsity and section.
        key: a quantity, or another numerical column.
        device: measurements of other machines are not pooled with this one's.
    """
    by_machine = key in DEPENDS_ON_MACHINE
    usable = [run for run in runs if run["device"] == device] if by_machine else runs
    found = finite(usable, key)
    return found, "" if found else _reason(runs, usable, key)


def undisturbed(runs: Iterable[Row], key: str) -> list[Row]:
    """Return the runs in which nothing disturbed the measurement of a quantity."""
    return [run for run in runs if key not in run["disturbed"]]


def finite(runs: Iterable[Row], key: str) -> dict[int, float]:
    """Return the numbers of a column by seed, without those that are none."""
    numbers = {run["seed"]: run[key] for run in runs if run[key] is not None}
    return {seed: float(value) for seed, value in numbers.items() if math.isfinite(value)}


def _reason(runs: Sequence[Row], usable: Sequence[Row], key: str) -> str:
    if not any(run["status"] in (*TESTED, "diverged") for run in runs):
        return "no run came to its end"
    if not usable:
        return f"measured on another machine: {next(r['device'] for r in runs if r['device'])}"
    for run in usable:
        if key in run["reasons"]:
            return str(run["reasons"][key])
    return "no nodes are removed" if key == "node_sparsity" else "not measured"


def energy_is_estimated(runs: Iterable[Row], key: str) -> bool:
    """Return whether a quantity is an estimate here, which is never ranked."""
    return key in ENERGY and not all(run["energy_measured"] for run in runs)
