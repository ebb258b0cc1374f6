"""The command ``compare``: two runs, or two results folders, side by side."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.commands import options
from harness.errors import RequestError
from harness.record import COSTS, Record
from harness.results.comparable import (
    DEPENDS_ON_MACHINE,
    disturbed,
    machine,
    network_machine,
    not_comparable,
)
from harness.results.intervals import Interval, difference
from harness.results.measured import find_measured
from harness.results.summary import label, written
from harness.settings import as_text
from harness.storage import files
from harness.storage.store import OF_RUNS, Store
from harness.text import number, percent, table

OF: Mapping[Literal["run", "network"], str] = {"run": "runs", "network": "final networks"}
"""What costs belong to, in words."""

Pair = tuple[float | None, float | None]
"""A value of A, and the same of B."""


JSON_HELP = """\
--json prints one object. For two runs: "a" and "b" (their names), "differences" (settings, data
and status), "metric", "quality", "sparsity" and "costs", whose entries have "a", "b" and "ratio"
(those of "quality" also "difference", B - A), and "not_compared" (costs that depend on the machine,
if the machines differ). "quality" is empty if the tasks, the data or the metrics differ; a ratio is
null if it would mislead, for example because other programs disturbed a cost. For two results
folders: "a" and "b", "runs" (each with "run", "metric", "a", "b" and "verdict") and
"over_seeds" (each with "run", "metric", "difference", "low", "high", "seeds" and "verdict").
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.epilog = JSON_HELP
    parser.add_argument("first", metavar="A", help="a run, as for show, or a results folder")
    parser.add_argument("second", metavar="B", help="another run or results folder")
    options.add_json(parser, "print JSON instead")
    options.add_results(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Print what differs."""
    first, second = arguments.first, arguments.second
    if arguments.json:
        found = compare_results(first, second, results=arguments.results)
        print(json.dumps(found, indent=1))
    elif _are_results_folders(first, second):
        before, after = _both(first, second)
        print(_compare_folders(Path(first), before, Path(second), after))
    else:
        store = Store(arguments.results)
        print(_compare_runs(find_measured(store, first), find_measured(store, second)))
    return 0


def compare_results(
    first: str | Path, second: str | Path, *, results: str | Path = "results"
) -> dict[str, Any]:
    """Compare two runs, or two results folders.

    Args:
        first: a run's folder, its name, the beginning of its name or its hash; or a results
            folder.
        second: another of the same kind.
        results: folder of the runs, if they are given by name.

    Returns:
        What ``compare --json`` prints; ``compare --help`` describes it.

    Raises:
        RequestError: there is no such run or folder, or one is a run and the other a folder.
    """
    first, second = str(first), str(second)
    if _are_results_folders(first, second):
        before, after = _both(first, second)
        return _folders_as_object(first, before, second, after)
    store = Store(Path(results))
    return _runs_as_object(find_measured(store, first), find_measured(store, second))


def _are_results_folders(first: str, second: str) -> bool:
    folders = [name for name in (first, second) if _is_results_folder(Path(name))]
    if len(folders) == 1:
        run = second if folders[0] == first else first
        raise RequestError(f"cannot compare a results folder ({folders[0]}) with a run ({run})")
    return bool(folders)


def _both(first: str, second: str) -> tuple[dict[str, Record], dict[str, Record]]:
    """Return the runs of two folders by their requests.

    Raises:
        RequestError: neither folder has any.
    """
    before, after = _by_request(Path(first)), _by_request(Path(second))
    if not before and not after:
        raise RequestError(f"neither {first} nor {second} contains a run that is done")
    return before, after


def _is_results_folder(path: Path) -> bool:
    """Return whether a path is that of a folder, but not of a run's folder."""
    return os.path.isdir(path) and not any(files.is_there(path / name) for name in OF_RUNS)


def _by_request(folder: Path) -> dict[str, Record]:
    """Return the runs of a folder by their requests."""
    return {_request(record): record for record in Store(folder).records()}


def _compare_runs(first: Record, second: Record) -> str:
    rows: list[tuple[str, ...]] = [("", "A", "B", "B - A", "B / A")]
    rows += [(name, before, after, "", "") for name, before, after in _differences(first, second)]
    rows += [*_quality(first, second), *_costs(first, second)]
    lines = [f"A  {first['run_id']}", f"B  {second['run_id']}", "", table(rows, left=1)]
    notes = [
        f"No ratio: {why} ({', '.join(names)})." for why, names in _without_ratio(first, second)
    ]
    if why := _why_quality_differs(first, second):
        notes.insert(0, why)
    lines += ["", *notes] if notes else []
    if differing := [of for of in OF if not _same_machine(first, second, of)]:
        names = [_machine(each, differing[0]) or "not known" for each in (first, second)]
        whose = "" if len(differing) == len(OF) else f"{OF[differing[0]]} on "
        lines += ["", f"Machine of A: {names[0]}", f"Machine of B: {names[1]}"]
        lines += [f"Times, memory and energy of {whose}different machines are not compared."]
    return "\n".join(lines)


def _runs_as_object(first: Record, second: Record) -> dict[str, Any]:
    """Return the comparison of two runs for JSON; `JSON_HELP` explains the keys."""

    def pair(before: float | None, after: float | None) -> dict[str, float | None]:
        return {"a": before, "b": after, "ratio": _ratio(before, after)}

    def qualities(part: Literal["test", "validation"]) -> dict[str, float | None]:
        before, after = first["quality"][part], second["quality"][part]
        return {**pair(before, after), "difference": _difference(before, after)}

    comparable = _why_quality_differs(first, second) is None
    unfit = _unfit(first, second)
    return {
        "a": first["run_id"],
        "b": second["run_id"],
        "differences": {
            name: {"a": before, "b": after} for name, before, after in _differences(first, second)
        },
        "metric": first["quality"]["metric"] if comparable else None,
        "quality": {"test": qualities("test"), "validation": qualities("validation")}
        if comparable
        else {},
        "sparsity": {
            "weights": pair(first["sparsity"]["weights"], second["sparsity"]["weights"]),
            "effective": pair(first["sparsity"]["effective"], second["sparsity"]["effective"]),
        },
        "costs": {
            key: pair(*figures) | ({"ratio": None} if key in unfit else {})
            for key, figures in _compared_costs(first, second)
        },
        "not_compared": sorted(DEPENDS_ON_MACHINE - dict(_compared_costs(first, second)).keys()),
    }


def _differences(first: Record, second: Record) -> Iterator[tuple[str, str, str]]:
    """Go through the differences between two requests, and how both runs ended."""
    asked: tuple[Mapping[str, Any], ...] = first["spec"], second["spec"]
    for key in ("task", "pruner", "sparsity", "budget", "seed", "profile"):
        before, after = (str(spec.get(key, "-")) for spec in asked)
        if before != after:
            yield key, before, after
    for key in sorted({**first["spec"]["overrides"], **second["spec"]["overrides"]}):
        before, after = (as_text(record["settings"].get(key, "-")) for record in (first, second))
        if before != after:
            yield key, before, after
    data = str(first["data"]["sha256"]), str(second["data"]["sha256"])
    if data[0] != data[1]:
        yield "data", data[0][:8], data[1][:8]
    yield "status", first["status"], second["status"]


def _quality(first: Record, second: Record) -> Iterator[tuple[str, ...]]:
    before, after = first["quality"], second["quality"]
    if _why_quality_differs(first, second) is None:
        for part, *figures in (
            ("test", before["test"], after["test"]),
            ("validation", before["validation"], after["validation"]),
        ):
            change = _difference(*figures)
            signed = "" if change is None else f"{change:+.4g}"
            yield f"{part} {before['metric']}", *map(number, figures), signed, ""
    removed = [record["sparsity"] for record in (first, second)]
    yield "weights removed", *(percent(each["weights"]) for each in removed), "", ""
    yield "removed or disconnected", *(percent(each["effective"]) for each in removed), "", ""


def _why_quality_differs(first: Record, second: Record) -> str | None:
    """Return why two results cannot be compared; None if they can."""
    tasks = [record["spec"]["task"] for record in (first, second)]
    if tasks[0] != tasks[1]:
        return f"Different tasks ({' and '.join(tasks)}): quality and ratios are not compared."
    if first["quality"]["metric"] != second["quality"]["metric"]:
        return "Different metrics are not compared."
    if first["data"]["sha256"] != second["data"]["sha256"]:
        return "Different data: quality is not compared."
    return None


def _costs(first: Record, second: Record) -> Iterator[tuple[str, ...]]:
    unfit = _unfit(first, second)
    for key, figures in _compared_costs(first, second):
        ratio = None if key in unfit else _ratio(*figures)
        texts = (written(figure, COSTS[key].unit) for figure in figures)
        yield label(COSTS[key]), *texts, "", "" if ratio is None else f"{ratio:.3g}"


def _unfit(first: Record, second: Record) -> dict[str, str]:
    """Return the costs of two runs whose ratio would mislead, each with why."""
    if first["spec"]["task"] != second["spec"]["task"]:
        return dict.fromkeys(COSTS, "the tasks differ")
    unfit: dict[str, str] = {}
    for each in (first, second):
        unfit |= dict.fromkeys(disturbed(each), "disturbed by other programs")
        unfit |= not_comparable(each)
    return unfit


def _without_ratio(first: Record, second: Record) -> Iterator[tuple[str, list[str]]]:
    """Go through the reasons why known costs have no ratio, each with the labels of these costs."""
    if first["spec"]["task"] != second["spec"]["task"]:
        return  # one line says so already
    unfit = _unfit(first, second)
    known = [
        key
        for key, figures in _compared_costs(first, second)
        if key in unfit and _ratio(*figures) is not None
    ]
    for why in dict.fromkeys(unfit[key] for key in known):
        yield why, [label(COSTS[key]) for key in known if unfit[key] == why]


def _compared_costs(first: Record, second: Record) -> Iterator[tuple[str, Pair]]:
    """Go through the costs of two runs, without those that their machines decide if they differ."""
    costs: tuple[Mapping[str, Any], ...] = first["cost"], second["cost"]
    for key in COSTS:
        if key not in DEPENDS_ON_MACHINE or _same_machine(first, second, COSTS[key].of):
            yield key, (costs[0].get(key), costs[1].get(key))


def _ratio(before: float | None, after: float | None) -> float | None:
    return after / before if before and after is not None else None


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _same_machine(first: Record, second: Record, of: Literal["run", "network"]) -> bool:
    """Return whether one machine measured the costs of two runs, or of their final networks."""
    return _machine(first, of) == _machine(second, of) is not None


def _machine(record: Record, of: Literal["run", "network"]) -> str | None:
    describe = network_machine if of == "network" else machine
    return describe(record["provenance"])


@dataclass(frozen=True)
class _Compared:
    """A request that a run of either folder answers, with the run of each."""

    request: str
    first: Record | None
    second: Record | None

    @property
    def metric(self) -> str:
        """The metric of the run of A, if there is one, or else of that of B."""
        record = self.first or self.second
        assert record is not None
        return record["quality"]["metric"]

    @property
    def verdict(self) -> str:
        """Whether both runs have the same outcome."""
        if self.first is None or self.second is None:
            return "only in B" if self.first is None else "only in A"
        return "equal" if _outcome(self.first) == _outcome(self.second) else "differs"


def _by_both(before: Mapping[str, Record], after: Mapping[str, Record]) -> list[_Compared]:
    requests = sorted(before.keys() | after.keys())
    return [_Compared(request, before.get(request), after.get(request)) for request in requests]


def _compare_folders(
    first: Path, before: Mapping[str, Record], second: Path, after: Mapping[str, Record]
) -> str:
    rows = [("run", "metric", "A", "B", "")]
    for each in _by_both(before, after):
        results = _result(each.first), _result(each.second)
        rows.append((each.request, each.metric, *results, each.verdict))
    lines = [f"A  {first}", f"B  {second}", "", table(rows, left=2)]
    changes = [
        (setting, metric, *_noise(interval))
        for setting, metric, interval in _differences_over_seeds(before, after)
    ]
    if changes:
        header = ("over the seeds", "metric", "B - A", "95 % interval", "seeds", "")
        lines += ["", table([header, *changes], left=2)]
    if len(changes) > 1:
        lines += [
            "",
            "Intervals are not corrected for their number: "
            "if nothing has changed, about one in twenty is called more than noise.",
        ]
    return "\n".join(lines)


def _folders_as_object(
    first: str, before: Mapping[str, Record], second: str, after: Mapping[str, Record]
) -> dict[str, Any]:
    """Return the comparison of two folders for JSON; `JSON_HELP` explains the keys."""

    def ended(record: Record | None) -> dict[str, Any] | None:
        if record is None:
            return None
        return {"status": record["status"], "test": record["quality"]["test"]}

    runs = [
        {
            "run": each.request,
            "metric": each.metric,
            "a": ended(each.first),
            "b": ended(each.second),
            "verdict": each.verdict,
        }
        for each in _by_both(before, after)
    ]
    over_seeds = [
        {
            "run": setting,
            "metric": metric,
            "difference": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "seeds": interval.n,
            "verdict": _noise(interval)[-1],
        }
        for setting, metric, interval in _differences_over_seeds(before, after)
    ]
    return {"a": first, "b": second, "runs": runs, "over_seeds": over_seeds}


def _differences_over_seeds(
    before: Mapping[str, Record], after: Mapping[str, Record]
) -> Iterator[tuple[str, str, Interval]]:
    """Go through the settings with a changed run: name, metric, mean difference paired by seed."""
    settings: dict[tuple[str, str], tuple[dict[int, float], dict[int, float]]] = {}
    for request in sorted(before.keys() & after.keys()):
        one, other = before[request]["quality"], after[request]["quality"]
        if one["test"] is None or other["test"] is None or one["metric"] != other["metric"]:
            continue
        seed = before[request]["spec"]["seed"]
        key = request.replace(f" seed {seed} ", " ", 1), one["metric"]
        tests = settings.setdefault(key, ({}, {}))
        tests[0][seed], tests[1][seed] = one["test"], other["test"]
    for (setting, metric), (old, new) in settings.items():
        change = difference(new, old)
        if old != new and change is not None:
            yield setting, metric, change


def _noise(change: Interval) -> tuple[str, str, str, str]:
    low, high = change.low, change.high
    if low is None or high is None:
        return f"{change.mean:+.4g}", "-", str(change.n), "too few seeds to tell"
    verdict = "more than noise" if low > 0 or high < 0 else "within noise"
    return (
        f"{change.mean:+.4g}",
        f"{low:+.4g} to {high:+.4g}",
        str(change.n),
        verdict if change.decides else "too few seeds to tell",
    )


def _request(record: Record) -> str:
    spec = record["spec"]
    overrides = " ".join(f"{name}={as_text(value)}" for name, value in spec["overrides"].items())
    target = spec.get("budget") or f"{spec['sparsity']:g}"
    words = (spec["task"], spec["pruner"], target, f"seed {spec['seed']}")
    return " ".join(word for word in (*words, spec["profile"], overrides) if word)


def _result(record: Record | None) -> str:
    if record is None:
        return "-"
    test = record["quality"]["test"]
    return record["status"] if test is None else number(test)


def _outcome(record: Record) -> tuple[object, ...]:
    quality = record["quality"]
    return record["status"], quality["test"], quality["validation"], record["sparsity"]["weights"]
