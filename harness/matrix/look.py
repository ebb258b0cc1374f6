"""What a results folder says about runs, wherever they run, without importing torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import RequestError
from harness.matrix.dispatch import RESULTS, Tally
from harness.matrix.executor import Outcome
from harness.matrix.plan import by_reason, first_of, reasons
from harness.record import Record
from harness.storage import files
from harness.storage.files import is_held
from harness.storage.store import OF_RUNS, Store


def look(runs: Collection[str], store: Store) -> Tally:
    """Return where each run is, as far as the folder tells."""
    tally = Tally(len(runs))
    for run_id in runs:
        try:
            known = store.record(run_id)
            if known is None and is_held(store.folder / run_id):
                tally.at_work[run_id] = ""
            elif known := known or store.failure(run_id):
                tally.settle(run_id, Outcome(known["status"], known["reason"]))
            elif _has_begun(store.folder / run_id):
                tally.settle(run_id, Outcome("interrupted"))
        except RequestError as error:
            tally.settle(run_id, Outcome("damaged", str(error)))
    return tally


def _has_begun(folder: Path) -> bool:
    return any(files.is_there(folder / name) for name in OF_RUNS)


def would_run(
    runs: Collection[str], store: Store, again: bool
) -> dict[str, tuple[str, str | None]]:
    """Return what a command would do with each run, and what of the past it has to do with.

    Args:
        runs: their names.
        store: where they are.
        again: whether those that are done would be carried out once more.

    Returns:
        By the run's name "done", "waiting" (it would be carried out), "running" or "damaged".
    """
    tally = look(runs, store)
    planned: dict[str, tuple[str, str | None]] = {}
    for run_id in runs:
        if run_id in tally.at_work:
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


def endings(tally: Tally, *statuses: str) -> Iterator[str]:
    """Go through lines that name the runs that ended so, those of one reason together."""
    for status in statuses:
        ended = {
            run_id: outcome.reason or ""
            for run_id, outcome in tally.outcomes.items()
            if outcome.status == status
        }
        for why, runs in by_reason(ended).items():
            yield f"  {status}: {first_of(runs)}{f': {why}' if why else ''}"


def left_out(records: Mapping[str, Record]) -> Iterator[str]:
    """Yield a line for each reason why runs of a matrix could not be planned."""
    failed = {what: each for what, each in records.items() if each.get("status") == "failed"}
    skipped = {what: each for what, each in records.items() if what not in failed}
    for how, those in (("failed", failed), ("left out", skipped)):
        for why, runs in by_reason(reasons(those)).items():
            yield f"  {how}: {first_of(runs)}: {why}"


def states(runs: Collection[str], tally: Tally) -> dict[str, dict[str, Any]]:
    """Return each run's state, for JSON: a status and a reason."""
    return {run_id: _state(run_id, tally) for run_id in runs}


def _state(run_id: str, tally: Tally) -> dict[str, Any]:
    if (outcome := tally.outcomes.get(run_id)) is not None:
        return {"status": outcome.status, "reason": outcome.reason}
    return {"status": "running" if run_id in tally.at_work else "waiting", "reason": None}


def counts(states: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return how many runs have which status."""
    found = [state["status"] for state in states.values()]
    return {status: found.count(status) for status in sorted(set(found))}
