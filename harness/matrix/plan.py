"""A matrix: the runs of a suite, planned and written down, without importing torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.conditions import Conditions
from harness.data.description import DataDescription
from harness.errors import DamagedFile, ImportFailed, RequestError, nearest
from harness.matrix.suite import Request, Suite, requests
from harness.registry import Entry, Registry
from harness.results.head import asked_for, not_planned
from harness.spec import Plan, Spec, asked_sparsity, describe_data, plan, where_settings_are_listed
from harness.storage import files
from harness.storage.damage import Shape, misshapen
from harness.storage.store import Record

FOLDER = "matrices"
"""Where a results folder keeps what was asked for."""


@dataclass(frozen=True)
class Matrix:
    """What is to be run."""

    name: str
    plans: Mapping[str, Plan]
    """By the run's name, in the order in which they are to be carried out."""
    left_out: Mapping[str, Record]
    """What cannot be run, in words, and what stands for it, with the reason: missing data, say.

    Its status is "failed" where something does not import, and else "skipped".
    """

    @property
    def failed(self) -> bool:
        """Whether anything could not even be planned because it does not import."""
        return any(record["status"] == "failed" for record in self.left_out.values())


def plan_matrix(
    suite: Suite,
    registry: Registry,
    *,
    overrides: Mapping[str, str],
    plugins: Sequence[str],
    data_folder: Path,
    results: Path = Path("results"),
) -> Matrix:
    """Plan all runs of a suite.

    Args:
        suite: what is asked for.
        registry: where names are looked up.
        overrides: changes of every run.
        plugins: the names of the plug-in files.
        data_folder: where official data lie.
        results: where the run lies that others begin from.

    Raises:
        RequestError: something is not known or not permitted.
    """
    describe = _Describer()
    plans: dict[str, Plan] = {}
    left_out: dict[str, Record] = {}
    wanted_runs = requests(suite, registry)
    _refuse_unknown_settings(wanted_runs, registry, overrides)
    for request in wanted_runs:
        try:
            wanted = _plan(request, registry, overrides, plugins, data_folder, results, describe)
        except RequestError as error:
            left_out[str(request)] = _left_out(request, registry, overrides, plugins, error)
        else:
            plans.setdefault(wanted.run_id, wanted)
    return Matrix(suite.name, plans, left_out)


def _refuse_unknown_settings(
    wanted: Sequence[Request], registry: Registry, overrides: Mapping[str, str]
) -> None:
    """Refuse settings that no run has; a run that alone does not have one is left out later."""
    pairings = {(request.task, request.pruner): request for request in wanted}.values()
    known = {name for pairing in pairings for name in _settings(pairing, registry)}
    for name in {name for request in wanted for name in (*overrides, *request.overrides)}:
        if name not in known:
            raise RequestError(
                f"unknown setting {name!r} for all of these runs{nearest(name, known)}"
                f"{where_settings_are_listed()}"
            )


def _settings(request: Request, registry: Registry) -> set[str]:
    """Return the names of all settings that a run has."""
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
        seed=request.seed,
        profile=request.profile,
        overrides={**request.overrides, **overrides},
        plugins=plugins,
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
    spec = Spec(
        task=request.task,
        pruner=request.pruner,
        sparsity=asked_sparsity(request.sparsity, task, pruner),
        seed=request.seed,
        profile=request.profile,
        overrides={**request.overrides, **overrides},
        plugins=tuple(plugins),
    )
    status = "failed" if isinstance(error, ImportFailed) else "skipped"
    return not_planned(spec, task, pruner, status, str(error))


class _Describer:
    """Looks at each task's data once, however many runs use them."""

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


@dataclass(frozen=True)
class Written:
    """A matrix as a results folder remembers it."""

    name: str
    command: str
    runs: Mapping[str, Record]
    """By the run's name, what stands for it until it has a record."""
    left_out: Mapping[str, Record]
    """As of a `Matrix`."""


WRITTEN: Shape = {
    "name": str,
    "command": str,
    "runs": {"*": {}},
    "left_out": {"*": {"reason": str}},
}
"""How a file looks that remembers a matrix."""


def write_matrix(matrix: Matrix, results: Path, command: str) -> None:
    """Let a results folder remember a matrix, so that it is known what is still to come.

    Raises:
        RequestError: the folder cannot be written.
        RunFailed: the disk is full, and the like.
    """
    content = {
        "name": matrix.name,
        "command": command,
        "runs": {run_id: asked_for(plan) for run_id, plan in matrix.plans.items()},
        "left_out": matrix.left_out,
    }
    asked = list(matrix.plans) or list(matrix.left_out)
    identity = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]
    folder = results / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            longest = files.LONGEST_NAME - len(f"-{identity}.json{files.UNFINISHED}")
            path = folder / f"{files.shortened(matrix.name, longest)}-{identity}.json"
            files.write(path, json.dumps(content, indent=1).encode())
    except OSError as error:
        raise RequestError(f"results folder {results}: {error.strerror}") from error


def matrix_files(results: Path) -> list[Path]:
    """Return where a results folder remembers what was asked for."""
    return sorted((results / FOLDER).glob("*.json"))


def read_matrix(path: Path) -> Written:
    """Return a matrix that a results folder remembers.

    Raises:
        DamagedFile: it cannot be read, or is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DamagedFile(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        content = None
    if misshapen(content, WRITTEN) is not None:
        raise DamagedFile(f"{path}: is damaged; remove it, or ask for the matrix again")
    return Written(content["name"], content["command"], content["runs"], content["left_out"])


def reasons(left_out: Mapping[str, Record]) -> dict[str, str]:
    """Return why each run was left out."""
    return {what: str(record["reason"]) for what, record in left_out.items()}


def by_reason(given: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
    """Return runs by the reasons why they have no result."""
    grouped: dict[str, list[str]] = {}
    for what, reason in given.items():
        grouped.setdefault(reason, []).append(what)
    return grouped


def first_of(names: Iterable[str], most: int = 3) -> str:
    """Return some names, and how many more there are."""
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")
