"""Groups of runs that differ only in their seed, and the sections in which groups are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.record import TESTED, WITH_RESULT
from harness.results.intervals import BySeed, Interval, difference, mean_interval, ratio
from reports.quantities import ENERGY, QUANTITIES
from reports.results import (
    UNTRIED,
    Machines,
    Results,
    Run,
    energy_is_estimated,
    finite,
    values,
)

METRICS = ("test", "validation")
"""The main metric, on both parts of the data."""

INCLUDES_STAMPED = "INCLUDES STAND-IN, SYNTHETIC OR UNOFFICIAL DATA"
"""The stamp of what was made from several sections, some of which have a stamp."""


@dataclass(frozen=True)
class Group:
    """The runs of one method at one sparsity, which differ only in their seed.

    Attributes:
        kind: of the method: dense, structured, unstructured or control.
        statuses: how many runs have each status.
        values: each known quantity, by seed.
        intervals: of each known quantity, over the seeds.
        differences: to dense, of each metric, paired by seed, in the metric's unit.
        ratios: to dense, of each other quantity, paired by seed.
        reasons: why a quantity is not known.
        estimated: quantities that are only estimated.
        disturbed: quantities whose measurement other programs disturbed in some run.
        members: the runs.
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
    members: Sequence[Run] = field(repr=False)

    @property
    def pruner(self) -> str:
        """The method's name without its options."""
        return self.members[0].pruner

    @property
    def budget(self) -> str:
        """What its networks may cost, as in "macs=0.25"; empty if a sparsity was requested."""
        return self.members[0].budget

    @property
    def runs(self) -> int:
        """How many runs there are, whatever their status."""
        return sum(self.statuses.values())

    @property
    def tested(self) -> int:
        """How many of them were tested."""
        return sum(self.statuses.get(status, 0) for status in TESTED)

    @property
    def tried(self) -> bool:
        """Whether any of them was carried out."""
        return not self.statuses.keys() <= set(UNTRIED)

    @property
    def status(self) -> str:
        """The worst status of its runs; a missing run counts only if all are missing."""
        order = ("failed", "diverged", "collapsed", "skipped", "done", "missing")
        return next(status for status in order if self.statuses.get(status))

    @property
    def reason(self) -> str | None:
        """Why its runs have this status."""
        reasons = (run.reason for run in self.members if run.status == self.status)
        return next((reason for reason in reasons if reason is not None), None)

    @property
    def remark(self) -> str:
        """How many of its runs are not done, by status, in words."""
        bad = [f"{n} {status}" for status, n in self.statuses.items() if status != "done"]
        return f"{', '.join(bad)} of {self.runs}" if bad else ""


@dataclass(frozen=True)
class Section:
    """The runs of one task in one profile with the same data and settings, which are comparable.

    Attributes:
        slug: a name for files and links.
        machine: the machines whose times, memory and energy are shown.
        machines: all machines of its runs.
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
    machine: Machines
    machines: Sequence[str]
    baseline: float | None
    groups: Sequence[Group]

    @property
    def name(self) -> str:
        """The title, with profile and setting if they are not the usual ones."""
        further = [self.profile] if self.profile != "embedded" else []
        further += [self.setting] if self.setting else []
        return f"{self.title} ({'; '.join(further)})" if further else self.title

    @property
    def stamp(self) -> str | None:
        """A warning on tables and figures if the data are not what the task is named after.

        They may be synthetic, stand in for published ones, or be in other files than those.

        Other real data, such as a user's own, have none.
        """
        if self.source in ("synthetic", "unofficial"):
            return f"{self.source.upper()} DATA: {self.data_name}"
        return f"STAND-IN DATA: {self.data_name}" if self.stands_in else None

    @property
    def dense(self) -> Group | None:
        """The group of the dense network."""
        return next((group for group in self.groups if group.kind == "dense"), None)

    @property
    def tried(self) -> Sequence[Group]:
        """The groups with a run that was carried out."""
        return [group for group in self.groups if group.tried]

    @property
    def tested(self) -> bool:
        """Whether any run was tested."""
        return any(group.tested for group in self.groups)

    @property
    def sparsities(self) -> Sequence[float]:
        """The requested sparsities, without 0."""
        return sorted({group.sparsity for group in self.groups if group.sparsity})

    @property
    def metric_title(self) -> str:
        """The metric's name in words."""
        return self.metric.replace("_", " ")

    @property
    def higher_is_better(self) -> bool:
        """Whether a large value of the metric is good."""
        return self.goal == "max"

    def better(self, first: float, second: float) -> bool:
        """Return whether the first metric is better than the second."""
        return first > second if self.higher_is_better else first < second


def normalised(section: Section, group: Group) -> dict[int, float] | None:
    """Return a score for each seed: 0 is the baseline, 1 the mean of the dense network.

    The baseline is the best predictor that ignores its input. A run that is no better than the
    baseline scores 0, and so does one that diverged or collapsed: how much worse it is decides
    nothing. Scores have no upper bound. A run that failed says nothing about its method and has no
    score.

    Returns:
        The scores by seed; None if there is no dense result, or it is no better than the baseline.
    """
    dense = section.dense.intervals.get("test") if section.dense else None
    if dense is None or section.baseline is None:
        return None
    if not section.better(dense.mean, section.baseline):
        return None
    tests = _metric(group.members, "test")
    way = dense.mean - section.baseline
    return {
        run.seed: max(0.0, (tests.get(run.seed, section.baseline) - section.baseline) / way)
        for run in group.members
        if run.status in WITH_RESULT
    }


def pooled(sections: Sequence[Section]) -> list[Section]:
    """Return the sections of which results are taken together, in rankings and verdicts.

    Unofficial data of a task are left out where there are official data of it.
    """
    official = {section.task for section in sections if section.source == "official"}
    return [s for s in sections if s.source != "unofficial" or s.task not in official]


KINDS = ("dense", "structured", "unstructured", "control")


def sections(results: Results) -> list[Section]:
    """Return the sections of the runs that count, ordered by task, profile and setting."""
    together: dict[tuple[str, ...], list[Run]] = {}
    for run in results.runs:
        together.setdefault(run.section, []).append(run)
    made: list[Section] = []
    for place in sorted(together):
        runs = together[place]
        made.append(_section(_slug(runs[0], {section.slug for section in made}), runs))
    return made


def _slug(run: Run, taken: set[str]) -> str:
    words = f"{run.task}-{run.profile}-{run.setting}".lower()
    clean = "".join(c if c.isascii() and c.isalnum() else "-" for c in words)
    slug = "-".join(part for part in clean.split("-") if part)[:60] or "task"
    candidates = [slug, *(f"{slug}-{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)


def _section(slug: str, runs: Sequence[Run]) -> Section:
    first = next((run for run in runs if run.source is not None), runs[0])
    place = Machines.of_most(runs)
    baselines = finite((run.seed, run.baseline) for run in runs)
    dense = [run for run in runs if run.kind == "dense"]
    together: dict[tuple[str, float], list[Run]] = {}
    for run in runs:
        together.setdefault((run.method, run.sparsity), []).append(run)
    groups = [_group(same, dense, place) for same in together.values()]
    return Section(
        slug=slug,
        task=first.task,
        title=first.task_title,
        profile=first.profile,
        setting=first.setting,
        source=first.source,
        data_name=first.data_name,
        stands_in=first.stands_in,
        metric=first.metric,
        goal=first.goal,
        machine=place,
        machines=sorted(
            {name for run in runs for name in (run.machine, run.network_machine) if name}
        ),
        baseline=next(iter(baselines.values()), None),
        groups=sorted(groups, key=lambda g: (_rank(g.kind), g.title, g.method, g.sparsity)),
    )


def _rank(kind: str) -> tuple[int, str]:
    return (KINDS.index(kind) if kind in KINDS else len(KINDS), kind)


def _group(runs: Sequence[Run], dense: Sequence[Run], place: Machines) -> Group:
    first = runs[0]
    found: dict[str, BySeed] = {}
    differences: dict[str, Interval] = {}
    ratios: dict[str, Interval] = {}
    reasons: dict[str, str] = {}
    for key in (*METRICS, *_further(runs)):
        if not (by_seed := _metric(runs, key)):
            reasons[key] = _why_untested(runs)
            continue
        found[key] = by_seed
        if (compared := difference(by_seed, _metric(dense, key))) is not None:
            differences[key] = compared
    for key in QUANTITIES:
        by_seed, reason = values(runs, key, place)
        if not by_seed:
            reasons[key] = reason
            continue
        found[key] = by_seed
        if (compared := ratio(by_seed, values(dense, key, place)[0])) is not None:
            ratios[key] = compared
    return Group(
        method=first.method,
        title=first.method_title,
        kind=first.kind,
        sparsity=first.sparsity,
        statuses=dict(sorted(Counter(run.status for run in runs).items())),
        run_ids=[run.run_id for run in runs],
        values=found,
        intervals={key: mean_interval(list(each.values())) for key, each in found.items()},
        differences=differences,
        ratios=ratios,
        reasons=reasons,
        estimated=frozenset(key for key in ENERGY if energy_is_estimated(runs, key)),
        disturbed=frozenset[str]().union(*(run.disturbed for run in runs)),
        pruned_after=sorted({moment for run in runs for moment in run.pruned_after}),
        members=runs,
    )


def _further(runs: Iterable[Run]) -> list[str]:
    return sorted({name for run in runs for name in run.metrics} - set(METRICS))


def _metric(runs: Iterable[Run], key: str) -> dict[int, float]:
    """Return a metric of the runs that were tested, by seed."""
    return finite((run.seed, run.metrics.get(key)) for run in runs if run.tested)


def _why_untested(runs: Sequence[Run]) -> str:
    if any(run.tested for run in runs):
        return "is not finite"
    status, reason = runs[0].status, runs[0].reason
    return f"{status}: {reason}" if reason is not None else status
