"""Runs that differ in their seed only, and the runs they can be compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.results.intervals import BySeed, Interval, difference, mean_interval, ratio
from reports.quantities import ENERGY, QUANTITIES
from reports.results import (
    TESTED,
    UNTRIED,
    Results,
    Row,
    energy_is_estimated,
    finite,
    majority_device,
    values,
)

QUALITIES = ("test", "validation")


@dataclass(frozen=True)
class Group:
    """The runs of one method at one sparsity: they differ in their seed only.

    Attributes:
        values: of each quantity that there is, by seed.
        intervals: of each quantity that there is, over the seeds.
        differences: to dense, of each quality: paired by seed, in the metric's unit.
        ratios: to dense, of each other quantity: paired by seed.
        reasons: why there is no number, by quantity.
        estimated: quantities that were only estimated.
        disturbed: quantities whose measurement other work on the machine disturbed in some run.
        rows: the runs themselves.
    """

    method: str
    title: str
    kind: str
    sparsity: float
    statuses: Mapping[str, int]
    run_ids: Sequence[str]
    values: Mapping[str, BySeed] = field(repr=False)
    intervals: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    ratios: Mapping[str, Interval]
    reasons: Mapping[str, str]
    estimated: frozenset[str]
    disturbed: frozenset[str]
    pruned_after: Sequence[float]
    rows: Sequence[Row] = field(repr=False)

    @property
    def pruner(self) -> str:
        """The method's name, whatever its options."""
        return str(self.rows[0]["pruner"])

    @property
    def runs(self) -> int:
        """How many runs there are, whatever became of them."""
        return sum(self.statuses.values())

    @property
    def tested(self) -> int:
        """How many of them have a result."""
        return sum(self.statuses.get(status, 0) for status in TESTED)

    @property
    def tried(self) -> bool:
        """Whether any of them was carried out."""
        return not self.statuses.keys() <= set(UNTRIED)

    @property
    def status(self) -> str:
        """The worst that became of its runs; that some are still missing is no ending."""
        order = ("failed", "diverged", "collapsed", "skipped", "done", "missing")
        return next(status for status in order if self.statuses.get(status))

    @property
    def reason(self) -> str | None:
        """Why its runs ended so."""
        reasons = (row["reason"] for row in self.rows if row["status"] == self.status)
        return next((reason for reason in reasons if reason is not None), None)

    @property
    def remark(self) -> str:
        """Which of its runs did not end well or are missing, in words."""
        bad = [f"{n} {status}" for status, n in self.statuses.items() if status != "done"]
        return f"{', '.join(bad)} of {self.runs}" if bad else ""


@dataclass(frozen=True)
class Section:
    """One task in one profile with one set of data and settings: what can be compared.

    Attributes:
        slug: a name for files and links.
        device: the machine whose times and energy are shown.
        baseline: the test metric of the best predictor that ignores its input.
        groups: dense first, then by kind, method and sparsity.
    """

    slug: str
    task: str
    title: str
    profile: str
    setting: str
    source: str | None
    data_name: str | None
    stands_in: bool
    metric: str
    goal: str
    device: str | None
    devices: Sequence[str]
    baseline: float | None
    groups: Sequence[Group]

    @property
    def name(self) -> str:
        """The title with what tells it from other sections of the task."""
        further = [self.profile] if self.profile != "embedded" else []
        further += [self.setting] if self.setting else []
        return f"{self.title} ({'; '.join(further)})" if further else self.title

    @property
    def stamp(self) -> str | None:
        """What every table and figure says of data that take the place of published ones.

        Real data that take nobody's place, as a user's own, have none.
        """
        if self.source == "synthetic":
            return f"SYNTHETIC DATA: {self.data_name}"
        return f"STAND-IN DATA: {self.data_name}" if self.stands_in else None

    @property
    def dense(self) -> Group | None:
        """The runs of the whole network."""
        return next((group for group in self.groups if group.kind == "dense"), None)

    @property
    def tried(self) -> Sequence[Group]:
        """The groups of which any run was carried out."""
        return [group for group in self.groups if group.tried]

    @property
    def tested(self) -> bool:
        """Whether any run has a result."""
        return any(group.tested for group in self.groups)

    @property
    def sparsities(self) -> Sequence[float]:
        """What was asked of the methods that can be asked."""
        return sorted({group.sparsity for group in self.groups if group.sparsity})

    @property
    def metric_title(self) -> str:
        """The metric as people write it."""
        return self.metric.replace("_", " ")

    @property
    def higher_is_better(self) -> bool:
        """Whether the metric is to be large."""
        return self.goal == "max"

    def better(self, first: float, second: float) -> bool:
        """Return whether the first metric is better than the second."""
        return first > second if self.higher_is_better else first < second


def normalised(section: Section, group: Group) -> dict[int, float] | None:
    """Return a score for each seed: 0 is the baseline, 1 the dense network's mean.

    The baseline is the best predictor that ignores its input. Whatever is no better than that
    scores 0, alike for all that is lost: a run that diverged, one that collapsed, and finite
    nonsense; so no score is below 0, and how far below a network fell decides nothing. Above 1
    there is no bound. A run that failed says nothing of its method and has no score.

    None where dense was not run, or is no better than the baseline.
    """
    dense = section.dense.intervals.get("test") if section.dense else None
    if dense is None or section.baseline is None:
        return None
    if not section.better(dense.mean, section.baseline):
        return None
    tests = _quality(group.rows, "test")
    way = dense.mean - section.baseline
    return {
        run["seed"]: max(0.0, (tests.get(run["seed"], section.baseline) - section.baseline) / way)
        for run in group.rows
        if run["status"] in (*TESTED, "diverged")
    }


KINDS = ("dense", "structured", "unstructured", "control")


def sections(results: Results) -> list[Section]:
    """Return what can be compared, in the order of task, profile and setting."""
    if results.runs.empty:
        return []
    made: list[Section] = []
    for _, runs in results.runs.groupby("section", sort=True):
        rows = runs.to_dict("records")
        made.append(_section(_slug(rows[0], {section.slug for section in made}), rows))
    return made


def _slug(run: Row, taken: set[str]) -> str:
    words = f"{run['task']}-{run['profile']}-{run['setting']}".lower()
    clean = "".join(c if c.isascii() and c.isalnum() else "-" for c in words)
    slug = "-".join(part for part in clean.split("-") if part)[:60] or "task"
    candidates = [slug, *(f"{slug}-{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)


def _section(slug: str, rows: Sequence[Row]) -> Section:
    first = next((row for row in rows if row["source"] is not None), rows[0])
    device = majority_device(rows)
    baselines = finite(rows, "baseline")
    dense = [row for row in rows if row["group"] == "dense"]
    together: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        together.setdefault((row["method"], row["sparsity"]), []).append(row)
    groups = [_group(same, dense, device) for same in together.values()]
    return Section(
        slug=slug,
        task=first["task"],
        title=first["task_title"],
        profile=first["profile"],
        setting=first["setting"],
        source=first["source"],
        data_name=first["data_name"],
        stands_in=first["stands_in"],
        metric=first["metric"],
        goal=first["goal"],
        device=device,
        devices=sorted({row["device"] for row in rows if row["device"] is not None}),
        baseline=next(iter(baselines.values()), None),
        groups=sorted(groups, key=lambda g: (_rank(g.kind), g.title, g.method, g.sparsity)),
    )


def _rank(kind: str) -> tuple[int, str]:
    return (KINDS.index(kind) if kind in KINDS else len(KINDS), kind)


def _group(rows: Sequence[Row], dense: Sequence[Row], device: str | None) -> Group:
    first = rows[0]
    found: dict[str, BySeed] = {}
    differences: dict[str, Interval] = {}
    ratios: dict[str, Interval] = {}
    reasons: dict[str, str] = {}
    for key in (*QUALITIES, *_further(rows)):
        if not (by_seed := _quality(rows, key)):
            reasons[key] = _why_untested(rows)
            continue
        found[key] = by_seed
        if (compared := difference(by_seed, _quality(dense, key))) is not None:
            differences[key] = compared
    for key in QUANTITIES:
        by_seed, reason = values(rows, key, device)
        if not by_seed:
            reasons[key] = reason
            continue
        found[key] = by_seed
        if (compared := ratio(by_seed, values(dense, key, device)[0])) is not None:
            ratios[key] = compared
    return Group(
        method=first["method"],
        title=first["method_title"],
        kind=first["group"],
        sparsity=first["sparsity"],
        statuses=dict(sorted(Counter(row["status"] for row in rows).items())),
        run_ids=[row["run_id"] for row in rows],
        values=found,
        intervals={key: mean_interval(list(each.values())) for key, each in found.items()},
        differences=differences,
        ratios=ratios,
        reasons=reasons,
        estimated=frozenset(key for key in ENERGY if energy_is_estimated(rows, key)),
        disturbed=frozenset[str]().union(*(row["disturbed"] for row in rows)),
        pruned_after=sorted({moment for row in rows for moment in row["pruned_after"]}),
        rows=rows,
    )


def _further(rows: Iterable[Row]) -> list[str]:
    return sorted({f"further:{name}" for row in rows for name in row["further"]})


def _quality(rows: Iterable[Row], key: str) -> dict[int, float]:
    """Return a metric of the runs that were tested, by seed."""
    tested = [row for row in rows if row["status"] in TESTED]
    if not key.startswith("further:"):
        return finite(tested, key)
    name = key.removeprefix("further:")
    return finite([{"seed": row["seed"], key: row["further"].get(name)} for row in tested], key)


def _why_untested(rows: Sequence[Row]) -> str:
    if any(row["status"] in TESTED for row in rows):
        return "is no finite number"
    status, reason = rows[0]["status"], rows[0]["reason"]
    return f"{status}: {reason}" if reason is not None else str(status)
