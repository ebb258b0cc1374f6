"""Made-up results folders, for the tests of reports."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.results.example import changed
from tests.helpers import records

METHODS = {
    "dense": ("Dense", "dense", 0.0),
    "random_s": ("Random-S", "structured", 9.0),
    "snap": ("SNAP", "structured", 6.0),
    "crop_s": ("CroP-S", "structured", 4.0),
    "earlycrop_s": ("EarlyCroP-S", "structured", 1.5),
    "random_u": ("Random-U", "unstructured", 8.0),
    "snip": ("SNIP", "unstructured", 2.5),
    "grasp": ("GraSP", "unstructured", 3.0),
    "crop_u": ("CroP-U", "unstructured", 2.0),
    "earlycrop_u": ("EarlyCroP-U", "unstructured", 0.8),
    "ltr": ("LTR", "unstructured", 0.5),
    "random_erk": ("Random-ERK", "control", 5.0),
}
"""Title, group, and how much accuracy is lost by removing 98 %."""

TASKS = {
    "pictures": ("Small pictures, ConvNet", "accuracy", "max", "official", 95.0, 10.0),
    "words": ("Many words, LSTM", "perplexity", "min", "real", 120.0, 600.0),
    "pole": ("A pole, MLP", "return", "max", "synthetic", 190.0, 20.0),
}
"""Title, metric, goal, source of the data, metric of the dense network, and baseline."""

LAYERS = (("first.weight", (16, 27)), ("second.weight", (32, 144)), ("last.weight", (10, 32)))

EPOCHS, STEPS = 10, 100


def record(
    task: str = "pictures",
    pruner: str = "snip",
    sparsity: float = 0.98,
    seed: int = 0,
    *,
    status: str = "done",
    reason: str | None = None,
    epochs: int = EPOCHS,
    **changes: Any,
) -> Any:
    """Return a plausible record, the same for the same arguments.

    Args:
        task: one of `TASKS`, or a name to be treated as the first of them.
        pruner: one of `METHODS`, or a name to be treated as SNIP.
        sparsity: what was asked for.
        seed: of the run.
        status: how it ended; with any but "done" and "collapsed" it has no quality.
        reason: why.
        epochs: length of the training.
        changes: ``cost__macs=1`` changes the ``macs`` of its ``cost``.
    """
    chance = random.Random(f"{task} {pruner} {sparsity} {seed}")
    title, metric, goal, source, dense, baseline = TASKS.get(task, TASKS["pictures"])
    name, group, loss = METHODS.get(pruner, (pruner, "unstructured", 2.5))
    sparsity = 0.0 if group == "dense" else sparsity
    worse = 1 if goal == "min" else -1
    share = abs(dense - baseline) / 100
    test = dense + worse * share * loss * (sparsity / 0.98) ** 8 + share * chance.gauss(0, 0.4)
    test = baseline if status == "collapsed" else test
    has_result = status in ("done", "collapsed")
    layers = [_layer(layer, shape, sparsity, group) for layer, shape in LAYERS]
    kept = sum(layer["kept"] for layer in layers) / sum(layer["weights"] for layer in layers)
    cost = _cost(kept, group, epochs, chance)
    stands_in_for = task if source == "real" else None
    made = records.record(
        run_id=f"{task}-{pruner}-{sparsity:g}-seed{seed}-{chance.getrandbits(48):012x}",
        status=status,
        reason=reason,
        spec__task=task,
        spec__pruner=pruner,
        spec__sparsity=sparsity,
        spec__seed=seed,
        task__title=title,
        pruner__title=name,
        pruner__group=group,
        data={
            "source": source,
            "name": f"{task} for tests",
            "sha256": "ab" * 32,
            "stands_in_for": stands_in_for,
        },
        settings={"epochs": epochs, "width": 32, "kernel": False},
        quality={
            "metric": metric,
            "goal": goal,
            "validation": test + share * chance.gauss(0, 0.2) if has_result else None,
            "test": test if has_result else None,
            "baseline": baseline if has_result else None,
            "further": {},
        },
        sparsity={
            "requested": sparsity,
            "weights": 1 - kept,
            "nodes": sparsity * 0.9 if group == "structured" else None,
            "effective": 1 - kept * 0.9,
            "emptied_layers": [layer["name"] for layer in layers if not layer["kept"]],
            "per_layer": layers,
        },
        cost=cost,
        events=_events(pruner, sparsity, epochs, metric, test, chance),
        provenance__threads=1,
        provenance__command=f"python -m harness run --task {task} --pruner {pruner} "
        f"--sparsity {sparsity:g} --seed {seed} --profile embedded",
        provenance__started=f"2026-01-01T00:00:{seed % 60:02d}+00:00",
    )
    if status in ("failed", "skipped", "missing"):
        made |= {"cost": {}, "events": [], "sparsity": {"requested": sparsity}}
        made["provenance"] = {key: made["provenance"][key] for key in ("git", "command")}
    return changed(made, **changes)


def _layer(name: str, shape: Sequence[int], sparsity: float, group: str) -> dict[str, Any]:
    rows, columns = shape
    density = (1 - sparsity) ** (0.5 if name.startswith("last") else 1.0)
    now = [rows, columns]
    if group == "structured":
        now = [max(1, round(rows * density)), columns]
    kept = now[0] * now[1] if group == "structured" else round(rows * columns * density)
    return {
        "name": name,
        "dense_shape": [rows, columns],
        "shape": now,
        "weights": rows * columns,
        "kept": kept,
    }


def _cost(kept: float, group: str, epochs: int, chance: random.Random) -> dict[str, Any]:
    size = kept if group == "structured" else 1.0
    step = 4 + 16 * size + chance.gauss(0, 0.2)
    example = dict(records.RECORD["cost"])
    del example["by_length"]
    return {
        **example,
        "train_seconds": epochs * STEPS * step / 1000,
        "peak_run_bytes": int(4e7 + 4e7 * size),
        "energy_kwh": epochs * STEPS * step * 1e-7,
        "emissions_g": epochs * STEPS * step * 2e-5,
        "energy_method": "estimated cpu_load",
        "reasons": {},
        "epochs": float(epochs),
        "steps": epochs * STEPS,
        "step_ms": step,
        "step_ms_iqr": 0.1,
        "inference_ms": step / 4,
        "inference_ms_iqr": 0.1,
        "peak_step_bytes": int(2e7 + 2e7 * size),
        "disk_bytes": int(1000 + 20000 * kept),
        "macs": int(1e6 * size),
        "macs_effective": int(1e6 * kept),
        "parameters": int(6000 * size),
    }


def _events(
    pruner: str, sparsity: float, epochs: int, metric: str, test: float, chance: random.Random
) -> list[dict[str, Any]]:
    moment = 0 if not pruner.startswith("early") else epochs // 3
    fired = pruner.startswith("early")

    def training(first: int, last: int, ended_by: str) -> dict[str, Any]:
        return {
            "verb": "train",
            "position": last * STEPS,
            "spent": last * STEPS,
            "ended_by": ended_by,
            "epochs": [
                {
                    "position": epoch * STEPS,
                    "spent": epoch * STEPS,
                    "loss": 2.0 / epoch,
                    "validation": {metric: test * (1 - 0.5 / epoch) + chance.gauss(0, 0.3)},
                    **(
                        {"trigger": 1.0 / epoch**2, "threshold": 0.02}
                        if fired and epoch <= moment
                        else {}
                    ),
                }
                for epoch in range(first + 1, last + 1)
            ],
        }

    pruning = {
        "verb": "prune",
        "position": moment * STEPS,
        "spent": moment * STEPS,
        "units": "weights",
        "target": sparsity,
        "gradient_flow": {"before": 2.0, "after": 1.0 + chance.random()},
    }
    before = [training(0, moment, "trigger")] if moment else []
    after = [training(moment, epochs, "plan")]
    return [*before, *([pruning] if sparsity else []), *after]


def slim(task: str, seed: int, macs: int, test: float, **changes: Any) -> Any:
    """Return the record of a narrow dense network with these ``macs``."""
    return record(
        task,
        "slim_dense",
        0.0,
        seed,
        pruner__title="Slim dense",
        pruner__group="control",
        settings={**record()["settings"], "macs": 0.1},
        quality__test=test,
        cost__macs=macs,
        run_id=f"{task}-slim_dense-{macs}-seed{seed}",
        **changes,
    )


def save(folder: Path, records: Iterable[dict[str, Any]]) -> Path:
    """Write records to a results folder and return the folder."""
    for each in records:
        run = folder / each["run_id"]
        run.mkdir(parents=True, exist_ok=True)
        failed = each["status"] == "failed"
        (run / ("failure.json" if failed else "record.json")).write_text(json.dumps(each))
        if failed:
            (run / "failure.txt").write_text(
                'Traceback (most recent call last):\n  File "/home/someone/pruning/harness/run.py"'
                ", line 1, in train\nRuntimeError: it broke\n"
            )
    return folder


def save_matrix(
    folder: Path, runs: Iterable[dict[str, Any]], left_out: Iterable[dict[str, Any]] = ()
) -> Path:
    """Write a matrix that asks for these runs to a results folder and return the folder."""
    matrices = folder / "matrices"
    matrices.mkdir(parents=True, exist_ok=True)
    content = {
        "name": "everything",
        "command": "python -m harness matrix --suite everything",
        "runs": {each["run_id"]: each for each in runs},
        "left_out": {each["run_id"]: each for each in left_out},
    }
    (matrices / "everything-01234567.json").write_text(json.dumps(content))
    return folder


def left_out(task: str, pruner: str, sparsity: float, reason: str) -> dict[str, Any]:
    """Return the placeholder of a run whose data are missing."""
    nothing = {"source": None, "name": None, "sha256": None}
    made = record(task, pruner, sparsity, status="skipped", reason=reason, spec__profile="paper")
    run_id = f"{task}-{pruner}-{sparsity:g}-seed0-paper"
    return {**made, "data": nothing, "run_id": run_id}


def suite(
    tasks: Sequence[str] = tuple(TASKS),
    pruners: Sequence[str] = tuple(METHODS),
    sparsities: Sequence[float] = (0.9, 0.98),
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = EPOCHS,
) -> list[dict[str, Any]]:
    """Return the records of a whole matrix."""
    return [
        record(task, pruner, sparsity, seed, epochs=epochs)
        for task in tasks
        for pruner in pruners
        for sparsity in (sparsities if pruner != "dense" else (0.0,))
        for seed in seeds
    ]


def eventful() -> list[dict[str, Any]]:
    """Return runs with every possible outcome."""
    made = [
        each
        for each in suite()
        if (each["spec"]["task"], each["spec"]["pruner"])
        not in {("pole", "ltr"), ("pole", "grasp"), ("pole", "snap"), ("words", "random_erk")}
    ]
    endings = {
        ("words", "random_u", 0.98): "diverged",
        ("pole", "random_s", 0.98): "collapsed",
        ("pictures", "grasp", 0.98): "failed",
    }
    for each in made:
        spec = each["spec"]
        ending = endings.get((spec["task"], spec["pruner"], spec["sparsity"]))
        if ending and spec["seed"] > 0:
            each.update(
                record(
                    spec["task"],
                    spec["pruner"],
                    spec["sparsity"],
                    spec["seed"],
                    status=ending,
                    reason=f"it {ending}, as the tests want",
                )
            )
    made += [slim("pictures", seed, 36_000, 91.0 + seed / 10) for seed in range(3)]
    made.append(
        record(
            "pole", "snap", 0.98, status="skipped", reason="0.98 is out of reach; nearest: 0.9512"
        )
    )
    return made


def save_eventful(folder: Path) -> Path:
    """Write these runs, and a matrix that asks for more, and return the folder."""
    missing = [record("pole", "ltr", 0.98, seed, status="missing") for seed in range(3)]
    missing.append(record("pictures", "snap", 0.98, 3, status="missing"))
    impossible = [
        left_out("words", pruner, sparsity, "words.txt: No such file or directory")
        for pruner, sparsity in (("dense", 0.0), ("snip", 0.98), ("earlycrop_s", 0.98))
    ]
    made = eventful()
    return save_matrix(save(folder, made), [*made, *missing], impossible)
