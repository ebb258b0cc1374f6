"""The card of an exported network, as a hub of models shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.record import COSTS, TESTED, Number, Provenance, Record
from harness.results.intervals import mean_interval
from harness.results.summary import task_title, written
from harness.settings import as_text
from harness.storage.store import Store
from harness.text import number, percent, several

CARD, ATTRIBUTES = "README.md", ".gitattributes"
"""What a hub reads: the card, and which files are too large for git."""

USE = """\
```python
from load import load

network = load()
```

The folder needs torch and nothing else. `model.safetensors` holds the weights, `network.py` the \
operations, and `config.json` the shapes of inputs, outputs and layers. The network computes as in \
evaluation mode. It takes what the task hands to its network, for instance images that are already \
normalised."""


def write_model_card(folder: Path, record: Record, store: Store) -> None:
    """Write the card of a network, and the attributes of its files for git.

    Args:
        folder: the folder to write into.
        record: of the run.
        store: the results in which the same run with other seeds is looked for.
    """
    (folder / CARD).write_text(model_card(record, of_all_seeds(record, store)), encoding="utf-8")
    (folder / ATTRIBUTES).write_text(
        "*.safetensors filter=lfs diff=lfs merge=lfs -text\n", encoding="utf-8"
    )


def of_all_seeds(record: Record, store: Store) -> dict[int, float]:
    """Return the test metric, by seed, of the runs that differ from one in their seed only."""
    return {
        each["spec"]["seed"]: float(test)
        for each in store.records()
        if _without_seed(each) == _without_seed(record)
        and each["status"] in TESTED
        and (test := each["quality"]["test"]) is not None
    }


def _without_seed(record: Record) -> dict[str, Any]:
    return {
        "spec": {**record["spec"], "seed": None},
        "versions": [record.get("engine"), record["task"]["version"], record["pruner"]["version"]],
        "data": record["data"]["sha256"],
    }


def model_card(record: Record, tests: Mapping[int, float]) -> str:
    """Return a card in Markdown, with the metadata that a hub reads at its top.

    Args:
        record: of the run, with its measurements.
        tests: the test metric of the same run, by seed.
    """
    task, pruner = task_title(record), record["pruner"]["title"]
    sections = {
        "Result": _result(record, tests),
        "Use": USE,
        "Costs": _costs(record),
        "Data": _data(record),
        "Method": _method(record),
        "Licence": "To be filled in, here and as `license` at the top of this file. The licence "
        "of the data may restrict it.",
    }
    body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections.items())
    return f"{_metadata(record)}\n# {task}: {pruner}\n\n{body}\n"


def _metadata(record: Record) -> str:
    """Return the metadata; every line is JSON after its key, which YAML contains."""
    spec, quality = record["spec"], record["quality"]
    result = {
        "task": {"type": spec["task"], "name": task_title(record)},
        "dataset": {"type": record["data"]["source"], "name": record["data"]["name"]},
        "metrics": [{"type": quality["metric"], "value": quality["test"]}],
    }
    lines = {
        "library_name": "pytorch",
        "tags": ["pruning", spec["task"], spec["pruner"]],
        "model-index": [{"name": record["run_id"], "results": [result]}],
    }
    metadata = "\n".join(f"{key}: {json.dumps(value)}" for key, value in lines.items())
    return f"---\nlicense: unknown # to be filled in\n{metadata}\n---\n"


def _result(record: Record, tests: Mapping[int, float]) -> str:
    quality = record["quality"]
    better = "higher" if quality["goal"] == "max" else "lower"
    lines = [
        f"The {quality['metric']} on the test data is {number(quality['test'])}; {better} is "
        f"better, and a prediction that ignores its input reaches {number(quality['baseline'])}."
    ]
    interval = mean_interval(list(tests.values())) if tests else None
    if interval is None or interval.low is None:
        lines.append("It is the result of a single seed, so there is no interval.")
    else:
        few = "" if interval.decides else "; so few seeds decide nothing"
        lines.append(
            f"Over {several(interval.n, 'seed')}, its mean is {number(interval.mean)} with a 95 % "
            f"interval from {number(interval.low)} to {number(interval.high)}{few}."
        )
    if record["status"] == "collapsed":
        lines.append(f"The network has collapsed: {record['reason']}.")
    return " ".join(lines)


def _costs(record: Record) -> str:
    costs: Mapping[str, Number | None] = record["cost"]  # type: ignore[assignment]
    rows = [
        f"| {cost.label} | {written(costs[name], cost.unit)} |"
        for name, cost in COSTS.items()
        if costs.get(name) is not None
    ]
    table = "\n".join(["| cost | value |", "|---|---|", *rows])
    return f"{table}\n\n{' '.join(_machines(record['provenance']))}"


def _machines(provenance: Provenance) -> Iterator[str]:
    def machine(of: Mapping[str, Any]) -> str:
        return f"{of['device']}, {several(of['threads'], 'thread')}"

    yield f"The run was carried out on: {machine(provenance)}."
    if (measured_on := provenance.get("measured_on")) is not None:
        yield f"The network was measured on: {machine(measured_on)}."


def _data(record: Record) -> str:
    data = record["data"]
    lines = f"{str(data['source']).capitalize()}: {data['name']}."
    if (original := data.get("stands_in_for")) is not None:
        lines += f" They stand in for {original}."
    return lines


def _method(record: Record) -> str:
    spec, sparsity, pruner = record["spec"], record["sparsity"], record["pruner"]
    paper = f" ({pruner['paper']})" if pruner.get("paper") else ""
    lines = [
        f"* Method: {pruner['title']}, `{spec['pruner']}`{paper}",
        f"* Weights removed: {percent(sparsity['weights'])}",
        f"* Training: {several(record['cost']['epochs'], 'epoch')}, "
        f"{several(record['cost']['steps'], 'step')}, seed {spec['seed']}",
    ]
    if sparsity.get("nodes") is not None:
        lines.insert(2, f"* Channels removed: {percent(float(sparsity['nodes'] or 0))}")
    lines += [f"* `{name}`: {as_text(value)}" for name, value in record["settings"].items()]
    return "\n".join(lines)
