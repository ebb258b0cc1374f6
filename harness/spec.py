"""Run requests: what a user asks for, what it means, and the identity of its result."""

from __future__ import annotations

import hashlib
import json
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.budget import Budget
from harness.conditions import Conditions
from harness.data.description import DataDescription
from harness.device import describe_device, find_device
from harness.errors import RequestError, file_of, nearest, place, reading_data
from harness.registry import Entry, Registry
from harness.settings import Recipe, Setting, as_text
from harness.storage.files import shortened
from harness.trained_network import ROLES, Role, TrainedNetwork, find_trained_network

__all__ = ["ENGINE_VERSION", "PROFILES", "Plan", "Spec", "as_text", "describe_data", "plan"]

ENGINE_VERSION = 2
"""Increased when a change of the engine makes results incomparable; see CHANGELOG.md."""

_LONGEST_NAME = 80
"""Bytes of a task's or a pruner's name in a folder's name, which has 255 at most."""

PROFILES = ("smoke", "embedded", "paper")


@dataclass(frozen=True)
class Spec:
    """A request: everything that decides a run's result, in the user's words."""

    task: str
    pruner: str
    sparsity: float
    seed: int = 0
    profile: str = "embedded"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    plugins: Sequence[str] = ()
    budget: Budget | None = None
    """What the network may cost, in place of a sparsity, which is then 0."""

    @property
    def name(self) -> str:
        """What names of runs begin with."""
        task, pruner = (shortened(name, _LONGEST_NAME) for name in (self.task, self.pruner))
        target = f"{self.sparsity:g}" if self.budget is None else self.budget.label
        return f"{task}-{pruner}-{target}-seed{self.seed}"

    def as_dict(self) -> dict[str, Any]:
        """Return the ``spec`` part of a record."""
        content = asdict(self) | {"plugins": list(self.plugins)}
        if self.budget is None:
            del content["budget"]
            return content
        return content | {"budget": str(self.budget)}


@dataclass(frozen=True)
class Plan:
    """A valid spec and everything that it refers to, found without importing torch."""

    spec: Spec
    """The request with the final sparsity, and without overrides that change nothing."""
    task: Entry
    pruner: Entry
    settings: Mapping[str, Any]
    """The task's settings in this profile, overrides applied."""
    options: Mapping[str, Any]
    """The pruner's options."""
    conditions: Conditions
    """The engine's settings."""
    data: DataDescription
    data_folder: Path
    start: TrainedNetwork | None = None
    """The network that the run begins from; None for a new one."""
    teacher: TrainedNetwork | None = None
    """The network that the run learns from, beside the data; None for the data alone."""
    references: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the code and the files that settings of the task name, by setting."""
    timed_on: str | None = None
    """The device whose times decide the result, by a budget of latency or by ``kernels=sparse``;
    None where no times do."""

    @property
    def recipe(self) -> Recipe:
        """How the network is trained."""
        return Recipe.of(self.settings)

    @property
    def identity(self) -> str:
        """A hash of everything that decides the result: equal identities mean equal results."""
        declared = {**self.task.declared, **self.pruner.declared, **Conditions.declared()}
        decisive = {
            "engine": ENGINE_VERSION,
            "task": [self.spec.task, self.task.version],
            "pruner": [self.spec.pruner, self.pruner.version],
            "sparsity": self.spec.sparsity,
            "seed": self.spec.seed,
            "profile": self.spec.profile,
            "overrides": {
                name: declared[name].as_hashed(value)
                for name, value in sorted(self.spec.overrides.items())
            },
            "data": self.data.sha256,
        }
        if self.start is not None:
            decisive["start"] = self.start.sha256
        if self.teacher is not None:
            decisive["teacher"] = self.teacher.sha256
        if self.spec.budget is not None:
            decisive["budget"] = str(self.spec.budget)
        if self.references:
            decisive["references"] = dict(sorted(self.references.items()))
        if self.timed_on is not None:
            decisive["timed_on"] = self.timed_on
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]

    @property
    def run_id(self) -> str:
        """The name of the run's folder: readable, and made unique by the identity."""
        return f"{self.spec.name}-{self.identity}"


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
        registry: the tasks and pruners.
        task: a task's name.
        pruner: a pruner's name.
        sparsity: fraction of the prunable weights to remove; None for the task's default.
        budget: what the network may cost, in place of a sparsity, as in ``macs=0.25``.
        seed: not negative.
        profile: one of the task's profiles.
        overrides: values by name, as text: of the task's settings, the pruner's options or the
            engine's conditions.
        plugins: the names of the plug-in files, for the record.
        device: the name of the device, on which a budget of latency and sparse kernels depend.
        data_folder: the folder that tasks read data from.
        results: the folder of the runs whose networks this one begins or learns from, if any.
        describe: replaces `describe_data`, so that many plans can share their data.

    Raises:
        RequestError: a name is unknown, a value is not permitted, or data are missing.
    """
    task_entry = registry.find("task", task)
    pruner_entry = registry.find("pruner", pruner)
    settings = task_entry.settings_in(profile)
    if seed < 0:
        raise RequestError(f"seed {seed} is negative; seeds are 0, 1, 2 ...")
    declared = {
        "task": settings,
        "pruner": pruner_entry.declared,
        "engine": Conditions.declared(),
    }
    _refuse_ambiguity(declared)
    changed: dict[str, Any] = {}
    values = {
        owner: {name: setting.default for name, setting in table.items()}
        for owner, table in declared.items()
    }
    for name, text in (overrides or {}).items():
        owner = next((owner for owner, table in declared.items() if name in table), None)
        if owner is None:
            refuse_option(name, text)
            known = [name for table in declared.values() for name in table]
            raise RequestError(
                f"unknown setting {name!r} for {task} with {pruner}{nearest(name, known)}"
                f"{where_settings_are_listed(task, pruner)}"
            )
        value = declared[owner][name].parse(text)
        values[owner][name] = value
        if value != declared[owner][name].default:
            # A record names no folder of this machine; the hash of the data identifies them.
            is_folder = isinstance(value, str) and Path(value).is_absolute()
            changed[name] = Path(value).name if is_folder else value
    networks: dict[Role, TrainedNetwork] = {}
    for role in ROLES:
        if role in changed:
            networks[role] = find_trained_network(role, values["engine"][role], task, results)
            changed[role] = values["engine"][role] = networks[role].run
    conditions = Conditions(**values["engine"])
    task_settings = task_entry.build_settings(values["task"])
    limit = asked_budget(budget, sparsity, pruner_entry)
    to_remove = 0.0
    if limit is None:
        to_remove = asked_sparsity(sparsity, task_entry, pruner_entry)
    if conditions.floor == 1 and (limit is not None or to_remove > 0):
        raise RequestError("floor=1 protects every weight, so nothing can be removed")
    spec = Spec(
        task=task,
        pruner=pruner,
        sparsity=to_remove,
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
        settings=task_settings,
        options=values["pruner"],
        conditions=conditions,
        data=(describe or describe_data)(task_entry, profile, task_settings, data_folder),
        data_folder=data_folder,
        start=networks.get("start"),
        teacher=networks.get("teacher"),
        references=references_of(task_entry, task_settings, data_folder),
        timed_on=_timed_on(limit, conditions, device),
    )


OPTIONS = ("task", "pruner", "sparsity", "budget", "seed", "profile")
"""What a request says besides its settings, each with an option of its own."""


def refuse_option(name: str, value: str) -> None:
    """Refuse a setting that is no setting, but has an option of its own.

    Raises:
        RequestError: the setting is one of `OPTIONS`.
    """
    if name in OPTIONS:
        raise RequestError(f"{name} is not a setting; use --{name} {value}")


def where_settings_are_listed(task: str = "NAME", pruner: str | None = None) -> str:
    """Return the end of a complaint about an unknown setting: the command that lists them."""
    of_pruner = "" if pruner is None else f", and list pruner {pruner}"
    return f" (see: python -m harness list task {task}{of_pruner})"


def references_of(task: Entry, settings: Mapping[str, Any], data_folder: Path) -> dict[str, str]:
    """Return hashes of the code and the files that settings of a task name, by setting.

    Raises:
        RequestError: there is no such code or file, or it cannot be read.
    """
    found = {
        name: setting.reference.fingerprint(name, settings[name], data_folder)
        for name, setting in task.declared.items()
        if setting.reference is not None
    }
    return {name: digest for name, digest in found.items() if digest is not None}


def describe_data(
    task: Entry, profile: str, settings: Mapping[str, Any], data_folder: Path
) -> DataDescription:
    """Describe a task's data, without importing torch.

    Raises:
        RequestError: the data are missing or damaged, or the task cannot describe them.
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
    """Return what went wrong in a task's function, and where in its file."""
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


def _timed_on(budget: Budget | None, conditions: Conditions, device: str) -> str | None:
    """Return the name of the device on which networks are timed, if the result depends on it.

    Finding a device imports torch.

    Raises:
        RequestError: the device has no sparse kernels, and the conditions ask for them.
    """
    sparse = conditions.kernels == "sparse"
    if not sparse and (budget is None or budget.kind != "latency"):
        return None
    found = find_device(device)
    if sparse and found.type != "cpu":
        raise RequestError(
            f"kernels=sparse needs the CPU: there are no sparse kernels for training on "
            f"{describe_device(found)}; use --device cpu"
        )
    return describe_device(found)


def asked_sparsity(asked: float | None, task: Entry, pruner: Entry) -> float:
    """Return the fraction to remove: the given one, the task's default, or 0 for a dense method.

    Raises:
        RequestError: the given value is not such a fraction.
    """
    if asked is not None and not (math.isfinite(asked) and 0 <= asked < 1):
        raise RequestError(
            f"sparsity {asked:g} is outside [0, 1): "
            "it is the fraction of weights to remove, as in 0.98"
        )
    if not pruner.arguments.get("prunes", True):
        return 0.0
    return float(task.arguments.get("sparsity", 0.98) if asked is None else asked)


def _refuse_ambiguity(declared: Mapping[str, Mapping[str, Setting]]) -> None:
    owners: dict[str, str] = {}
    for owner, table in declared.items():
        for name in table:
            if name in owners:
                raise RequestError(
                    f"the setting {name!r} belongs to both the {owners[name]} and the {owner}; "
                    "rename it in the plug-in"
                )
            owners[name] = owner
