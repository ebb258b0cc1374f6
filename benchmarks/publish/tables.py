"""The tables of the documents in Markdown, made from the published runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import measurement
from benchmarks.publish.runs import read_rows, sections_of
from harness.record import COSTS
from harness.registry import Registry
from harness.results.intervals import ratio
from harness.text import duration, markdown_table, percent, several
from reports.charts import left_of_kinds
from reports.claims import Outcome, Verdict, judge
from reports.figures import MAIN_COSTS
from reports.groups import Group, Section, pooled
from reports.moments import TRIGGERS, Curve, Moments, moments
from reports.results import finite, undisturbed, values

Target = float | str
"""A sparsity of the weights, or a budget, as in "macs=0.25"."""

UNKNOWN = "-"
"""In place of a number."""


def section_of(suite: str, task: str) -> Section | None:
    """Return the published runs of a suite on a task; None if none of them was tested."""
    found = (each for each in sections_of([suite]) if each.task == task and each.tested)
    return next(found, None)


@dataclass(frozen=True)
class Comparison:
    """Methods beside the dense network of the same seed, the best first.

    The table has the mean difference over the seeds with the 95 % interval of Student's t, for each
    target. Costs are ratios to the same dense runs, as the geometric mean over the seeds, at the
    first target. Measurements that other programs disturbed do not count, nor do those of other
    machines than most. A run that diverged has neither metric nor costs.

    Attributes:
        suite: whose runs are compared.
        task: on which task.
        targets: what the networks were pruned to, a column each.
        costs: a column each, if any method has a value.
        kinds: of the methods.
        channels: whether there are columns with the fraction of channels left of each kind.
    """

    suite: str
    task: str
    targets: Sequence[Target]
    costs: Sequence[str] = MAIN_COSTS
    kinds: Sequence[str] = ("structured", "unstructured", "control")
    channels: bool = False

    def markdown(self) -> str:
        """Return the table with a note."""
        section = section_of(self.suite, self.task)
        if section is None or section.dense is None or not section.dense.tested:
            return ""
        methods = self._methods(section)
        shown = {
            name: groups
            for name, groups in methods.items()
            if any(group.tested for group in groups.values())
        }
        tested = {
            target for groups in shown.values() for target, group in groups.items() if group.tested
        }
        targets = [target for target in self.targets if target in tested]
        if not targets:
            return ""

        def order(name: str) -> tuple[int, float]:
            """Return the key by which methods are sorted: the difference at the first target."""
            for place, target in enumerate(targets):
                change = (
                    shown[name][target].differences.get("test") if target in shown[name] else None
                )
                if change is not None:
                    return place, -change.mean if section.higher_is_better else change.mean
            return len(targets), 0.0

        pruners = Registry().of_kind("pruner")
        left = {
            name: left_of_kinds(groups[targets[0]]) if targets[0] in groups else {}
            for name, groups in (shown if self.channels else {}).items()
        }
        kinds = [*dict.fromkeys(kind for own in left.values() for kind in own)]
        ratios = {
            cost: {name: _ratio(cost, shown[name].get(targets[0]), section) for name in shown}
            for cost in self.costs
        }
        costs = {cost: known for cost, known in ratios.items() if {*known.values()} != {UNKNOWN}}
        rows = [
            [
                f"`{name}`",
                pruners[name].arguments.get("when", ""),
                *(_difference(shown[name].get(target), section) for target in targets),
                *(f"{left[name][kind]:.2f}" if kind in left[name] else "" for kind in kinds),
                *(each[name] for each in costs.values()),
            ]
            for name in sorted(shown, key=order)
        ]
        head = ["", "prunes", *map(_in_words, targets), *kinds]
        table = markdown_table([*head, *(COSTS[cost].label.lower() for cost in costs)], rows)
        untested = [groups for name, groups in methods.items() if name not in shown]
        notes = [*self._notes(section, targets[0], [*costs]), *_endings(untested)]
        return f"{table}\n{' '.join(notes)}\n"

    def _methods(self, section: Section) -> Mapping[str, Mapping[Target, Group]]:
        """Return the groups of each method by target, without variants of the method."""
        found: dict[str, dict[Target, Group]] = {}
        for group in section.groups:
            is_plain = group.members[0].variant in ("", f"budget={group.budget}")
            if group.kind in self.kinds and is_plain and _target(group) in self.targets:
                found.setdefault(group.pruner, {})[_target(group)] = group
        return found

    def _notes(self, section: Section, first: Target, costs: Sequence[str]) -> Iterator[str]:
        """Iterate over sentences that say what the numbers are."""
        yield f"**{section.stamp}.**" if section.stamp else f"Data: {section.data_name}."
        dense = section.dense
        assert dense is not None
        mean = _number(statistics.mean(dense.values["test"].values()), section)
        better = "higher" if section.higher_is_better else "lower"
        yield (
            f"`dense` has a test {section.metric_title} of {mean} "
            f"({_seeds(dense.tested, dense.runs)}); {better} is better. The other rows have the "
            "mean difference to it, paired by seed, with the 95 % interval."
        )
        if self.channels:
            yield f"Of the kinds of channels it has the fraction left, at {_in_words(first)}."
        if costs:
            words = f"Costs are ratios to `dense`, at {_in_words(first)}"
            if any(COSTS[cost].by_device for cost in costs) and section.machine.network:
                words += f", on {section.machine.network.partition(', machine')[0]}; a dash if "
                words += "they were not measured there or other programs disturbed the measurement"
            yield f"{words}."


def _target(group: Group) -> Target:
    return group.budget or group.sparsity


def _endings(methods: Sequence[Mapping[Target, Group]]) -> Iterator[str]:
    """Iterate over sentences that say why methods have no result."""
    groups = [min(by_target.values(), key=_rank) for by_target in methods]
    for status, words in UNTESTED.items():
        if names := sorted(f"`{group.pruner}`" for group in groups if group.status == status):
            yield f"{words}: {', '.join(names)}."


UNTESTED = {
    "diverged": "Diverged",
    "failed": "Failed",
    "missing": "Not run yet",
    "skipped": "Not possible with this network",
}


def _rank(group: Group) -> int:
    return list(UNTESTED).index(group.status)


def _in_words(target: Target) -> str:
    return f"{percent(target)} removed" if isinstance(target, float) else f"`{target}`"


def _seeds(known: int, of: int) -> str:
    return several(known, "seed") if known == of else f"{known} of {of} seeds"


def _number(value: float, section: Section, sign: str = "") -> str:
    """Return a metric, or a difference with a sign, with about four digits of the dense metric."""
    size = abs(section.dense.intervals["test"].mean) if section.dense else 0
    return f"{value:{sign}.{2 if size >= 10 else 3}f}"


def _difference(group: Group | None, section: Section) -> str:
    """Return the difference to dense, with its interval, and which runs it lacks."""
    if group is None:
        return ""
    change = group.differences.get("test")
    if change is None:
        return "" if group.status == "missing" else group.status
    remarks = [
        f"{number} {status}"
        for status, number in group.statuses.items()
        if status in ("collapsed", "diverged", "failed")
    ]
    if section.dense is not None and change.n < section.dense.tested:
        remarks.insert(0, _seeds(change.n, group.runs))
    words = _number(change.mean, section, "+")
    if change.low is not None and change.high is not None:
        words += f" ({_number(change.low, section, '+')} to {_number(change.high, section, '+')})"
    return ", ".join([words, *remarks])


def _ratio(cost: str, group: Group | None, section: Section) -> str:
    """Return the mean ratio of a cost to dense."""
    if group is None or section.dense is None:
        return UNKNOWN
    ours, theirs = (
        values(undisturbed(each.members, cost), cost, section.machine)[0]
        for each in (group, section.dense)
    )
    found = ratio(ours, theirs)
    return UNKNOWN if found is None else f"{found.mean:.3f}"


@dataclass(frozen=True)
class Dense:
    """The dense network of every task of some suites, in each setting.

    Attributes:
        suites: whose runs are shown.
        timed: whether to show the time of training, as the mean of undisturbed runs.
    """

    suites: Sequence[str]
    timed: bool = True

    def markdown(self) -> str:
        """Return a table with a row for each task and setting."""
        rows = [
            [
                f"`{section.task}`",
                section.setting or "-",
                section.metric_title,
                _number(dense.intervals["test"].mean, section),
                _seeds(dense.tested, dense.runs),
                *([_training_time(dense)] if self.timed else []),
                section.stamp or section.data_name or "",
            ]
            for section in sections_of(self.suites)
            if (dense := section.dense) is not None and dense.tested
        ]
        if not rows:
            return "No run has been published yet.\n"
        head = ["", "setting", "metric", "test", "seeds"]
        return markdown_table([*head, *(["training"] if self.timed else []), "data"], rows)


def _training_time(group: Group) -> str:
    quiet = undisturbed(group.members, "train_seconds")
    seconds = finite((run.seed, run.quantities["train_seconds"]) for run in quiet).values()
    return duration(statistics.mean(seconds)) if seconds else UNKNOWN


def moments_of(suite: str, task: str) -> tuple[Section, Moments] | None:
    """Return the curves over the moment of pruning, with their section; None without runs."""
    section = section_of(suite, task)
    found = moments(run for group in section.groups for run in group.members) if section else None
    return None if section is None or found is None else (section, found)


@dataclass(frozen=True)
class MomentCurves:
    """The test metric by the epoch after which the network is pruned: mean and range."""

    suite: str
    task: str

    def markdown(self) -> str:
        """Return a table with a row for each epoch and a column for each curve."""
        known = moments_of(self.suite, self.task)
        if known is None:
            return ""
        section, found = known
        epochs = sorted({epoch for curve in found.curves for epoch in curve.points})
        head = ["epoch", *(f"{_removed(c.units, c.sparsity)}, {c.title}" for c in found.curves)]
        rows = [
            [f"{e:g}", *(self._cell(e, curve, section) for curve in found.curves)] for e in epochs
        ]
        dense = "" if found.dense is None else f" (`dense`: {_number(found.dense.mean, section)})"
        seeds = max(len(v) for curve in found.curves for _, v in curve.points.values())
        note = f"Test {section.metric_title}{dense}; mean and range over {seeds} seeds."
        return f"{markdown_table(head, rows)}\n{note}\n"

    @staticmethod
    def _cell(epoch: float, curve: Curve, section: Section) -> str:
        if epoch not in curve.points:
            return ""
        interval, seeds = curve.points[epoch]
        ends = f"{_number(min(seeds), section)} to {_number(max(seeds), section)}"
        return f"{_number(interval.mean, section)} ({ends})"


def _removed(units: str, sparsity: float) -> str:
    return f"{percent(sparsity)} by {units}"


@dataclass(frozen=True)
class MomentsOfTriggers:
    """The epochs after which triggers would fire, seed by seed."""

    suite: str
    task: str

    def markdown(self) -> str:
        """Return a table with a row for each trigger."""
        known = moments_of(self.suite, self.task)
        if known is None:
            return ""
        _, found = known
        cells: dict[str, dict[tuple[str, float], str]] = {}
        for kind, firings in found.firings.items():
            for firing in firings:
                epochs = ["never" if e is None else f"{e:g}" for e in firing.epochs.values()]
                cells.setdefault(firing.title, {})[kind] = ", ".join(epochs)
        if not cells:
            return ""
        head = ["", *(_removed(*kind) for kind in found.firings)]
        rows = [
            [title, *(of_title.get(kind, "") for kind in found.firings)]
            for title, of_title in cells.items()
        ]
        return markdown_table(head, rows)


@dataclass(frozen=True)
class Readings:
    """What the trigger of the lazy regime reads after each epoch up to the cap, with one seed."""

    suite: str

    def markdown(self) -> str:
        """Return a table with a row for each task and way to measure distances."""
        rows = [row for section in sections_of([self.suite]) for row in self._rows(section)]
        if not rows:
            return ""
        longest = max(map(len, rows))
        head = ["after epoch", *map(str, range(2, longest + 1))]
        return markdown_table(head, [row + [""] * (longest - len(row)) for row in rows])

    @staticmethod
    def _rows(section: Section) -> Iterator[list[str]]:
        observed = [run for group in section.groups for run in group.members if run.readings]
        if not observed:
            return
        first = min(observed, key=lambda run: run.seed)
        cap = float(first.quantities["epochs"] or 0) / 2
        for trigger in TRIGGERS[:2]:
            read = {e: v for e, v in first.readings[trigger.key].items() if 1 < e <= cap}
            cells = ("" if value is None else f"{value:#.2g}" for value in read.values())
            yield [f"`{section.task}`, {trigger.title}", *cells]


@dataclass(frozen=True)
class Claims:
    """The verdicts on the claims of the paper, from the runs of some suites together.

    Attributes:
        suites: whose runs are compared; if several have a run, the first one's counts.
    """

    suites: Sequence[str]

    def markdown(self) -> str:
        """Return a table with a row for each claim and the comparison that decides it."""
        together = pooled(
            [
                section
                for section in sections_of(self.suites)
                if any(group.tested and _target(group) for group in section.groups)
            ]
        )
        if not together:
            return ""
        verdicts = judge(together)
        rows = [
            [verdict.statement, f"**{verdict.verdict}**", verdict.because, _decisive(verdict)]
            for verdict in verdicts
        ]
        names = "; ".join(sorted({f"{each.name}: {each.data_name}" for each in together}))
        head = ["claim", "verdict", "because", "decisive comparison"]
        return f"{markdown_table(head, rows)}\nData: {names}.\n"


def _decisive(verdict: Verdict) -> str:
    """Return the comparison on which a verdict depends most, with its statistics.

    That is the clearest one that contradicts the claim, the most doubtful one otherwise.
    """
    same = [each for each in verdict.outcomes if each.decides and each.verdict == verdict.verdict]
    if not same:
        return ""
    known = [outcome for outcome in same if outcome.p is not None]
    pick = min if verdict.verdict == "contradicted" else max
    chosen: Outcome = pick(known or same[:1], key=lambda outcome: outcome.p or 0.0)
    return f"{chosen.what}: {chosen.effect}"


@dataclass(frozen=True)
class Rates:
    """How often verdicts are right in simulated matrices, for one kind of noise."""

    noise: str

    def markdown(self) -> str:
        """Return a table with a row for each shape of the matrix, in percent."""
        rows = [
            [
                row["shape"],
                *(
                    f"{_hundredfold(row[f'equal_{others}_supported'])} + "
                    f"{_hundredfold(row[f'equal_{others}_contradicted'])}"
                    for others in (1, 7)
                ),
                *(_hundredfold(row[column]) for column in ("one_1", "one_7", "held")),
            ]
            for row in read_rows("verdicts")
            if row["noise"] == self.noise
        ]
        head = [
            "tasks x sparsities x seeds",
            *("equal: one comparison", "equal: seven comparisons"),
            *("better: one comparison", "better: seven comparisons", "intervals that hold"),
        ]
        return markdown_table(head, rows) if rows else ""


def _hundredfold(share: str) -> str:
    return f"{100 * float(share):.1f}"


@dataclass(frozen=True)
class Difficulty:
    """What `benchmarks.difficulty` found, beside the dense network of a suite."""

    suite: str

    def markdown(self) -> str:
        """Return a table with a row for each task."""
        rows = read_rows("difficulty")
        dense = {
            section.task: section.dense.intervals["test"].mean
            for section in sections_of([self.suite])
            if section.dense is not None and section.dense.tested and not section.setting
        }
        cells = [
            [
                f"`{row['task']}`",
                *(f"{float(row[answer]):.1f}" for answer in ("constant", "linear")),
                f"{dense[row['task']]:.1f}" if row["task"] in dense else UNKNOWN,
            ]
            for row in rows
        ]
        head = ["", "constant answer", "linear classifier", "`dense`"]
        return markdown_table(head, cells) if cells else ""


@dataclass(frozen=True)
class Speed:
    """What `benchmarks.speed` measured: both sides of each ratio, and the ratio.

    Attributes:
        of_sparse_kernels: whether to show the benchmark of that name, or all others.
    """

    of_sparse_kernels: bool = False

    def markdown(self) -> str:
        """Return a table with a row for each ratio, and where they were measured."""
        rows = [
            row
            for row in read_rows("speed")
            if (row["benchmark"] == "sparse") == self.of_sparse_kernels
        ]
        if not rows:
            return ""
        head = ["ours / theirs", "ours", "theirs", "ratio", "limit"]
        table = markdown_table(head, [_cells_of_speed(row) for row in rows])
        return f"{table}\n{_machines_of_speed(rows)}\n"


def _cells_of_speed(row: Mapping[str, str]) -> list[str]:
    limit = float(row["limit"]) if row["limit"] else None
    line = measurement.Comparison(
        row["name"], float(row["ours"]), float(row["theirs"]), row["unit"], limit
    )
    return [
        row["name"],
        f"{row['ours']} {row['unit']}".strip(),
        f"{row['theirs']} {row['unit']}".strip(),
        f"{line.ratio:.3f}" + (" (falls short)" if line.falls_short else ""),
        row["limit"],
    ]


def _machines_of_speed(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a sentence for each machine, with the names of its benchmarks if there are several."""
    benchmarks: dict[str, dict[str, None]] = {}
    for row in rows:
        benchmarks.setdefault(row["machine"], {})[f"`{row['benchmark']}`"] = None
    if len(benchmarks) == 1:
        return f"Measured on {next(iter(benchmarks))}."
    return " ".join(
        f"Measured on {machine}: {', '.join(names)}." for machine, names in benchmarks.items()
    )
