"""The state of runs as their results folder shows it, whatever process or machine runs them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import RequestError
from harness.matrix.dispatch import RESULTS, Tally
from harness.matrix.executor import Outcome
from harness.record import Record
from harness.results.measured import awaits_measurement
from harness.storage import files
from harness.storage.files import is_held
from harness.storage.progress import Progress, read_progress
from harness.storage.store import OF_RUNS, Store
from harness.text import duration, epoch_of, first_of, number, several


def find_states(runs: Collection[str], store: Store) -> Tally:
    """Return the state of each run, as far as its folder shows it."""
    tally = Tally(len(runs))
    for run_id in runs:
        try:
            known = store.record(run_id)
            if known is None and is_held(store.folder / run_id):
                tally.running[run_id] = ""
            elif known := known or store.failure(run_id):
                tally.finish(run_id, Outcome(known["status"], known["reason"]))
                if awaits_measurement(known, store.folder / run_id):
                    tally.unmeasured.add(run_id)
            elif _has_started(store.folder / run_id):
                tally.finish(run_id, Outcome("interrupted"))
        except RequestError as error:
            tally.finish(run_id, Outcome("damaged", str(error)))
    return tally


def _has_started(folder: Path) -> bool:
    return any(files.is_there(folder / name) for name in OF_RUNS)


def preview(runs: Collection[str], store: Store, again: bool) -> dict[str, tuple[str, str | None]]:
    """Return what a command would do with each run.

    Args:
        runs: their names.
        store: their results folder.
        again: whether finished runs would be repeated.

    Returns:
        By name, a state ("done", "running", "damaged", or "waiting" if the run would be carried
        out) and what explains it, such as an earlier failure; None if nothing does.
    """
    tally = find_states(runs, store)
    planned: dict[str, tuple[str, str | None]] = {}
    for run_id in runs:
        if run_id in tally.running:
            planned[run_id] = "running", None
            continue
        outcome = tally.outcomes.get(run_id)
        if outcome is None:
            planned[run_id] = "waiting", None
        elif outcome.status in RESULTS:
            planned[run_id] = ("waiting", "again") if again else ("done", None)
        elif outcome.status == "damaged" and not again:
            planned[run_id] = "damaged", outcome.reason
        else:
            planned[run_id] = "waiting", f"{outcome.status} before"
    return planned


def counted(tally: Tally, which: str = "") -> str:
    """Return the number of runs in each state, as in ``3 runs: 1 done, 2 waiting``.

    Args:
        tally: the runs.
        which: what follows the number of runs, as in ``outside any matrix``.
    """
    counts = [
        *sorted(tally.count().items()),
        ("running", len(tally.running)),
        ("waiting", tally.waiting),
    ]
    parts = [f"{number} {name}" for name, number in counts if number]
    runs = " ".join(filter(None, (several(tally.total, "run"), which)))
    return ": ".join(filter(None, (runs, ", ".join(parts))))


def how_far(progress: Progress) -> str:
    """Return how far a run is, as in ``epoch 3/20, accuracy 93.1, 4 min left``."""
    parts = [epoch_of(progress.epoch, progress.epochs)]
    if progress.validation is not None:
        parts.append(f"{progress.metric} {number(progress.validation)}")
    return ", ".join(filter(None, [*parts, time_left(progress)]))


def time_left(progress: Progress) -> str:
    """Return how long a run is expected to train on; an empty text if that is unknown."""
    left = progress.seconds_left
    return "" if left is None else f"{duration(left)} left"


def outcome_lines(tally: Tally, *statuses: str) -> Iterator[str]:
    """Yield lines that name the runs of these statuses, one line for each reason."""
    for status in statuses:
        ended = {
            run_id: outcome.reason or ""
            for run_id, outcome in tally.outcomes.items()
            if outcome.status == status
        }
        for why, runs in by_reason(ended).items():
            yield f"  {status}: {first_of(runs)}{f': {why}' if why else ''}"


def unmeasured_lines(tally: Tally) -> Iterator[str]:
    """Yield lines about networks that are still to be measured, and why measuring failed."""
    for why, runs in by_reason(tally.not_measured).items():
        yield f"  not measured: {first_of(runs)}: {why}"
    if rest := len(tally.unmeasured.difference(tally.not_measured)):
        verb = "is" if rest == 1 else "are"
        yield f"  {several(rest, 'network')} {verb} still to be measured (measure --missing)"


def left_out_lines(records: Mapping[str, Record]) -> Iterator[str]:
    """Yield a line for each reason why runs of a matrix could not be planned."""
    failed = {what: each for what, each in records.items() if each.get("status") == "failed"}
    skipped = {what: each for what, each in records.items() if what not in failed}
    for status, group in (("failed", failed), ("left out", skipped)):
        for why, runs in by_reason(reasons(group)).items():
            yield f"  {status}: {first_of(runs)}: {why}"


def reasons(left_out: Mapping[str, Record]) -> dict[str, str]:
    """Return the reason why each run was left out."""
    return {what: str(record["reason"]) for what, record in left_out.items()}


def by_reason(given: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
    """Group runs by the reason why they have no result."""
    grouped: dict[str, list[str]] = {}
    for what, reason in given.items():
        grouped.setdefault(reason, []).append(what)
    return grouped


def states_in(store: Store, runs: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the state of each run as its folder shows it, for JSON.

    Besides status and reason, a run that trains has its progress, and one whose network is still to
    be measured says so.
    """
    tally = find_states(runs, store)
    found = states(runs, tally)
    for run_id in tally.running:
        if (progress := read_progress(store.folder / run_id)) is not None:
            found[run_id]["progress"] = {
                "epoch": progress.epoch,
                "epochs": progress.epochs,
                "metric": progress.metric,
                "validation": progress.validation,
                "seconds_left": progress.seconds_left,
            }
    for run_id in tally.unmeasured:
        found[run_id]["measured"] = False
    return found


def states(runs: Collection[str], tally: Tally) -> dict[str, dict[str, Any]]:
    """Return the status and reason of each run, for JSON."""
    return {run_id: _state(run_id, tally) for run_id in runs}


def _state(run_id: str, tally: Tally) -> dict[str, Any]:
    if (outcome := tally.outcomes.get(run_id)) is not None:
        return {"status": outcome.status, "reason": outcome.reason}
    return {"status": "running" if run_id in tally.running else "waiting", "reason": None}


def counts(states: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return the number of runs by status."""
    found = [state["status"] for state in states.values()]
    return {status: found.count(status) for status in sorted(set(found))}
