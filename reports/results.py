"""The runs of a results folder, and which of them a report counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DamagedFile, RequestError
from harness.matrix.manifest import manifest_files, read_manifest
from harness.record import COSTS, FIRST_ENGINE, TESTED, WITH_RESULT, Number, Record, check
from harness.results.comparable import (
    DEPENDS_ON_MACHINE,
    OBSERVATIONS,
    disturbed,
    is_observed,
    machine,
    network_machine,
    not_comparable,
)
from harness.results.measured import with_measurement
from harness.results.summary import task_title
from harness.settings import as_text
from harness.storage.store import Store
from reports.provenance import details, without_paths
from reports.quantities import (
    BUDGET,
    ENERGY,
    PAPER_ONLY,
    READINGS,
    epochs,
    missing_readings,
    prunings,
    quantities_of,
    trigger_readings,
)

VARIANTS = ("masks",)
"""Conditions that define a variant of the method; all others define a variant of the task."""

UNTRIED = ("skipped", "missing")
"""The statuses of runs that have not been carried out or cannot be."""


@dataclass(frozen=True)
class Run:
    """A run as the report sees it.

    Attributes:
        kind: of the method: dense, structured, unstructured or control.
        versions: of "engine", "task" and "pruner".
        overrides: settings that differ from their defaults, without observations.
        settings: the names of all settings.
        sparsity: the fraction of weights to remove.
        budget: what the network may cost, as in "macs=0.25", in place of a sparsity; "" without.
        stands_in: whether real data stand in for published ones.
        metrics: on the test data, "test" being the main one, and "validation".
        quantities: as of `reports.quantities.quantities_of`; None if they cannot be compared.
        reasons: why a quantity is missing, by quantity.
        disturbed: quantities whose measurement other programs disturbed.
        recorded: whether the folder holds the run's record; otherwise a matrix asked for the run.
        machine: runs of the same machine have comparable times, memory and energy.
        network_machine: networks measured on the same machine have comparable costs.
        pruned_after: the epochs after which it pruned.
        fixed_moment: the units, weights or channels, that it pruned after a number of epochs that
            an option fixes; "" if the method chose the moment.
        one_shot: whether an option made it remove everything at once, and not in steps.
        readings: what each observed trigger read, by the number of epochs.
        channels_left: the fraction of channels left of each kind, if it could remove channels.
        setting: the overrides that make another task of a task, as text.
        variant: the overrides that make another method of a method, as text.
        section: what it shares with all runs that it can be compared with.
    """

    run_id: str
    status: str
    reason: str | None
    task: str
    task_title: str
    profile: str
    pruner: str
    pruner_title: str
    kind: str
    versions: Mapping[str, int | str]
    overrides: Mapping[str, Any]
    settings: frozenset[str]
    sparsity: float
    budget: str
    seed: int
    source: str | None
    data_name: str | None
    data_sha256: str | None
    stands_in: bool
    metric: str
    goal: str
    baseline: float | None
    metrics: Mapping[str, Number | None]
    quantities: Mapping[str, Number | None]
    reasons: Mapping[str, str]
    disturbed: frozenset[str]
    observed: bool
    energy_measured: bool
    recorded: bool
    started: str
    machine: str | None
    network_machine: str | None
    pruned_after: Sequence[float]
    fixed_moment: str = ""
    one_shot: bool = False
    readings: Mapping[str, Mapping[float, Number | None]] = field(default_factory=dict)
    channels_left: Mapping[str, float] = field(default_factory=dict)
    setting: str = ""
    variant: str = ""
    section: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """The pruner with its variant."""
        return f"{self.pruner} ({self.variant})" if self.variant else self.pruner

    @property
    def method_title(self) -> str:
        """The same as people write it."""
        return f"{self.pruner_title} ({self.variant})" if self.variant else self.pruner_title

    @property
    def tested(self) -> bool:
        """Whether its network was tested."""
        return self.status in TESTED


@dataclass(frozen=True)
class Results:
    """The content of a results folder.

    Attributes:
        runs: those that count. A run that a matrix asked for and that the folder does not hold is
            among them: as "missing", or as "skipped" if it was left out.
        records: the records of all runs, by name.
        details: what is shown of each run, by name, as `reports.provenance.details` gives it.
        notes: which runs do not count, and why.
    """

    runs: Sequence[Run]
    records: Mapping[str, Record]
    details: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str] = ()


def read(folder: Path, device: str = "") -> Results:
    """Read every run of a results folder, and what its matrices asked for.

    Args:
        folder: the results folder.
        device: what the name of the device that measured networks again must contain.

    Raises:
        RequestError: there is neither.
    """
    if not folder.is_dir():
        raise RequestError(f"results folder {folder} does not exist")
    store = Store(folder)
    records: dict[str, Record] = {}
    shown: dict[str, Mapping[str, Any]] = {}
    runs: list[Run] = []
    unread: dict[str, str] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        run_id = path.name
        try:
            record = store.record(run_id) or store.failure(run_id)
        except RequestError as error:
            unread[run_id] = str(error).removeprefix(f"{path}/")
            continue
        if record is None:
            if (path / "journal.jsonl").exists():
                unread[run_id] = "is not finished, and not counted"
            continue
        record = with_measurement({**record, "run_id": run_id}, path, device)
        try:
            run, about = run_of(record), details(record, _traceback(run_id, record, store))
        except (ArithmeticError, ValueError) as error:
            unread[run_id] = f"has numbers that cannot be used ({error})"
            continue
        runs.append(run)
        records[run_id], shown[run_id] = record, about
    asked, damaged = _asked_for(folder)
    for run_id, record in asked.items():
        if run_id not in records:
            why = record["reason"] or unread.get(run_id, "requested, not run yet")
            records[run_id] = {**record, "reason": why}
            runs.append(run_of(records[run_id], recorded=False))
            shown[run_id] = details(records[run_id], None)
    notes = [*(f"{run_id}: {reason}" for run_id, reason in unread.items()), *damaged]
    if not runs and not notes:
        raise RequestError(f"results folder {folder} contains no runs")
    counted, superseded = _those_that_count(with_sections(divided(runs)))
    return Results(counted, records, shown, [*notes, *superseded])


def _traceback(run_id: str, record: Record, store: Store) -> str | None:
    """Return the traceback of a failed run, if it left one."""
    left = store.failure_details(run_id) if record["status"] == "failed" else ""
    return without_paths(left) if left else None


def _asked_for(folder: Path) -> tuple[dict[str, Record], list[str]]:
    """Return what matrices asked for, by run, and which of them cannot be read."""
    asked: dict[str, Record] = {}
    damaged = []
    for path in manifest_files(folder):
        try:
            matrix = read_manifest(path)
            for record in (*matrix.runs.values(), *matrix.left_out.values()):
                asked[check(record)["run_id"]] = record
        except DamagedFile:
            damaged.append(f"{path.relative_to(folder)} is damaged; what it asked for is unknown")
    return asked, damaged


def run_of(record: Record, *, recorded: bool = True) -> Run:
    """Return what the report uses of a record.

    Args:
        record: the record of a run, or the placeholder of a run that has none.
        recorded: whether it is the record of a run.
    """
    spec, quality, data = record["spec"], record["quality"], record["data"]
    reasons = {**not_comparable(record), **missing_readings(record)}
    if "parameters" in reasons:
        reasons |= dict.fromkeys(PAPER_ONLY, reasons["parameters"])
    pruned = list(prunings(record))
    further = {f"further:{name}": value for name, value in quality["further"].items()}
    return Run(
        run_id=record["run_id"],
        status=record["status"],
        reason=None if record["reason"] is None else without_paths(record["reason"]),
        task=spec["task"],
        task_title=task_title(record),
        profile=spec["profile"],
        pruner=spec["pruner"],
        pruner_title=record["pruner"]["title"] or spec["pruner"],
        kind=record["pruner"]["group"],
        versions={
            "engine": record.get("engine", FIRST_ENGINE),
            "task": record["task"]["version"],
            "pruner": record["pruner"]["version"],
        },
        overrides=_overrides(record),
        settings=frozenset(record["settings"]),
        sparsity=float(spec["sparsity"]),
        budget=spec.get("budget", ""),
        seed=spec["seed"],
        source=data["source"],
        data_name=data["name"],
        data_sha256=data["sha256"],
        stands_in=_stands_in(record),
        metric=quality["metric"],
        goal=quality["goal"],
        baseline=None if quality["baseline"] is None else float(quality["baseline"]),
        metrics={"test": quality["test"], "validation": quality["validation"], **further},
        quantities={
            name: None if name in reasons else value
            for name, value in quantities_of(record).items()
        },
        reasons={key: without_paths(why) for key, why in reasons.items()},
        disturbed=disturbed(record),
        observed=is_observed(record),
        energy_measured=(record["cost"].get("energy_method") or "").startswith("measured"),
        recorded=recorded,
        started=record["provenance"].get("started", ""),
        machine=machine(record["provenance"]),
        network_machine=network_machine(record["provenance"]),
        pruned_after=[epochs(event["spent"], record) for event in pruned],
        fixed_moment=pruned[0].get("units", "")
        if pruned and "moment" in record["settings"]
        else "",
        one_shot=record["settings"].get("steps") == 0,
        readings=trigger_readings(record),
        channels_left=_channels_left(record),
    )


def _channels_left(record: Record) -> dict[str, float]:
    """Return the fraction of channels left of each kind."""
    kept, channels = Counter[str](), Counter[str]()
    for group in record["sparsity"].get("per_group", ()):
        kept[group["kind"]] += group["kept"]
        channels[group["kind"]] += group["channels"]
    return {kind: kept[kind] / max(number, 1) for kind, number in channels.items()}


def _overrides(record: Record) -> dict[str, Any]:
    """Return what distinguishes a run besides its sparsity: settings, and a budget.

    Settings that name code or a file have its hash, so that runs of changed code stay apart.
    """
    spec = record["spec"]
    budget = {"budget": spec["budget"]} if "budget" in spec else {}
    settings = {k: v for k, v in spec["overrides"].items() if k not in OBSERVATIONS}
    for name, digest in record["task"].get("references", {}).items():
        settings[name] = f"{settings.get(name)}@{digest[:8]}"
    return settings | budget


def _stands_in(record: Record) -> bool:
    """Return whether real data stand in for published ones.

    Older records do not say so. There, the real data of a built-in task, whose version is a number,
    stand in; those of a plug-in, whose version is a hash, are its user's own.
    """
    data = record["data"]
    if data["source"] != "real":
        return False
    if "stands_in_for" in data:
        return data["stands_in_for"] is not None
    return isinstance(record["task"]["version"], int)


def divided(runs: Iterable[Run]) -> list[Run]:
    """Return runs with their overrides divided into setting (task) and variant (method).

    A setting that not every method of the task has belongs to the method.
    """
    runs = list(runs)
    by_task: dict[str, list[Run]] = {}
    for run in runs:
        by_task.setdefault(run.task, []).append(run)
    common = {
        task: frozenset.intersection(*(run.settings for run in together))
        for task, together in by_task.items()
    }
    return [_divided(run, common[run.task]) for run in runs]


def with_sections(runs: Sequence[Run]) -> list[Run]:
    """Return divided runs with their sections, sorted."""
    # The data of what was left out are unknown: they are those of the other runs, if there are any.
    places = {(run.task, run.profile, run.setting): run.data_sha256 for run in runs}
    places |= {
        (run.task, run.profile, run.setting): run.data_sha256 for run in runs if run.data_sha256
    }
    placed = []
    for run in runs:
        data = run.data_sha256 or places[run.task, run.profile, run.setting] or ""
        placed.append(replace(run, section=(run.task, run.profile, data, run.setting)))
    return sorted(
        placed,
        key=lambda run: (run.task, run.profile, run.setting, run.method, run.sparsity, run.seed),
    )


def _divided(run: Run, common: frozenset[str]) -> Run:
    """Return a run with its overrides divided into those of the task and those of the method."""
    own = {k: v for k, v in run.overrides.items() if k in VARIANTS or k not in common}
    rest = {k: v for k, v in run.overrides.items() if k not in own}
    return replace(run, setting=_as_text(rest), variant=_as_text(own))


def _as_text(overrides: Mapping[str, Any]) -> str:
    return without_paths(", ".join(f"{k}={as_text(v)}" for k, v in sorted(overrides.items())))


def _those_that_count(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Return one run for each seed, of the newest versions, and why the others do not count."""
    notes = []
    for what in ("engine", "task", "pruner"):
        older = _older(runs, what)
        runs = [run for run in runs if run.run_id not in older]
        whose = "the" if what == "engine" else "its"
        notes += [f"{run} is of an older version of {whose} {what}" for run in sorted(older)]
    together: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        key = run.section, run.method, run.sparsity, run.seed
        together.setdefault(key, []).append(run)
    kept = []
    for same in together.values():
        *others, counts = sorted(same, key=_precedence)
        kept.append(_with_readings(counts, others[::-1]))
        notes += [
            f"{run.run_id}: another run of the same seed counts in its place"
            for run in others
            if run.recorded
        ]
    return kept, sorted(notes)


def _precedence(run: Run) -> tuple[Any, ...]:
    """Return the key by which runs of one seed are sorted: the last one counts.

    Runs with a result follow those without; runs without observations follow those with them.
    """
    has_result = run.recorded and run.status != "failed"
    return run.recorded, has_result, not run.observed, run.started, run.run_id


def _with_readings(run: Run, others: Iterable[Run]) -> Run:
    """Return a run with the readings, and nothing else, of an observed run of the same seed."""
    if run.observed or not run.tested:
        return run
    observed = next((other for other in others if other.observed and other.tested), None)
    if observed is None:
        return run
    readings = {key: observed.quantities[key] for key in READINGS}
    reasons = {key: why for key, why in observed.reasons.items() if key in READINGS}
    return replace(
        run, quantities={**run.quantities, **readings}, reasons={**run.reasons, **reasons}
    )


def _older(runs: Sequence[Run], what: str) -> set[str]:
    """Return the runs of which another run in the same place has a newer version.

    Versions of a plug-in are hashes: the one of the run that started last is the newest.
    """
    together: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.recorded:
            place = (run.section, run.pruner) if what == "pruner" else (run.section,)
            together.setdefault(place, []).append(run)
    older: set[str] = set()
    for same in together.values():
        newest = max(same, key=lambda run: (_number(run.versions[what]), run.started))
        version = newest.versions[what]
        older |= {run.run_id for run in same if run.versions[what] != version}
    return older


def _number(version: int | str) -> int:
    return version if isinstance(version, int) else 0


class Machines(NamedTuple):
    """The machines whose measurements are shown; others are not pooled with them."""

    run: str | None
    """Of costs of the whole run."""
    network: str | None
    """Of costs of the final network."""

    @classmethod
    def of_most(cls, runs: Sequence[Run]) -> Machines:
        """Return the machines that most of the runs, and of their networks, were measured on.

        A network that is still to be measured has no say, unless all are.
        """
        measured = [run for run in runs if run.quantities["inference_ms"] is not None]
        return cls(
            _most_frequent(run.machine for run in runs),
            _most_frequent(run.network_machine for run in measured or runs),
        )

    def has(self, run: Run, key: str) -> bool:
        """Return whether a quantity of a run was measured on the machine that is shown."""
        if COSTS[key].of == "network":
            return run.network_machine == self.network
        return run.machine == self.run


def _most_frequent(names: Iterable[str | None]) -> str | None:
    counted = Counter(name for name in names if name is not None)
    return min(counted, key=lambda name: (-counted[name], name)) if counted else None


def values(runs: Sequence[Run], key: str, place: Machines | None) -> tuple[dict[int, float], str]:
    """Return a quantity of runs by seed; if there is none, why.

    Args:
        runs: of one method, sparsity and section.
        key: the quantity.
        place: the machines whose measurements count; None for a key that depends on no machine.
    """
    by_machine = key in DEPENDS_ON_MACHINE and place is not None
    usable = [run for run in runs if place.has(run, key)] if by_machine and place else runs
    found = finite((run.seed, run.quantities[key]) for run in usable)
    return found, "" if found else _reason(runs, usable, key)


def undisturbed(runs: Iterable[Run], key: str) -> list[Run]:
    """Return the runs in which nothing disturbed the measurement of a quantity."""
    return [run for run in runs if key not in run.disturbed]


def finite(pairs: Iterable[tuple[int, Number | None]]) -> dict[int, float]:
    """Return values by seed, without those that are missing or not finite."""
    known = {seed: float(value) for seed, value in pairs if value is not None}
    return {seed: value for seed, value in known.items() if math.isfinite(value)}


def _reason(runs: Sequence[Run], usable: Sequence[Run], key: str) -> str:
    if not any(run.status in WITH_RESULT for run in runs):
        return "no run came to its end"
    measured = [run for run in runs if run.quantities[key] is not None]
    if not usable and measured:
        network = COSTS[key].of == "network"
        names = [run.network_machine if network else run.machine for run in measured]
        return f"measured on another machine: {next(name for name in names if name)}"
    for run in usable or runs:
        if key in run.reasons:
            return run.reasons[key]
    return _NOT_APPLICABLE.get(key, "not measured")


_NOT_APPLICABLE: Mapping[str, str] = {
    "node_sparsity": "no nodes are removed",
    **dict.fromkeys(BUDGET, "no budget requested"),
}
"""Why quantities are missing that have no reason in a record."""


def energy_is_estimated(runs: Iterable[Run], key: str) -> bool:
    """Return whether a quantity is only an estimate for these runs; it is not ranked then."""
    return key in ENERGY and not all(run.energy_measured for run in runs)
