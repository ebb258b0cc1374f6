"""Runs that differ in their seed only, and the runs they can be compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from harness.intervals import Interval, mean_interval, ratio_interval
from reports.quantities import QUANTITIES
from reports.results import TESTED, Results, energy_is_estimated, majority_device, values

QUALITIES = ("test", "validation")

WITHOUT_RESULT = ("failed", "diverged", "skipped")


@dataclass(frozen=True)
class Group:
    """The runs of one method at one sparsity: they differ in their seed only.

    Attributes:
        intervals: of each quantity that there is, over the seeds.
        differences: to dense, of each quality: paired by seed, in the metric's unit.
        ratios: to dense, of each other quantity: paired by seed.
        reasons: why there is no number, by quantity.
        estimated: quantities that were only estimated.
    """

    method: str
    title: str
    kind: str
    sparsity: float
    statuses: Mapping[str, int]
    run_ids: Sequence[str]
    reason: str | None
    intervals: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    ratios: Mapping[str, Interval]
    reasons: Mapping[str, str]
    estimated: frozenset[str]
    pruned_after: Sequence[float]
    emptied: int

    @property
    def runs(self) -> int:
        """How many runs there are, whatever became of them."""
        return sum(self.statuses.values())

    @property
    def without_result(self) -> int:
        """How many runs have no place in the means."""
        return sum(self.statuses.get(status, 0) for status in WITHOUT_RESULT)

    @property
    def status(self) -> str:
        """The worst that became of its runs."""
        order = ("failed", "diverged", "collapsed", "skipped", "done")
        return next(status for status in order if self.statuses.get(status))

    @property
    def remark(self) -> str:
        """Which of its runs did not end well, in words."""
        bad = [f"{n} {status}" for status, n in self.statuses.items() if status != "done"]
        return f"{', '.join(bad)} of {self.runs}" if bad else ""


@dataclass(frozen=True)
class Section:
    """One task in one profile with one set of data and settings: what can be compared.

    Attributes:
        slug: a name for files and links.
        device: the machine whose times and energy are shown.
        baseline: the test metric of who ignores the input.
        groups: dense first, then by kind, method and sparsity.
        runs: all of its rows.
    """

    slug: str
    task: str
    title: str
    profile: str
    setting: str
    source: str
    data_name: str
    metric: str
    goal: str
    device: str | None
    devices: Sequence[str]
    baseline: float | None
    groups: Sequence[Group]
    runs: pd.DataFrame = field(repr=False)

    @property
    def name(self) -> str:
        """The title with what tells it from other sections of the task."""
        further = [self.profile] if self.profile != "embedded" else []
        further += [self.setting] if self.setting else []
        return f"{self.title} ({'; '.join(further)})" if further else self.title

    @property
    def stamp(self) -> str | None:
        """What every table and figure says of data that are not the published ones."""
        words = {"synthetic": "SYNTHETIC", "real": "STAND-IN"}
        word = words.get(self.source)
        return f"{word} DATA: {self.data_name}" if word else None

    @property
    def dense(self) -> Group | None:
        """The runs of the whole network."""
        return next((group for group in self.groups if group.kind == "dense"), None)

    @property
    def sparsities(self) -> Sequence[float]:
        """What was asked of the methods that prune."""
        return sorted({g.sparsity for g in self.groups if g.kind != "dense"})

    @property
    def higher_is_better(self) -> bool:
        """Whether the metric is to be large."""
        return self.goal == "max"

    def better(self, first: float, second: float) -> bool:
        """Return whether the first metric is better than the second."""
        return first > second if self.higher_is_better else first < second


def normalised(section: Section, group: Group) -> pd.Series | None:
    """Return a score for each seed: 0 is ignoring the input, 1 is the dense network's mean.

    A run that failed or diverged scores 0, being as useful as that. None where dense was not run,
    or is no better than ignoring the input.
    """
    dense = section.dense.intervals.get("test") if section.dense else None
    if dense is None or section.baseline is None:
        return None
    if not section.better(dense.mean, section.baseline):
        return None
    runs = section.runs[section.runs["run_id"].isin(group.run_ids)].set_index("seed")
    runs = runs[runs["status"] != "skipped"]
    tests = pd.to_numeric(runs["test"], errors="coerce").where(runs["status"].isin(TESTED))
    scores: pd.Series = (tests - section.baseline) / (dense.mean - section.baseline)
    return scores.fillna(0.0)


KINDS = ("dense", "structured", "unstructured", "control")


def sections(results: Results) -> list[Section]:
    """Return what can be compared, in the order of task, profile and setting."""
    if results.runs.empty:
        return []
    made: list[Section] = []
    for _, runs in results.runs.groupby("section", sort=True):
        slug = _slug(runs.iloc[0], {section.slug for section in made})
        made.append(_section(slug, runs.reset_index(drop=True), results))
    return made


def _slug(run: pd.Series, taken: set[str]) -> str:
    words = f"{run['task']}-{run['profile']}-{run['setting']}".lower()
    clean = "".join(c if c.isascii() and c.isalnum() else "-" for c in words)
    slug = "-".join(part for part in clean.split("-") if part)[:60] or "task"
    candidates = [slug, *(f"{slug}-{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)


def _section(slug: str, runs: pd.DataFrame, results: Results) -> Section:
    first = runs.iloc[0]
    device = majority_device(runs)
    known = [value for value in runs["baseline"] if value is not None and value == value]
    dense = runs[runs["group"] == "dense"]
    groups = [
        _group(together, dense, device, results)
        for _, together in runs.groupby(["method", "sparsity"], sort=True)
    ]
    return Section(
        slug=slug,
        task=first["task"],
        title=first["task_title"],
        profile=first["profile"],
        setting=first["setting"],
        source=first["source"],
        data_name=first["data_name"],
        metric=first["metric"],
        goal=first["goal"],
        device=device,
        devices=sorted(set(runs["device"].dropna())),
        baseline=float(known[0]) if known else None,
        groups=sorted(groups, key=lambda g: (_rank(g.kind), g.title, g.sparsity)),
        runs=runs,
    )


def _rank(kind: str) -> tuple[int, str]:
    return (KINDS.index(kind) if kind in KINDS else len(KINDS), kind)


def _group(runs: pd.DataFrame, dense: pd.DataFrame, device: str | None, results: Results) -> Group:
    first = runs.iloc[0]
    intervals: dict[str, Interval] = {}
    differences: dict[str, Interval] = {}
    ratios: dict[str, Interval] = {}
    reasons: dict[str, str] = {}
    for key in (*QUALITIES, *_further(runs)):
        runs_of_key, dense_of_key = _quality(runs, key), _quality(dense, key)
        if len(runs_of_key) == 0:
            reasons[key] = _why_untested(runs)
            continue
        intervals[key] = mean_interval(list(runs_of_key))
        paired = (runs_of_key - dense_of_key).dropna()
        if len(paired):
            differences[key] = mean_interval(list(paired))
    for key in QUANTITIES:
        found, reason = values(runs, key, device)
        if reason is not None:
            reasons[key] = reason
            continue
        intervals[key] = mean_interval(list(found))
        reference = values(dense, key, device)[0] if len(dense) else pd.Series(dtype=float)
        ratio = (found / reference).dropna()
        if len(ratio) and bool((found > 0).all()) and bool((reference > 0).all()):
            ratios[key] = ratio_interval(list(ratio))
    moments = [moment for moments in runs["pruned_after"] for moment in moments]
    return Group(
        method=first["method"],
        title=first["method_title"],
        kind=first["group"],
        sparsity=first["sparsity"],
        statuses={str(k): int(v) for k, v in sorted(runs["status"].value_counts().items())},
        run_ids=list(runs["run_id"]),
        reason=next((reason for reason in runs["reason"] if isinstance(reason, str)), None),
        intervals=intervals,
        differences=differences,
        ratios=ratios,
        reasons=reasons,
        estimated=frozenset(k for k in QUANTITIES if energy_is_estimated(runs, k)),
        pruned_after=sorted(set(moments)),
        emptied=sum(
            len(results.records[run]["sparsity"].get("emptied_layers", ()))
            for run in runs["run_id"]
        ),
    )


def _further(runs: pd.DataFrame) -> list[str]:
    return sorted({f"further:{name}" for further in runs["further"] for name in further})


def _quality(runs: pd.DataFrame, key: str) -> pd.Series:
    """Return a metric of the runs that were tested, by seed."""
    tested = runs[runs["status"].isin(TESTED)].set_index("seed")
    if key.startswith("further:"):
        name = key.removeprefix("further:")
        column = tested["further"].map(lambda further: further.get(name))
    else:
        column = tested[key]
    return pd.to_numeric(column, errors="coerce").dropna()


def _why_untested(runs: pd.DataFrame) -> str:
    if runs["status"].isin(TESTED).any():
        return "is no finite number"
    status = runs["status"].iloc[0]
    reason = runs["reason"].iloc[0]
    return f"{status}: {reason}" if isinstance(reason, str) else str(status)
