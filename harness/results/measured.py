"""The costs of a network as `harness measure` found them, in place of those of its own run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from harness.record import Cost, Provenance, Record, fields
from harness.results.comparable import machine
from harness.storage.measurements import Measurement, is_quiet, measurements
from harness.storage.store import Store

OF_NETWORK = tuple(name for name, cost in fields(Cost).items() if cost.of == "network")
"""The costs of the final network; all others are those of the whole run."""

OWN_PROCESS, RUNS_PROCESS, NOT_YET = (
    "a process of its own",
    "the process of the run",
    "no process yet",
)
"""In which process the network was measured."""


def awaits_measurement(record: Record, run: Path) -> bool:
    """Return whether a network was left to a later measurement, which has not been taken yet.

    Args:
        record: as its run left it.
        run: the run's folder.
    """
    return record["cost"].get("measured_in") == NOT_YET and not measurements(run)


def with_measurement(record: Record, run: Path, device: str = "") -> Record:
    """Return a record with the costs of its network as they were last measured, if they were.

    The record itself stays as its run left it. The newest measurement counts; a quiet one is
    preferred to one that other work disturbed.

    Args:
        record: as its run left it.
        run: the run's folder.
        device: what the name of the measuring device must contain, as in "H100".
    """
    found = [each for each in measurements(run) if device in (machine_of(each) or "")]
    quiet = [each for each in found if is_quiet(each)]
    if not found:
        return record
    measurement = (quiet or found)[-1]
    measured = measurement["cost"]
    cost = {name: value for name, value in record["cost"].items() if name not in OF_NETWORK}
    cost |= {name: measured[name] for name in OF_NETWORK if name in measured}
    cost["measured_in"] = OWN_PROCESS
    for key in ("load", "disturbed", "reasons"):
        own = cast(dict[str, Any], record["cost"].get(key) or {})
        kept = {name: value for name, value in own.items() if name not in OF_NETWORK}
        cost[key] = {**kept, **measured.get(key, {})}
    provenance = {**record["provenance"], "measured_on": measurement["environment"]}
    return cast(Record, {**record, "cost": cost, "provenance": provenance})


def find_measured(store: Store, name: str) -> Record:
    """Return the record of a run, named as for `Store.find`, with its newest measurement.

    Raises:
        RequestError: there is no such run, or several are meant.
    """
    run = store.locate(name)
    return with_measurement(store.find(name), run)


def machine_of(measurement: Measurement) -> str | None:
    """Return the machine of a measurement, as `harness.results.comparable.machine` writes it."""
    return machine(cast(Provenance, measurement["environment"]))
