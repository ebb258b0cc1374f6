"""Plans every run of a suite, without importing torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.conditions import Conditions
from harness.data.description import DataDescription
from harness.errors import ImportFailed, RequestError, nearest
from harness.matrix.suite import Request, Suite, requests
from harness.record import Record
from harness.registry import Entry, Registry
from harness.results.records import unplanned_record
from harness.spec import (
    Plan,
    Spec,
    asked_budget,
    asked_sparsity,
    describe_data,
    plan,
    refuse_option,
    where_settings_are_listed,
)


@dataclass(frozen=True)
class Matrix:
    """Runs, planned.

    Attributes:
        name: of the suite.
        plans: by the run's name, in the order in which they are started.
        left_out: by a description of the run, a record with the reason why it cannot be planned,
            such as missing data. Its status is "failed" if a module does not import, else
            "skipped".
    """

    name: str
    plans: Mapping[str, Plan]
    left_out: Mapping[str, Record]

    @property
    def failed(self) -> bool:
        """Whether a run could not be planned because a module does not import."""
        return any(record["status"] == "failed" for record in self.left_out.values())


def plan_matrix(
    suite: Suite,
    registry: Registry,
    *,
    overrides: Mapping[str, str],
    plugins: Sequence[str],
    data_folder: Path,
    results: Path = Path("results"),
    device: str = "auto",
) -> Matrix:
    """Plan all runs of a suite.

    Args:
        suite: the request.
        registry: finds tasks and pruners.
        overrides: settings changed in every run.
        plugins: the names of the plug-in files.
        data_folder: folder that tasks read data from.
        results: folder of the run that others start from (``start=RUN``).
        device: the name of the device, on which budgets of latency depend.

    Raises:
        RequestError: a name or a value is unknown or not permitted.
    """
    describe = _Describer()
    plans: dict[str, Plan] = {}
    left_out: dict[str, Record] = {}
    wanted_runs = requests(suite, registry)
    _refuse_unknown_settings(wanted_runs, registry, overrides)
    for request in wanted_runs:
        try:
            wanted = _plan(
                request, registry, overrides, plugins, data_folder, results, device, describe
            )
        except RequestError as error:
            left_out[str(request)] = _left_out(request, registry, overrides, plugins, error)
        else:
            plans.setdefault(wanted.run_id, wanted)
    return Matrix(suite.name, plans, left_out)


def _refuse_unknown_settings(
    wanted: Sequence[Request], registry: Registry, overrides: Mapping[str, str]
) -> None:
    """Refuse a setting that no run has. A single run that lacks one is left out later."""
    pairings = {(request.task, request.pruner): request for request in wanted}.values()
    known = {name for pairing in pairings for name in _settings(pairing, registry)}
    given = {name: value for r in wanted for name, value in {**r.overrides, **overrides}.items()}
    for name, value in given.items():
        if name not in known:
            refuse_option(name, value)
            raise RequestError(
                f"unknown setting {name!r} for all of these runs{nearest(name, known)}"
                f"{where_settings_are_listed()}"
            )


def _settings(request: Request, registry: Registry) -> set[str]:
    """Return the names of all settings of a run."""
    arguments = registry.find("task", request.task).arguments
    options = registry.find("pruner", request.pruner).options
    return {*arguments["settings"], *options, *Conditions()}


def _plan(
    request: Request,
    registry: Registry,
    overrides: Mapping[str, str],
    plugins: Sequence[str],
    data_folder: Path,
    results: Path,
    device: str,
    describe: _Describer,
) -> Plan:
    profiles = registry.find("task", request.task).arguments["profiles"]
    if request.profile not in profiles:
        raise RequestError(f"task {request.task!r} has no profile {request.profile!r}")
    known = _settings(request, registry)
    if unknown := [name for name in (*overrides, *request.overrides) if name not in known]:
        raise RequestError(f"has no setting {unknown[0]!r}")
    return plan(
        registry,
        request.task,
        request.pruner,
        sparsity=request.sparsity,
        budget=request.budget,
        seed=request.seed,
        profile=request.profile,
        overrides={**request.overrides, **overrides},
        plugins=plugins,
        device=device,
        data_folder=data_folder,
        results=results,
        describe=describe,
    )


def _left_out(
    request: Request,
    registry: Registry,
    overrides: Mapping[str, str],
    plugins: Sequence[str],
    error: RequestError,
) -> Record:
    task = registry.find("task", request.task)
    pruner = registry.find("pruner", request.pruner)
    budget = asked_budget(request.budget, request.sparsity, pruner)
    spec = Spec(
        task=request.task,
        pruner=request.pruner,
        sparsity=asked_sparsity(request.sparsity, task, pruner) if budget is None else 0.0,
        seed=request.seed,
        profile=request.profile,
        overrides={**request.overrides, **overrides},
        plugins=tuple(plugins),
        budget=budget,
    )
    status: Literal["failed", "skipped"]
    status = "failed" if isinstance(error, ImportFailed) else "skipped"
    return unplanned_record(spec, task, pruner, status, str(error))


class _Describer:
    """Describes each task's data once, however many runs use them."""

    def __init__(self) -> None:
        self._known: dict[str, DataDescription | RequestError] = {}

    def __call__(
        self, task: Entry, profile: str, settings: Mapping[str, Any], data_folder: Path
    ) -> DataDescription:
        key = json.dumps([task.name, profile, dict(settings)], sort_keys=True)
        if key not in self._known:
            try:
                self._known[key] = describe_data(task, profile, settings, data_folder)
            except RequestError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, RequestError):
            raise known
        return known
