"""How long the command line takes: to start, to find that a matrix is done, to plan, to report."""

from __future__ import annotations

import itertools
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.measurement import Comparison, alternate, in_new_process
from harness.matrix.plan import plan_matrix
from harness.matrix.suite import Axes, Names, Suite
from harness.record import Epoch, Event, Record
from harness.registry import Registry
from harness.results.example import EXAMPLE, example
from harness.spec import Plan
from harness.storage.store import Store

COLDSTART_SECONDS = 0.4
ROUNDS = 7


def coldstart() -> list[Comparison]:
    """Time ``--help`` and ``list``, each in turn with an import of torch."""
    return [line for word in ("--help", "list") for line in _coldstart_of(word)]


def _coldstart_of(word: str) -> list[Comparison]:
    ours, theirs = alternate(
        lambda: _python("-m", "harness", word), lambda: _python("-c", "import torch"), ROUNDS
    )
    return [
        Comparison(f"{word} / import torch", ours, theirs, "s", 0.15),
        Comparison(f"{word}, at most", ours, COLDSTART_SECONDS, "s", 1.0),
    ]


def _python(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


DONE, QUEUED = 2_000, 10_000
SECONDS_FOR_DONE, SECONDS_FOR_QUEUED, BYTES_FOR_QUEUED = 2.0, 5.0, 500_000_000


def resume() -> list[Comparison]:
    """Time the command on a matrix that is done, and the planning of one that is not."""
    with tempfile.TemporaryDirectory() as folder:
        for plan in _plans(DONE).values():
            _write_record(plan, Store(Path(folder)))
        seconds = _matrix(folder)
    planning, held = in_new_process(_plan_in_this_process)
    return [
        Comparison(f"matrix of {DONE} runs that are done", seconds, SECONDS_FOR_DONE, "s", 1.0),
        Comparison(f"planning {QUEUED} runs", planning, SECONDS_FOR_QUEUED, "s", 1.0),
        Comparison("memory meanwhile", held / 1e6, BYTES_FOR_QUEUED / 1e6, "MB", 1.0),
    ]


def _matrix(results: str) -> float:
    """Return how many seconds the command takes."""
    words = ["--tasks", "digits", "--pruners", "snip", "--seeds", ",".join(map(str, range(DONE)))]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "harness", "matrix", *words, "--results", results],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def _plan_in_this_process() -> tuple[float, int]:
    began = time.perf_counter()
    plans = _plans(QUEUED)
    seconds = time.perf_counter() - began
    assert len(plans) == QUEUED
    return seconds, _peak_bytes()


def _peak_bytes() -> int:
    """Return the peak memory of this process; `resource` may give that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def _plans(number: int) -> Mapping[str, Plan]:
    axes = Axes(Names(("digits",)), Names(("snip",)), seeds=tuple(range(number)))
    suite = Suite("seeds", "Many seeds", (axes,))
    folder = Path("data")
    return plan_matrix(suite, Registry(), overrides={}, plugins=(), data_folder=folder).plans


def _write_record(plan: Plan, store: Store) -> None:
    """Write a record of the size of a real one: 62 layers and 20 epochs."""
    layers = [
        {"name": f"layer{n}.weight", "shape": [n, 9], "weights": 9 * n, "kept": n}
        for n in range(62)
    ]
    epochs = [
        {"position": n, "spent": n, "loss": 1 / 7, "validation": {"accuracy": 100 / 7}}
        for n in range(20)
    ]
    training = {"verb": "train", "spent": 20, "ended_by": "plan", "epochs": epochs}
    record = example(run_id=plan.run_id, sparsity__per_layer=layers, events=[training])
    store.open_run(plan.run_id)
    store.save(record)


REPORT_SECONDS = 30.0
REPORT_MEGABYTES = 1000.0
PAGE_MEGABYTES = 5.0

TASKS, METHODS, SEEDS, EPOCHS = 6, 11, 5, 20
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


def report() -> list[Comparison]:
    """Write the report on made-up runs, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "results")
        for record in records():
            store.open_run(record["run_id"])
            store.save(record)
        seconds, memory, page = in_new_process(_report, store.folder, Path(folder) / "report")
    return [
        Comparison("report on 2,000 runs", seconds, REPORT_SECONDS, "s", 1.0),
        Comparison("the same, peak memory", memory, REPORT_MEGABYTES, "MB", 1.0),
        Comparison("the same, page", page, PAGE_MEGABYTES, "MB", 1.0),
    ]


def records() -> Iterator[Record]:
    """Iterate over the records of a made-up matrix: tasks x methods x sparsities x seeds."""
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
