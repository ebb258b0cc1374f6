"""Time, memory and size of a report on two thousand runs."""

from __future__ import annotations

import itertools
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measurement import Comparison, in_new_process
from harness.record import Epoch, Event, Record
from harness.results.example import EXAMPLE, example
from harness.storage.store import Store

ALLOWED_SECONDS = 30.0
ALLOWED_MEGABYTES = 1000.0
ALLOWED_PAGE_MEGABYTES = 5.0

TASKS, METHODS, SEEDS, EPOCHS = 6, 11, 5, 20
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


def measure() -> list[Comparison]:
    """Write the report on made-up runs, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "results")
        for record in records():
            store.open_run(record["run_id"])
            store.save(record)
        seconds, memory, page = in_new_process(_report, store.folder, Path(folder) / "report")
    return [
        Comparison("report on 2,000 runs", seconds, ALLOWED_SECONDS, "s", 1.0),
        Comparison("the same, peak memory", memory, ALLOWED_MEGABYTES, "MB", 1.0),
        Comparison("the same, page", page, ALLOWED_PAGE_MEGABYTES, "MB", 1.0),
    ]


def records() -> Iterator[Record]:
    """Go through the records of a made-up matrix: tasks x methods x sparsities x seeds."""
    chance = random.Random(0)
    for task, seed in itertools.product(range(TASKS), range(SEEDS)):
        yield _record(f"task{task}", "dense", 0.0, seed, chance)
        for method, sparsity in itertools.product(range(METHODS), SPARSITIES):
            yield _record(f"task{task}", f"method{method}", sparsity, seed, chance)


def _record(task: str, pruner: str, sparsity: float, seed: int, chance: random.Random) -> Record:
    kept = 1 - sparsity
    return example(
        run_id=f"{task}-{pruner}-{sparsity:g}-seed{seed}",
        spec=EXAMPLE["spec"] | {"task": task, "pruner": pruner, "sparsity": sparsity, "seed": seed},
        task__title=task,
        pruner__title=pruner,
        pruner__group="unstructured" if sparsity else "dense",
        quality__test=90 + 5 * kept + chance.gauss(0, 0.5),
        sparsity__weights=sparsity,
        cost__train_seconds=10 * kept + chance.random(),
        cost__step_ms=20 * kept + chance.random(),
        cost__macs_effective=int(1e6 * kept),
        cost__epochs=float(EPOCHS),
        cost__steps=EPOCHS,
        events=_events(sparsity, chance),
    )


def _events(sparsity: float, chance: random.Random) -> list[Event]:
    epochs: list[Epoch] = [
        {
            "position": number,
            "spent": number,
            "loss": 1 / number,
            "validation": {"accuracy": 90 - 50 / number + chance.random()},
        }
        for number in range(1, EPOCHS + 1)
    ]
    _, pruning, training = EXAMPLE["events"]
    trained = training | {"position": EPOCHS, "spent": EPOCHS, "epochs": epochs}
    if not sparsity:
        return [trained]
    return [pruning | {"position": 0, "spent": 0, "target": sparsity}, trained]


def _report(results: Path, out: Path) -> tuple[float, float, float]:
    """Return seconds, imports included, peak memory and size of the page in megabytes."""
    began = time.perf_counter()
    from reports.report import write

    page = write(results, out)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return seconds, peak, page.stat().st_size / 1e6
