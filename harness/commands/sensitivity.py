"""``sensitivity``: how much each layer or group of channels can lose before the metric falls."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO, cast

from harness.api import AnyPath, as_texts, plan_pairing, plugin_files, run_pairing
from harness.commands import options
from harness.conditions import Conditions
from harness.errors import RequestError, Skip, nearest, warn
from harness.record import Record
from harness.registry import Entry, Registry
from harness.results.sensitivity import Scan, Sensitivity, summarise_sensitivity
from harness.results.summary import task_title
from harness.spec import plan, refuse_option, where_settings_are_listed
from harness.storage.store import Store
from harness.trained_network import find_trained_network

PRUNERS = ("magnitude_u", "magnitude_s")
"""Weights and channels by their magnitude."""

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

TOLERANCE = 0.01

EXAMPLES = """\
examples:
  python -m harness sensitivity --task digits
  python -m harness sensitivity --task digits --pruner crop_s --run digits-dense --out sensitivity

The given fractions are removed from one layer or group of coupled channels at a time, masked or cut
as in a run, the lowest scores first. The network is not trained in between, and is evaluated on the
validation data. A pruner gives what is removed (weights or channels) and the criterion. Without
--run, the dense run of --seed and --profile is used, and is carried out first if it is not done.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} --task NAME [option ...]"
    parser.epilog = EXAMPLES
    what = parser.add_argument_group("what to try")
    what.add_argument("--task", metavar="NAME", help="see: python -m harness list tasks")
    what.add_argument(
        "--pruner",
        action="append",
        metavar="NAME",
        help="gives units and criterion; may be repeated "
        f"(default: {PRUNERS[0]} for weights and {PRUNERS[1]} for channels)",
    )
    what.add_argument(
        "--run",
        metavar="RUN",
        help="a finished dense run: its folder, the beginning of its name, or its hash "
        "(default: the run of --seed, --profile and --set)",
    )
    what.add_argument(
        "--fractions",
        type=_fractions,
        default=FRACTIONS,
        metavar="F,G",
        help="what is removed from each part (default: 0.1,0.2, ... 0.9)",
    )
    what.add_argument(
        "--tolerance",
        type=options.number,
        default=TOLERANCE,
        metavar="T",
        help="the loss that is tolerated, as a fraction of the metric of the whole network "
        f"(default: {TOLERANCE:g})",
    )
    what.add_argument(
        "--seed", type=options.whole_number, metavar="N", help="of the dense run (default: 0)"
    )
    what.add_argument(
        "--profile",
        metavar="NAME",
        help="of the dense run: smoke, embedded or paper (default: embedded)",
    )
    options.add_set(what)
    options.add_plugin(what)
    where = parser.add_argument_group("where and how")
    options.add_where(where)
    where.add_argument(
        "--out", type=options.path, metavar="DIR", help="also write a heat map and JSON there"
    )
    options.add_json(where, "print one JSON document instead of the tables")


def execute(arguments: argparse.Namespace) -> int:
    """Print the tables, or the document, and write the figures."""
    if not arguments.task:
        raise RequestError("--task is missing (see: python -m harness list tasks)")
    found = measure_sensitivity(
        arguments.task,
        arguments.pruner,
        run=arguments.run,
        fractions=arguments.fractions,
        tolerance=arguments.tolerance,
        seed=arguments.seed,
        profile=arguments.profile,
        settings=options.parse_settings(arguments.set),
        results=arguments.results,
        data=arguments.data,
        plugins=arguments.plugin,
        device=arguments.device,
        checkpoint_every=arguments.checkpoint_every,
        out=arguments.out,
        progress=sys.stderr,
    )
    print(json.dumps(found) if arguments.json else summarise_sensitivity(found))
    return 0


def measure_sensitivity(
    task: str,
    pruners: str | Iterable[str] | None = None,
    *,
    run: str | None = None,
    fractions: Iterable[float] = FRACTIONS,
    tolerance: float = TOLERANCE,
    seed: int | None = None,
    profile: str | None = None,
    settings: Mapping[str, Any] | None = None,
    results: AnyPath = "results",
    data: AnyPath = "data",
    plugins: AnyPath | Iterable[AnyPath] = (),
    device: str = "auto",
    checkpoint_every: float = 60.0,
    out: AnyPath | None = None,
    progress: TextIO | None = None,
) -> Sensitivity:
    """Return how much each layer or group of channels of a dense network can lose alone.

    Args:
        task: name of the task.
        pruners: methods that give units and criterion; None for weights and channels by their
            magnitude.
        run: a finished dense run of the task; None for that of ``seed``, ``profile`` and
            ``settings``, which is carried out first if it is not done.
        fractions: what is removed from each part.
        tolerance: the loss that is tolerated, as a fraction of the metric of the whole network.
        seed: of the dense run; None for 0.
        profile: of the dense run; None for ``"embedded"``.
        settings: values by name: of the dense run, or options of the pruners.
        results: folder of runs and their records.
        data: folder of official data.
        plugins: Python files that define more tasks or pruners.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ...
        checkpoint_every: seconds between two checkpoints of the dense run.
        out: folder for heat maps and JSON; None for none.
        progress: a stream for lines of progress, such as `sys.stderr`; None for none.

    Raises:
        RequestError: the request is wrong; the message says what and why.
        RunFailed: the dense run failed, or a criterion returned no scores.
        Interrupted: Ctrl-C was pressed during the dense run; the same call resumes it.
    """
    ascending = _in_order(fractions)
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise RequestError(f"tolerance {tolerance:g} must be a number of at least 0, as in 0.01")
    files = plugin_files(plugins)
    registry, store = Registry(files), Store(Path(results))
    names = [pruners] if isinstance(pruners, str) else list(dict.fromkeys(pruners or PRUNERS))
    own, of_run = _divided(as_texts(settings), registry.find("task", task), names, registry)
    record = None
    if run is not None:
        record = _trained(run, task, store, seed, profile, of_run)
        seed, profile = record["spec"]["seed"], record["spec"]["profile"]
        of_run = as_texts(record["spec"]["overrides"])
    dense: dict[str, Any] = {"seed": seed or 0, "profile": profile or "embedded"}
    where: dict[str, Any] = {"results": results, "data": data, "plugins": files, "device": device}
    if record is None:  # a wrong request is refused before torch is imported
        plan_pairing(task, "dense", sparsity=None, budget=None, settings=of_run, **dense, **where)
    plans = [
        plan(
            registry,
            task,
            name,
            overrides={**_what_criteria_see(of_run, registry.find("task", task)), **own[name]},
            data_folder=Path(data),
            **dense,
        )
        for name in names
    ]
    if record is not None and plans[0].data.sha256 != record["data"]["sha256"]:
        raise RequestError(
            f"run={run} was trained on other data ({record['data']['name']}) than are here "
            f"({plans[0].data.name}); --data names their folder"
        )
    if out is not None:
        _make(Path(out))

    from harness.device import find_device
    from harness.engine.sensitivity import SensitivityScan, what_is_tried
    from harness.network import build_task

    built = build_task(plans[0], find_device(device))
    tried = [what_is_tried(each, registry, built) for each in plans]

    def report(line: str) -> None:
        if progress is not None:
            print(line, file=progress, flush=True)

    if record is None:
        record = run_pairing(
            task,
            "dense",
            settings=of_run,
            checkpoint_every=checkpoint_every,
            progress=progress,
            **dense,
            **where,
        )
        run = record["run_id"]
    network = find_trained_network("run", str(run), task, store.folder)
    scanner = SensitivityScan(network, plans[0], built, report)
    scans = _scans(
        {
            name: partial(scanner.scan, each, ascending, tolerance)
            for name, each in zip(names, tried, strict=True)
        },
        task,
        all_are_wanted=pruners is not None,
    )
    found: Sensitivity = {
        "run": network.run,
        "task": task,
        "title": task_title(record),
        "profile": record["spec"]["profile"],
        "seed": record["spec"]["seed"],
        "data": record["data"],
        "metric": record["quality"]["metric"],
        "goal": record["quality"]["goal"],
        "dense": scanner.dense,
        "tolerance": tolerance,
        "fractions": ascending,
        "scans": scans,
    }
    if out is not None:
        # Imported by name, as in `harness.api.write_report`.
        importlib.import_module("reports.sensitivity").write(found, Path(out))
    return found


SEEN = ("statistics", "scoring")
"""The conditions that decide what a criterion sees."""


def _fractions(text: str) -> tuple[float, ...]:
    return tuple(options.number(part) for part in text.split(",") if part)


def _in_order(fractions: Iterable[float]) -> list[float]:
    """Return different fractions in increasing order.

    Raises:
        RequestError: there is none, or one is not a fraction.
    """
    asked = sorted(set(map(float, fractions)))
    if not asked:
        raise RequestError("there is no fraction to remove, as in 0.1,0.5")
    for each in asked:
        if not 0 < each < 1:
            raise RequestError(
                f"fraction {each:g} is outside (0, 1): it is the share of each part to remove, "
                "as in 0.5"
            )
    return asked


def _divided(
    settings: Mapping[str, str], task: Entry, pruners: Sequence[str], registry: Registry
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return the options of each pruner, and the settings of the dense run.

    Raises:
        RequestError: a setting is neither, or a pruner is unknown.
    """
    options_of = {name: registry.find("pruner", name).declared for name in pruners}
    known = {*task.declared, *Conditions.declared(), *itertools.chain(*options_of.values())}
    for name, value in settings.items():
        if name not in known:
            refuse_option(name, value)
            raise RequestError(
                f"unknown setting {name!r} for {task.name} with {', '.join(pruners)}"
                f"{nearest(name, known)}{where_settings_are_listed(task.name)}"
            )
    own = {
        pruner: {name: value for name, value in settings.items() if name in declared}
        for pruner, declared in options_of.items()
    }
    of_run = {k: v for k, v in settings.items() if not any(k in each for each in own.values())}
    return own, of_run


def _what_criteria_see(settings: Mapping[str, str], task: Entry) -> dict[str, str]:
    """Return those of a dense run's settings that make its network, or are seen by criteria."""
    return {k: v for k, v in settings.items() if k in task.declared or k in SEEN}


def _trained(
    run: str,
    task: str,
    store: Store,
    seed: int | None,
    profile: str | None,
    settings: Mapping[str, str],
) -> Record:
    """Return the record of a run that the user names.

    Raises:
        RequestError: it has no dense network of the task, or the user also asks for another one.
    """
    network = find_trained_network("run", run, task, store.folder)
    record = Store(network.weights.parent.parent).find(network.weights.parent.name)
    other = [*settings]
    for name, asked in (("seed", seed), ("profile", profile)):
        if asked is not None and asked != cast(Mapping[str, Any], record["spec"])[name]:
            other.append(f"{name}={asked}")
    if other:
        raise RequestError(
            f"run={run} is a network that is trained already; {', '.join(other)} would ask for "
            "another"
        )
    return record


def _scans(
    by_pruner: Mapping[str, Callable[[], Scan]], task: str, *, all_are_wanted: bool
) -> list[Scan]:
    """Return the scans of all pruners.

    Raises:
        Skip: one is not possible, and all are wanted, or none is possible.
    """
    scans: list[Scan] = []
    for number, (pruner, scan) in enumerate(by_pruner.items(), start=1):
        try:
            scans.append(scan())
        except Skip as error:
            complaint = f"{pruner} on {task}: {error}"
            if all_are_wanted or (number == len(by_pruner) and not scans):
                raise Skip(complaint) from error
            warn(complaint)
    return scans


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"folder {folder}: {error.strerror}") from error
