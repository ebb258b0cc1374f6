"""What is to be run, and the identity of its result."""

from __future__ import annotations

import hashlib
import json
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness import conditions
from harness.budget import Budget
from harness.data.description import DataDescription
from harness.errors import RequestError, nearest, reading_data
from harness.initial_network import InitialNetwork, find_initial_network
from harness.places import file_of, place
from harness.registry import Entry, Registry, is_within
from harness.storage.files import shortened

ENGINE_VERSION = 2
"""Raised when the engine changes such that results are no longer comparable; see CHANGELOG.md."""

_LONGEST_NAME = 80
"""Bytes of a task's or a pruner's name in that of a folder, which has to fit into 255."""

PROFILES = ("smoke", "embedded", "paper")


@dataclass(frozen=True)
class Spec:
    """A request: what decides a run's result, as the user says it."""

    task: str
    pruner: str
    sparsity: float
    seed: int = 0
    profile: str = "embedded"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    plugins: Sequence[str] = ()
    budget: Budget | None = None
    """What the network may cost, in place of a sparsity, which is then 0."""

    def as_dict(self) -> dict[str, Any]:
        """Return the ``spec`` part of a record."""
        content = asdict(self) | {"plugins": list(self.plugins)}
        if self.budget is None:
            del content["budget"]
            return content
        return content | {"budget": str(self.budget)}

    @property
    def target(self) -> str:
        """The sparsity or the budget, as in the name of a run."""
        return f"{self.sparsity:g}" if self.budget is None else self.budget.label


@dataclass(frozen=True)
class Plan:
    """A valid spec with all that it means looked up, without importing torch."""

    spec: Spec
    """The request with a pruner's own sparsity, and without overrides that change nothing."""
    task: Entry
    pruner: Entry
    settings: Mapping[str, Any]
    """The task's settings in this profile, overrides applied."""
    options: Mapping[str, Any]
    """The pruner's options."""
    conditions: Mapping[str, Any]
    """The engine's settings (`harness.conditions`)."""
    data: DataDescription
    data_folder: Path
    start: InitialNetwork | None = None
    """The network that the run begins from; None for a new one."""
    timed_on: str | None = None
    """The device on which a budget of latency is measured; None for other budgets."""

    @property
    def identity(self) -> str:
        """A hash of all that decides the result: the same identity is the same result."""
        decisive = {
            "engine": ENGINE_VERSION,
            "task": [self.spec.task, self.task.version],
            "pruner": [self.spec.pruner, self.pruner.version],
            "sparsity": self.spec.sparsity,
            "seed": self.spec.seed,
            "profile": self.spec.profile,
            "overrides": dict(sorted(self.spec.overrides.items())),
            "data": self.data.sha256,
        }
        if self.start is not None:
            decisive["start"] = self.start.sha256
        if self.spec.budget is not None:
            decisive["budget"] = str(self.spec.budget)
        if self.timed_on is not None:
            decisive["timed_on"] = self.timed_on
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]

    @property
    def run_id(self) -> str:
        """The name of the run's folder: readable, and unique by its identity."""
        spec = self.spec
        task, pruner = (shortened(name, _LONGEST_NAME) for name in (spec.task, spec.pruner))
        return f"{task}-{pruner}-{spec.target}-seed{spec.seed}-{self.identity}"


def plan(
    registry: Registry,
    task: str,
    pruner: str,
    *,
    sparsity: float | None = None,
    budget: str | None = None,
    seed: int = 0,
    profile: str = "embedded",
    overrides: Mapping[str, str] | None = None,
    plugins: Sequence[str] = (),
    device: str = "auto",
    data_folder: Path = Path("data"),
    results: Path = Path("results"),
    describe: Callable[..., DataDescription] | None = None,
) -> Plan:
    """Look up and check everything that a request names.

    Args:
        registry: where names are looked up.
        task: a task's name.
        pruner: a pruner's name.
        sparsity: fraction of the prunable weights to remove; None for the task's default.
        budget: what the network may cost, in place of a sparsity, as in ``macs=0.25``.
        seed: not negative.
        profile: one that the task has.
        overrides: values by name, as text: of the task's settings, the pruner's options or the
            engine's conditions.
        plugins: the names of the plug-in files, for the record.
        device: the name of the device, on which a budget of latency depends.
        data_folder: where official data lie.
        results: where the run lies that this one begins from.
        describe: stands in for `describe_data`, where many plans share their data.

    Raises:
        RequestError: something is not known, not permitted or not there.
    """
    task_entry = registry.find("task", task)
    pruner_entry = registry.find("pruner", pruner)
    profiles = task_entry.arguments["profiles"]
    if profile not in profiles:
        raise RequestError(f"task {task!r} has no profile {profile!r}{nearest(profile, profiles)}")
    if seed < 0:
        raise RequestError(f"seed {seed} is negative; seeds are 0, 1, 2 ...")
    defaults = {
        "task": {**task_entry.arguments["settings"], **profiles[profile]},
        "pruner": dict(pruner_entry.options),
        "engine": dict(conditions.DEFAULTS),
    }
    choices = {**conditions.CHOICES, **(task_entry.arguments.get("choices") or {})}
    limits = dict(conditions.LIMITS)
    for entry in (task_entry, pruner_entry):
        limits |= entry.arguments.get("limits") or {}
    _refuse_ambiguity(defaults)
    changed: dict[str, Any] = {}
    values = {owner: dict(table) for owner, table in defaults.items()}
    for name, text in (overrides or {}).items():
        owner = next((owner for owner, table in defaults.items() if name in table), None)
        if owner is None:
            known = [name for table in defaults.values() for name in table]
            raise RequestError(
                f"unknown setting {name!r} for {task} with {pruner}{nearest(name, known)}"
            )
        value = parse_setting(
            name, text, defaults[owner][name], choices.get(name), limits.get(name)
        )
        values[owner][name] = value
        if value != defaults[owner][name]:
            # A record names no folder of this machine; the data's own hash tells them apart.
            is_folder = isinstance(value, str) and Path(value).is_absolute()
            changed[name] = Path(value).name if is_folder else value
    conditions.check(values["engine"])
    start = None
    if "start" in changed:
        start = find_initial_network(values["engine"]["start"], task, results)
        changed["start"] = values["engine"]["start"] = start.run
    limit = asked_budget(budget, sparsity, pruner_entry)
    spec = Spec(
        task=task,
        pruner=pruner,
        sparsity=asked_sparsity(sparsity, task_entry, pruner_entry) if limit is None else 0.0,
        seed=seed,
        profile=profile,
        overrides=changed,
        plugins=tuple(plugins),
        budget=limit,
    )
    return Plan(
        spec=spec,
        task=task_entry,
        pruner=pruner_entry,
        settings=values["task"],
        options=values["pruner"],
        conditions=values["engine"],
        data=(describe or describe_data)(task_entry, profile, values["task"], data_folder),
        data_folder=data_folder,
        start=start,
        timed_on=_timed_on(limit, device),
    )


def as_text(value: Any) -> str:
    """Return an override as ``--set`` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def describe_data(
    task: Entry, profile: str, settings: Mapping[str, Any], data_folder: Path
) -> DataDescription:
    """Return what a task's data are, without importing torch.

    Raises:
        RequestError: they are missing or damaged, or what describes them is not there.
    """
    describe = task.describe()
    try:
        with reading_data(task.name):
            description = describe(profile, settings, data_folder)
    except RequestError:
        raise
    except Exception as error:
        raise RequestError(f"task {task.name!r}: {_complaint(describe, error)}") from error
    if not isinstance(description, DataDescription):
        raise RequestError(
            f"task {task.name!r}: {place(describe)} gave a {type(description).__name__}, "
            "not a harness.data.description.DataDescription"
        )
    return description


def _complaint(function: Callable[..., Any], error: Exception) -> str:
    """Return what went wrong in a function of a task, and where in its file."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file_of(function)]
    at = f", in line {own[-1].lineno}" if own else ""
    what = str(error).partition("\n")[0]
    return f"{place(function)}{at}: {type(error).__name__}{': ' if what else ''}{what}"


def asked_budget(text: str | None, sparsity: float | None, pruner: Entry) -> Budget | None:
    """Return the budget that a method has to keep; None for a method that keeps none.

    Raises:
        RequestError: it is no budget, or there is a sparsity besides.
    """
    if text is None:
        return None
    budget = Budget.parse(text)
    if sparsity is not None:
        raise RequestError(f"a run has a sparsity or a budget, not both: {sparsity:g}, {budget}")
    arguments = pruner.arguments
    return budget if arguments.get("prunes", True) or arguments.get("obeys_budgets") else None


def _timed_on(budget: Budget | None, device: str) -> str | None:
    """Return the name of the device on which networks are timed, if a budget needs it."""
    if budget is None or budget.kind != "latency":
        return None
    # Imported here because finding a GPU imports torch, which takes seconds.
    from harness.device import find_device
    from harness.results.provenance import describe_device

    return describe_device(find_device(device))


def asked_sparsity(asked: float | None, task: Entry, pruner: Entry) -> float:
    """Return the fraction to remove: as asked, the task's own, or none for what does not prune.

    Raises:
        RequestError: it is no such fraction.
    """
    if asked is not None and not (math.isfinite(asked) and 0 <= asked < 1):
        raise RequestError(
            f"sparsity {asked:g} is outside [0, 1): "
            "it is the fraction of weights to remove, as in 0.98"
        )
    if not pruner.arguments.get("prunes", True):
        return 0.0
    return float(task.arguments.get("sparsity", 0.98) if asked is None else asked)


def _refuse_ambiguity(tables: Mapping[str, Mapping[str, Any]]) -> None:
    owners: dict[str, str] = {}
    for owner, table in tables.items():
        for name in table:
            if name in owners:
                raise RequestError(
                    f"the setting {name!r} belongs to both the {owners[name]} and the {owner}; "
                    "rename it in the plug-in"
                )
            owners[name] = owner


def parse_setting(
    name: str, text: str, default: Any, choices: Sequence[str] | None, limit: str | None = None
) -> Any:
    """Return the text as a value of the default's type.

    Args:
        name: for the error.
        text: the value as the user wrote it.
        default: gives the type; a whole number that is positive by default stays positive, and
            no other number becomes negative.
        choices: the permitted values, if they are listed.
        limit: the interval in which a number lies, in place of what the default says.

    Raises:
        RequestError: it is none, or not one of the choices.
    """
    if choices is not None and text not in choices:
        raise RequestError(f"{name}={text}: unknown value{nearest(text, choices)}")
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise RequestError(f"{name}={text}: is neither true nor false")
        return text == "true"
    try:
        value = type(default)(text)
    except ValueError:
        kind = {int: "a whole number", float: "a number"}[type(default)]
        raise RequestError(f"{name}={text}: is not {kind}, as in {name}={default}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestError(f"{name}={text}: is not a finite number")
    if limit is not None:
        if not is_within(value, limit):
            raise RequestError(f"{name}={text}: is outside {limit}")
        return value
    if isinstance(value, int) and value < 1 <= default:
        raise RequestError(f"{name}={text}: is less than 1")
    if isinstance(value, int | float) and value < 0 <= default:
        raise RequestError(f"{name}={text}: is negative")
    return value
