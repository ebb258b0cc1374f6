"""The functions of ``import harness``; the command line is a thin layer over them.

They import torch only when there is something to run.
"""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from harness.errors import RequestError, RunFailed
from harness.own_task import OwnTask, names_and_plugins
from harness.record import Record
from harness.registry import Registry
from harness.results.records import pending_record
from harness.signals import Stop
from harness.spec import Plan, as_text, plan
from harness.storage.files import distinct
from harness.storage.store import Store, outcome
from harness.tracking.following import FOLDER, Following, followed_run
from harness.tracking.live import tracked

AnyPath = str | Path
Names = str | Iterable[str]
"""``"all"``, one name, or several."""


def run_pairing(
    task: str | OwnTask,
    pruner: str,
    *,
    sparsity: float | None = None,
    budget: str | None = None,
    seed: int = 0,
    profile: str = "embedded",
    settings: Mapping[str, Any] | None = None,
    results: AnyPath = "results",
    data: AnyPath = "data",
    plugins: AnyPath | Iterable[AnyPath] = (),
    device: str = "auto",
    again: bool = False,
    checkpoint_every: float = 60.0,
    track: Names = (),
    progress: TextIO | None = None,
) -> Record:
    """Run one pruning method on one task, and return the record.

    A run that is done is not repeated, and one that was interrupted is resumed: runs have the
    same identity as on the command line.

    Args:
        task: name of the task, or a task that `task_from` made.
        pruner: name of the pruning method.
        sparsity: fraction of the prunable weights to remove; None for the task's default.
        budget: what the network may cost, in place of a sparsity, as in ``"macs=0.25"``; see
            `harness.budget`.
        seed: 0, 1, 2 ...
        profile: ``"smoke"``, ``"embedded"`` or ``"paper"``.
        settings: values by name, as in ``{"epochs": 20}``, of the task's settings, the pruner's
            options or the engine's conditions.
        results: folder of runs and their records.
        data: folder of official data.
        plugins: Python files that define more tasks or pruners.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ...
        again: whether to repeat a run that is done; the new result replaces the old one.
        checkpoint_every: seconds between two checkpoints.
        track: names of trackers that follow the run, such as ``"tensorboard"``.
        progress: a stream for lines of progress, such as `sys.stderr`; None for none.

    Returns:
        The record, as in ``record.json``.

    Raises:
        RequestError: the request is wrong; the message says what and why.
        RunFailed: the run failed; its folder holds the traceback.
        Interrupted: Ctrl-C was pressed; the same call resumes the run.
    """
    (name,), files = names_and_plugins([task], plugin_files(plugins))
    registry, wanted = plan_pairing(
        name,
        pruner,
        sparsity=sparsity,
        budget=budget,
        seed=seed,
        profile=profile,
        settings=settings,
        results=results,
        data=data,
        plugins=files,
        device=device,
    )
    store = Store(Path(results))

    def report(line: str) -> None:
        if progress is not None:
            print(line, file=progress, flush=True)

    def carry_out(store: Store) -> Record:
        stop = Stop()
        with stop.listening():
            # Importing torch takes seconds, so the request is checked first.
            from harness.device import find_device
            from harness.engine.run_plan import run_plan

            chosen = find_device(device)
            for entry in (wanted.task, wanted.pruner):
                entry.load()
            return run_plan(wanted, registry, store, chosen, report, stop, checkpoint_every)

    is_repeated = again and wanted.run_id in store.run_ids()
    chosen = store.again() if is_repeated else store
    run = followed_run(pending_record(wanted), chosen.folder / wanted.run_id)
    with tracked(as_list(track), [run], store.folder):
        record = None if is_repeated else store.record(wanted.run_id)
        if record is not None:
            report(f"{wanted.run_id} is already done")
            return record
        record = carry_out(chosen)
    return _repeat(wanted, store, record, report) if is_repeated else record


def plan_pairing(
    task: str,
    pruner: str,
    *,
    sparsity: float | None,
    budget: str | None,
    seed: int,
    profile: str,
    settings: Mapping[str, Any] | None,
    results: AnyPath,
    data: AnyPath,
    plugins: AnyPath | Iterable[AnyPath],
    device: str = "auto",
    registry: Registry | None = None,
) -> tuple[Registry, Plan]:
    """Return a registry and the plan of a run; the arguments are those of `run_pairing`.

    Without a registry, a new one reads the registered tasks and pruners and the plug-ins.

    Raises:
        RequestError: a name or a value is unknown or not permitted.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise RequestError(f"seed {seed!r} is not a whole number")
    if not isinstance(budget, str | None):
        raise RequestError(f"budget {budget!r} is not a text, as in 'macs=0.25'")
    if isinstance(sparsity, bool) or not isinstance(sparsity, float | int | None):
        raise RequestError(f"sparsity {sparsity!r} is not a number")
    files = plugin_files(plugins)
    registry = Registry(files) if registry is None else registry
    return registry, plan(
        registry,
        task,
        pruner,
        sparsity=sparsity,
        budget=budget,
        seed=seed,
        profile=profile,
        overrides=as_texts(settings),
        plugins=[file.name for file in files],
        device=device,
        data_folder=Path(data),
        results=Path(results),
    )


def _repeat(wanted: Plan, store: Store, new: Record, report: Callable[[str], None]) -> Record:
    """Put the new record of a repeated run in place of the old one, and compare the two."""
    try:
        old = store.record(wanted.run_id)
    except RequestError as error:
        report(f"{error}; it is replaced")
        old = None
    store.replace(wanted.run_id)
    if old is not None:
        verdict = "equal to" if outcome(old) == outcome(new) else "different from"
        report(f"the new result is {verdict} the old one, apart from costs")
    return new


def run_matrix(
    *,
    tasks: str | OwnTask | Iterable[str | OwnTask] | None = None,
    pruners: Names | None = None,
    sparsities: Iterable[float] | None = None,
    budgets: Iterable[str] | None = None,
    seeds: Iterable[int] | None = None,
    suite: AnyPath | None = None,
    profile: str | None = None,
    settings: Mapping[str, Any] | None = None,
    results: AnyPath = "results",
    data: AnyPath = "data",
    plugins: AnyPath | Iterable[AnyPath] = (),
    executor: str = "local",
    device: str = "auto",
    jobs: int | None = None,
    exclusive: bool = False,
    hours: float | None = None,
    gigabytes: float | None = None,
    partition: str | None = None,
    measure: str | None = None,
    again: bool = False,
    checkpoint_every: float = 60.0,
    track: Names = (),
    progress: TextIO | None = None,
) -> dict[str, Any]:
    """Run every combination of tasks, pruners, sparsities and seeds, each in its own process.

    Runs that are done are not repeated, and runs that were interrupted are resumed.

    Args:
        tasks: names, tasks that `task_from` made, or ``"all"``. With a suite, they select its runs
            on these tasks; without one, they are needed.
        pruners: names, or ``"all"``. With a suite, they replace its own; without one, they are
            needed.
        sparsities: fractions of weights to remove; None for those of the suite or the task.
        budgets: what the networks may cost, in place of sparsities, as in ``["macs=0.5"]``.
        seeds: None for those of the suite, or 0.
        suite: name of a suite of this project, or a suite file.
        profile: None for that of the suite, or ``"embedded"``.
        settings: values by name that apply to every run.
        results: folder of runs and their records.
        data: folder of official data.
        plugins: Python files that define more tasks or pruners.
        executor: ``"local"``, ``"slurm"``, ``"ray"``, or ``"debug"``: in this process.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ...
        jobs: runs at a time; None for as many as the machine has room for.
        exclusive: whether to run one at a time, so that nothing disturbs its timings.
        hours: stop a run that takes longer.
        gigabytes: stop a run that needs more memory.
        partition: partition of the cluster.
        measure: when the networks are measured: ``"end"``, after all training, alone on the
            machine; ``"during"``, each after its run, beside other runs; or ``"never"``. None for
            what the suite says, or else ``"end"``; ``"during"`` on clusters and in the profile
            ``"smoke"``.
        again: whether to repeat runs that are done; new results replace old ones.
        checkpoint_every: seconds between two checkpoints.
        track: names of trackers that follow the runs, such as ``"tensorboard"``.
        progress: a stream for a progress display, such as `sys.stderr`; None for none.

    Returns:
        The ``name`` of the matrix; ``runs``, the ``status`` and ``reason`` of each run by name; the
        number of runs that are still ``waiting``, which is not 0 if Ctrl-C was pressed; the number
        of finished runs whose networks are still ``unmeasured``; and ``left_out``, the reasons why
        runs could not be planned.

    Raises:
        RequestError: the request is wrong; the message says what and why.
    """
    from harness.matrix.executor import Resources
    from harness.matrix.request import MatrixRequest, as_object
    from harness.matrix.suite import select_runs

    for name, limit in (("jobs", jobs), ("hours", hours), ("gigabytes", gigabytes)):
        if limit is not None and not limit > 0:
            raise RequestError(f"{name}: {limit!r} is not greater than 0")
    files = plugin_files(plugins)
    named = None
    if tasks is not None:
        each = [tasks] if isinstance(tasks, str | OwnTask) else list(tasks)
        named, files = names_and_plugins(each, files)
    axes = {
        "tasks": named,
        "pruners": pruners,
        "sparsities": sparsities,
        "budgets": budgets,
        "seeds": seeds,
    }
    listed = {name: as_list(axis) for name, axis in axes.items() if axis is not None}
    texts, trackers = as_texts(settings), as_list(track)
    command = as_command(
        "matrix",
        {
            "suite": suite,
            **{name: ",".join(map(str, axis)) for name, axis in listed.items()},
            "profile": profile,
            "results": results,
            "data": data,
            "executor": executor,
            "device": device,
            "jobs": jobs,
            "exclusive": exclusive,
            "hours": hours,
            "gigabytes": gigabytes,
            "partition": partition,
            "measure": measure,
            "again": again,
            "checkpoint-every": checkpoint_every,
            "track": ",".join(trackers) or None,
        },
        texts,
        files,
    )
    request = MatrixRequest(
        select_runs(
            None if suite is None else str(suite),
            {name: "all" if axis == ["all"] else axis for name, axis in listed.items()},
            profile,
            "python",
            "Given in Python",
        ),
        command=command,
        settings=texts,
        plugins=files,
        data=Path(data),
        results=Path(results),
        executor=executor,
        resources=Resources(
            jobs=jobs,
            device=device,
            exclusive=exclusive,
            time_limit=None if hours is None else 3600 * hours,
            memory_limit=None if gigabytes is None else int(1e9 * gigabytes),
            partition=partition,
        ),
        again=again,
        checkpoint_every=checkpoint_every,
        measure=measure,
        track=trackers,
    )
    matrix = request.plan()
    return as_object(matrix, request.run(matrix, progress))


def write_report(
    results: AnyPath = "results",
    out: AnyPath = "report",
    *,
    measured_on: str = "",
    formats: Names = (),
) -> Path:
    """Write tables, figures and one HTML file about a results folder.

    Args:
        results: folder of runs and their records.
        out: folder for the report.
        measured_on: use the measurements of devices whose name contains this text.
        formats: further formats of the tables, and of the row of each run: ``"json"``,
            ``"parquet"``.

    Returns:
        The path of the HTML file.

    Raises:
        RequestError: there are no results, a format is not available, or the report cannot be
            written.
    """
    # Imported by name, as tasks and pruners are: the engine does not depend on the report.
    report = importlib.import_module("reports.report")
    page: Path = report.write(Path(results), Path(out), measured_on, as_list(formats))
    return page


def track_runs(
    runs: AnyPath | Iterable[AnyPath], to: Names, *, results: AnyPath = "results"
) -> dict[str, Path]:
    """Tell trackers what finished runs have done; what they were told before is left out.

    Args:
        runs: each a run's folder, its name, the beginning of its name, or its hash.
        to: names of trackers, such as ``"tensorboard"``.
        results: folder of the runs, if they are given by name, and of the trackers' files.

    Returns:
        The folder of the files of each tracker, by name.

    Raises:
        RequestError: there is no such run or tracker, or a tracker is not installed.
        RunFailed: a tracker has failed.
    """
    store, complaints = Store(Path(results)), list[str]()
    wanted = [runs] if isinstance(runs, str | Path) else runs
    folders = [store.locate(str(run)) for run in wanted]
    found = [followed_run(store.find(str(folder)), folder) for folder in folders]
    names = as_list(to)
    Following(names, found, store.folder, complaints.append).catch_up(last=True)
    if complaints:
        raise RunFailed("; ".join(complaints))
    return {name: store.folder / FOLDER / name for name in names}


def plugin_files(plugins: AnyPath | Iterable[AnyPath]) -> list[Path]:
    """Return one plug-in file, or several, as a list with each once."""
    return distinct(map(Path, [plugins] if isinstance(plugins, str | Path) else plugins))


def as_texts(settings: Mapping[str, Any] | None) -> dict[str, str]:
    """Return settings as ``--set`` takes them."""
    return {name: as_text(value) for name, value in (settings or {}).items()}


def as_list(names: str | Iterable[Any]) -> list[Any]:
    """Return one name, or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


_DEFAULTS: Mapping[str, str] = {
    "results": "results",
    "data": "data",
    "executor": "local",
    "device": "auto",
    "checkpoint-every": "60.0",
}
"""Options that a command need not name."""


def as_command(
    command: str,
    options: Mapping[str, Any],
    settings: Mapping[str, str],
    plugins: Iterable[Path],
) -> str:
    """Return a command line that makes a request again.

    Args:
        command: its name, as in ``matrix``.
        options: values by name; those that are None, False or the default are left out.
        settings: changes, as ``--set`` takes them.
        plugins: files, as ``--plugin`` takes them.
    """
    words = ["python", "-m", "harness", command]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False and str(value) != _DEFAULTS.get(name):
            words += [f"--{name}", str(value)]
    for name, text in settings.items():
        words += ["--set", f"{name}={text}"]
    for plugin in plugins:
        words += ["--plugin", str(plugin)]
    return shlex.join(words)
