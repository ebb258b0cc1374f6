"""The runs that the documents are about, in CSV files of `benchmarks/results`.

There is a file for each suite, with a row for each of its runs, which has what tables and figures
need of the run's record. A run that has not been carried out has the status "missing".
``readings.csv`` has what the triggers of observed runs read. Numbers have seven digits. Other files
have what `benchmarks.verdicts`, `benchmarks.difficulty` and `benchmarks.speed` found.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from harness.data.description import DataDescription
from harness.matrix.suite import find_suite, requests
from harness.record import COSTS, Data, Record
from harness.registry import Registry
from harness.results.records import pending_record
from harness.spec import Plan, describe_data, plan
from harness.storage import files
from reports.claims import CLAIMS
from reports.groups import Section, sections
from reports.quantities import QUANTITIES, READINGS
from reports.results import Results, Run, divided, run_of, with_sections

FOLDER = Path(__file__).resolve().parent.parent / "results"

PLAIN = (
    *("run_id", "status", "reason", "task", "task_title", "profile", "pruner", "pruner_title"),
    *("kind", "setting", "variant", "sparsity", "budget", "seed", "source", "data_name"),
    *("data_sha256", "stands_in", "metric", "goal", "baseline", "observed", "energy_measured"),
    *("recorded", "machine", "network_machine", "fixed_moment", "one_shot"),
)
"""The columns that are attributes of `reports.results.Run`."""

UNKNOWN = DataDescription("synthetic", "", "")
"""The data of a run that has not been carried out."""

VERSIONS = ("engine", "task", "pruner")
METRICS = ("test", "validation")


def quantities() -> list[str]:
    """Return the quantities that are kept: those of tables, of figures and of the claims."""
    claims = tomllib.loads(CLAIMS.read_text(encoding="utf-8"))["claim"]
    tests = [test for claim in claims for test in claim["test"]]
    named = {test[key] for test in tests for key in ("quantity", "equal") if key in test}
    main = [name for name, cost in COSTS.items() if cost.main]
    return sorted({*named, *main, "train_macs", "epochs"})


def sections_of(suites: Iterable[str]) -> list[Section]:
    """Return the published runs of some suites in comparable sections; each run counts once."""
    runs: dict[tuple[object, ...], Run] = {}
    for run in (run for suite in suites for run in published(suite)):
        other = runs.setdefault(_request(run), run)
        if run.recorded and not other.recorded:
            runs[_request(run)] = run
    return sections(Results(with_sections(list(runs.values())), {}, {}))


@functools.cache
def published(suite: str) -> Sequence[Run]:
    """Return the published runs of a suite; none if nothing of it has been published."""
    readings = _readings()
    return [_run(row, readings) for row in read_rows(suite)]


def _readings() -> dict[str, dict[str, dict[float, float | None]]]:
    """Return what triggers read, by run, trigger and number of epochs."""
    found: dict[str, dict[str, dict[float, float | None]]] = {}
    for row in read_rows("readings"):
        of_run = found.setdefault(row["run_id"], {}).setdefault(row["trigger"], {})
        of_run[float(row["epoch"])] = float(row["value"]) if row["value"] else None
    return found


def _run(row: Mapping[str, str], readings: Mapping[str, Any]) -> Run:
    hints = get_type_hints(Run)
    unknown = dict.fromkeys((*QUANTITIES, *READINGS))
    plain = {name: row[name] if row[name] or hints[name] is str else None for name in PLAIN}
    content = {
        **plain,
        "versions": {what: _version(row[f"{what}_version"]) for what in VERSIONS},
        "overrides": json.loads(row["overrides"]),
        "settings": [],
        "metrics": {name: row[name] or None for name in METRICS},
        "quantities": {**unknown, **{name: row.get(name) or None for name in quantities()}},
        "reasons": {},
        "disturbed": row["disturbed"].split(),
        "started": "",
        "pruned_after": row["pruned_after"].split(),
        "readings": readings.get(row["run_id"], {}),
        "channels_left": json.loads(row["channels_left"]),
    }
    return msgspec.convert(content, Run, strict=False)


def _version(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def row_of(run: Run) -> dict[str, str]:
    """Return the row of a run."""
    return {
        **{name: _cell(getattr(run, name)) for name in PLAIN},
        **{f"{what}_version": str(run.versions[what]) for what in VERSIONS},
        "overrides": json.dumps(run.overrides, sort_keys=True),
        **{name: _cell(run.metrics[name]) for name in METRICS},
        "disturbed": " ".join(sorted(run.disturbed & {*quantities()})),
        "pruned_after": " ".join(map(_cell, run.pruned_after)),
        "channels_left": json.dumps({k: float(_cell(v)) for k, v in run.channels_left.items()}),
        **{name: _cell(run.quantities[name]) for name in quantities()},
    }


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else str(value)


@functools.cache
def planned(suite: str) -> Sequence[tuple[Run, Plan]]:
    """Return the runs of a suite as if none had been carried out, and their plans.

    What the data are is left open.
    """
    registry = Registry()
    plans = [
        plan(
            registry,
            request.task,
            request.pruner,
            sparsity=request.sparsity,
            budget=request.budget,
            seed=request.seed,
            profile=request.profile,
            overrides=request.overrides,
            describe=lambda *_: UNKNOWN,
        )
        for request in requests(find_suite(suite), registry)
    ]
    return list(zip(divided(map(_not_run, plans)), plans, strict=True))


def _not_run(wanted: Plan) -> Run:
    nothing: Data = {"source": None, "name": None, "sha256": None}
    return replace(run_of({**pending_record(wanted), "data": nothing}, recorded=False), run_id="")


def held(suite: str, results: Results) -> dict[tuple[object, ...], Run]:
    """Return the runs of a suite that a results folder holds, by what was requested.

    A run counts if it has the name that its plan has today: if engine, task and pruner have the
    same versions.
    """
    plans = {_request(run): plan for run, plan in planned(suite)}
    return {
        _request(run): replace(run, stands_in=_stands_in(run, wanted, results.records))
        for run in results.runs
        if run.recorded and (wanted := plans.get(_request(run))) and _is_of(run, wanted)
    }


def _is_of(run: Run, wanted: Plan) -> bool:
    data = replace(UNKNOWN, sha256=run.data_sha256 or "")
    return replace(wanted, data=data).run_id == run.run_id


def _stands_in(run: Run, wanted: Plan, records: Mapping[str, Record]) -> bool:
    """Return whether real data stand in for published ones; older records do not say so."""
    if run.run_id not in records or "stands_in_for" in records[run.run_id]["data"]:
        return run.stands_in
    data = describe_data(wanted.task, run.profile, wanted.settings, wanted.data_folder)
    return data.stands_in_for is not None


def update(suites: Sequence[str], results: Results) -> dict[str, int]:
    """Publish what a results folder holds of some suites.

    A suite is published if the folder holds a run of it that no other of the suites has; otherwise
    the folder was made for another suite, with which it shares dense runs, for example. A published
    run stays if it has today's versions, unless the folder has the same run with as many costs
    that nothing disturbed.

    Returns:
        How many runs the folder holds of each suite that was published.
    """
    found = {suite: held(suite, results) for suite in suites}
    shared = Counter(_request(run) for suite in suites for run, _ in planned(suite))
    own = [suite for suite in suites if any(shared[request] == 1 for request in found[suite])]
    for suite in own:
        _publish(suite, found[suite])
    return {suite: len(found[suite]) for suite in own}


def refresh(suites: Sequence[str]) -> None:
    """Give the published suites the runs that they have today; what has not been run is missing."""
    for suite in suites:
        if published(suite):
            _publish(suite, {})


def _publish(suite: str, new: Mapping[tuple[object, ...], Run]) -> None:
    runs = held(suite, Results(published(suite), {}, {}))
    for request, run in new.items():
        if request not in runs or _costs(run) >= _costs(runs[request]):
            runs[request] = run
    rows = []
    for empty, _ in planned(suite):
        run = runs.get(_request(empty), empty)
        rows.append(
            replace(run, setting=empty.setting, variant=empty.variant, versions=empty.versions)
        )
    write_rows(suite, map(row_of, with_sections(rows)))
    _write_readings(rows)
    published.cache_clear()


def _costs(run: Run) -> int:
    """Return how many quantities are known, without disturbed ones."""
    known = {name for name in quantities() if run.quantities[name] is not None}
    return len(known - run.disturbed)


def _request(run: Run) -> tuple[object, ...]:
    """Return what was requested, which is the same before and after the run."""
    overrides = json.dumps(run.overrides, sort_keys=True)
    return run.task, run.profile, run.pruner, run.sparsity, run.budget, run.seed, overrides


def _write_readings(runs: Iterable[Run]) -> None:
    readings = {**_readings(), **{run.run_id: run.readings for run in runs if run.readings}}
    rows = [
        {"run_id": run_id, "trigger": trigger, "epoch": _cell(epoch), "value": _cell(value)}
        for run_id, triggers in sorted(readings.items())
        for trigger, values in triggers.items()
        for epoch, value in values.items()
    ]
    if rows:
        write_rows("readings", rows)


def read_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a published file; none if there is no such file."""
    path = FOLDER / f"{name}.csv"
    if not path.exists():
        return []
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def write_rows(name: str, rows: Iterable[Mapping[str, str]]) -> None:
    """Write the rows of a published file; all have the columns of the first."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write(FOLDER / f"{name}.csv", text.getvalue().encode())
