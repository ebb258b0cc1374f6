"""Claims checked against results; ``claims.toml`` explains how they are written."""

from __future__ import annotations

import math
import statistics
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from harness.errors import RequestError
from harness.results.intervals import (
    FEWEST_SEEDS,
    BySeed,
    Estimate,
    log_ratio,
    paired,
    positive,
    stratified,
)
from harness.text import several
from reports.groups import INCLUDES_STAMPED, Group, Section, normalised
from reports.quantities import QUANTITIES
from reports.results import energy_is_estimated, undisturbed, values
from reports.tables import NONE, Block, Cell, Table, number, percent, signed
from reports.verdicts import (
    SIGNIFICANCE,
    Judgement,
    Threshold,
    judgements,
    over_tasks,
    together,
)

CLAIMS = resources.files("reports") / "claims.toml"
"""The claims of the paper (Rachwan et al., ICML 2022)."""

EQUAL = 1.25
"""Two costs are equal if neither is more than this factor larger than the other."""

EFFECTS = ("improvement", "ratio", "value")

SMALLEST: Mapping[str, float] = {"improvement": 1.0, "ratio": 1.05, "value": 1.05}
"""The smallest effect on the wrong side that contradicts a claim, unless the claim says otherwise:
in percent of the way from the baseline to dense, or as a factor of the threshold."""

COMPANIONS: Mapping[str, str] = {
    "kernel_change": "kernel_alignment",
    "kernel_drift_at_trigger": "kernel_alignment_at_trigger",
}
"""Shown with a quantity, since a kernel that only grows has changed and is still aligned."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a comparison: over all of its tasks together, or in one cell for information.

    Attributes:
        test: what the claim expects, in words.
        what: which methods are compared.
        where: on which tasks, or the task and sparsity of the cell.
        verdict: supported, contradicted or undecided; empty if it is for information.
        effect: the effect with its interval and p-value, or why there is none.
        stamp: a warning if the data are not the published ones.
        decides: whether the verdict on the claim depends on it.
        p: two-sided p-value of the hypothesis that the true effect is the threshold.
    """

    test: str
    what: str
    where: str
    verdict: str
    effect: str
    stamp: str | None
    decides: bool = True
    p: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim.

    Attributes:
        verdict: supported, contradicted or undecided.
        statement: what is claimed.
        because: the reason for the verdict, in one line.
        tests: its comparisons, in words.
        outcomes: each comparison that the results allow, followed by its cells.
        missing: methods that the tests name and that were never run.
    """

    statement: str
    verdict: str
    because: str
    tests: Sequence[str]
    outcomes: Sequence[Outcome]
    missing: Sequence[str]


@dataclass(frozen=True)
class Compared:
    """A comparison in one cell: one task at one sparsity.

    Attributes:
        task: its task; all tasks have the same weight, however many cells they have.
        where: the task and sparsity in words.
        effects: by seed, on the scale on which they are averaged; ratios as logarithms.
        reason: why there are no effects.
        remark: a remark on the cell.
    """

    task: str
    where: str
    stamp: str | None
    effects: BySeed
    reason: str = ""
    remark: str = ""

    @property
    def counts(self) -> bool:
        """Whether it has enough seeds."""
        return len(self.effects) >= FEWEST_SEEDS


@dataclass(frozen=True)
class Comparison:
    """Two methods, or a method and a value, on all tasks and sparsities where both were run."""

    test: Mapping[str, Any]
    what: str
    cells: list[Compared] = field(default_factory=list)

    @property
    def counted(self) -> list[Compared]:
        """The cells on which the estimate rests."""
        return [cell for cell in self.cells if cell.counts]

    @property
    def estimate(self) -> Estimate | None:
        """The mean effect over all tasks, which have the same weight; None with too few seeds."""
        return over_tasks((cell.task, cell.effects) for cell in self.counted)


def judge(sections: Sequence[Section], path: Traversable = CLAIMS) -> list[Verdict]:
    """Return the verdict on each claim of a file.

    Raises:
        RequestError: the file cannot be understood.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        smallest = {**SMALLEST, **content.get("smallest", {})}
        return [_judge(claim, sections, smallest) for claim in content["claim"]]
    except (tomllib.TOMLDecodeError, KeyError, ValueError) as error:
        raise RequestError(f"claims {path.name}: {error}") from None


def _judge(
    claim: Mapping[str, Any], sections: Sequence[Section], smallest: Mapping[str, float]
) -> Verdict:
    tests = [_in_words(test) for test in claim["test"]]
    groups = [group for section in sections for group in section.tried]
    known = {name for group in groups for name in (*_names(group), group.pruner)} | {"dense"}
    named = {name for test in claim["test"] for name in (*test["of"], *test.get("against", ()))}
    named = {name for name in named if not name.startswith("kind:")}
    comparisons, absent = [], 0
    for test in claim["test"]:
        made, lacking = _comparisons(test, sections)
        comparisons += made
        for names in lacking:
            absent += 1
            if set(names) <= known:
                comparisons.append(
                    Comparison(test, " against ".join(_listed([name]) for name in names))
                )
    thresholds = [_threshold(comparison.test, smallest) for comparison in comparisons]
    estimates = [comparison.estimate for comparison in comparisons]
    found = judgements(list(zip(estimates, thresholds, strict=True)))
    outcomes = [
        outcome
        for comparison, estimate, judgement in zip(comparisons, estimates, found, strict=True)
        for outcome in _outcomes(comparison, estimate, judgement)
    ]
    words = [judgement.verdict for judgement in found]
    return Verdict(
        statement=claim["statement"],
        verdict=together(words, complete=not absent),
        because=_because(words, absent - sum(not c.cells for c in comparisons)),
        tests=tests,
        outcomes=outcomes,
        missing=sorted({_listed([name]) for name in named - known}),
    )


def claims_table(judged: Sequence[Verdict]) -> Table:
    """Return the table of all claims, with a row for each comparison and each of its cells."""
    none = [Outcome("", NONE, NONE, "undecided", "no run can decide it", None)]
    blocks = []
    for verdict in judged:
        rows = [
            [
                Cell(outcome.what),
                *(Cell(outcome.where), Cell(outcome.test), Cell(outcome.effect)),
                *(_p_cell(outcome), Cell(outcome.verdict), Cell(outcome.stamp or "")),
            ]
            for outcome in verdict.outcomes or none
        ]
        blocks.append(Block(f"{verdict.verdict}: {verdict.statement}", rows))
    columns = ["Comparison", "On", "Test", "Effect", "p", "Verdict", "Data"]
    return Table("claims", "The claims of the paper, checked", columns, blocks)


def _p_cell(outcome: Outcome) -> Cell:
    return Cell(NONE) if outcome.p is None else Cell(f"{outcome.p:.2g}", order=outcome.p)


def _because(found: Sequence[str], not_run: int) -> str:
    if not found:
        return "no run can decide it"
    words = [f"{n} {verdict}" for verdict, n in sorted(Counter(found).items())]
    words += [f"{not_run} not run"] if not_run else []
    return f"{', '.join(words)} of {several(len(found) + not_run, 'comparison')}"


def _in_words(test: Mapping[str, Any]) -> str:
    effect = test["effect"]
    if effect not in EFFECTS:
        raise ValueError(f"unknown effect {effect!r}; known: {', '.join(EFFECTS)}")
    if test["is"] not in ("above", "below"):
        raise ValueError(f"'is' must be above or below, not {test['is']!r}")
    who = _listed(test["of"])
    against = f" against {_listed(test['against'])}" if "against" in test else ""
    equal = f" of equal {_label(test['equal'])}" if "equal" in test else ""
    what = "improvement of the test metric" if effect == "improvement" else ""
    what = what or f"{effect} of {_label(test['quantity'])}"
    unit = " %" if effect == "improvement" else ""
    return f"{who}{against}{equal}: {what} {test['is']} {test['threshold']}{unit}"


def _listed(names: Sequence[str]) -> str:
    words = [name.removeprefix("kind:") for name in names]
    return ", ".join(
        f"every {word.removeprefix('every:')}" if word.startswith("every:") else word
        for word in words
    )


def _label(quantity: str) -> str:
    return (
        QUANTITIES[quantity].label.lower() if quantity in QUANTITIES else quantity.replace("_", " ")
    )


def _threshold(test: Mapping[str, Any], smallest: Mapping[str, float]) -> Threshold:
    value, above = test["threshold"], test["is"] == "above"
    least = test.get("smallest", smallest[test["effect"]])
    if test["effect"] == "ratio":
        return Threshold(math.log(value), above, math.log(least))
    if test["effect"] == "value":
        return Threshold(value, above, abs(value) * (1 - 1 / least if above else least - 1))
    return Threshold(value, above, least)


Lacking = list[tuple[str, ...]]
"""The comparisons that a test names and the results do not allow, each as its methods' names."""


def _comparisons(
    test: Mapping[str, Any], sections: Sequence[Section]
) -> tuple[list[Comparison], Lacking]:
    made: dict[tuple[str, ...], Comparison] = {}
    least, most = test.get("sparsity", (0.0, 1.0))
    asked = _asked(test)
    for section in sections:
        for group in _selected(section, test["of"]):
            if not least <= group.sparsity <= most:
                continue
            for other, what, cell in _cells(test, group, section, sections):
                key = group.method, *([] if other is None else [_identity(test, other)])
                made.setdefault(key, Comparison(test, what)).cells.append(cell)
                against = [()] if other is None else [(name,) for name in _names(other)]
                asked -= {(name, *names) for name in _names(group) for names in against}
    return list(made.values()), sorted(asked)


def _names(group: Group) -> set[str]:
    """Return the names by which a test may refer to a group."""
    alone = {group.method, f"kind:{group.kind}", f"every:{group.pruner}"}
    return alone | {"dense"} if group.kind == "dense" else alone


def _identity(test: Mapping[str, Any], other: Group) -> str:
    """Return the name that is equal for all other groups of one comparison."""
    return other.pruner if "equal" in test else other.method


def _asked(test: Mapping[str, Any]) -> set[tuple[str, ...]]:
    """Return the comparisons that a test names, all of which are needed to support it."""
    if "against" not in test:
        return {(name,) for name in test["of"]}
    if "equal" in test:
        return set()  # which networks have equal cost depends on the results
    return {(name, other) for name in test["of"] for other in test["against"] if name != other}


def _selected(section: Section, names: Sequence[str]) -> list[Group]:
    return [group for group in section.tried if _names(group) & set(names)]


def _cells(
    test: Mapping[str, Any], group: Group, section: Section, sections: Sequence[Section]
) -> Iterator[tuple[Group | None, str, Compared]]:
    """Iterate over comparisons of a group: the other group, both in words, and the effects."""
    where = f"{section.name}, {group.budget or percent(group.sparsity)}"
    if test["effect"] == "value":
        yield None, group.title, _made(test, section, where, _value(test, group, section), group)
        return
    if "equal" in test:
        for other, home in _of_equal_cost(test, group, section, sections):
            setting = f" with {home.setting or 'the usual settings'}" * (home is not section)
            effects = _effects(test, group, section, other, home)
            place = f"{where}, {other.title}{setting}"
            title = other.members[0].pruner_title
            cell = _made(test, section, place, effects, group, other)
            yield other, f"{group.title} against {title}", cell
        return
    others = [
        other
        for other in _selected(section, test["against"])
        if other.method != group.method
        and other.sparsity in (group.sparsity, 0.0)
        and (other.kind != "dense" or other is section.dense)
    ]
    if len(others) < test.get("at_least", 1):
        return
    for other in others:
        effects = _effects(test, group, section, other, section)
        cell = _made(test, section, where, effects, group, other)
        yield other, f"{group.title} against {other.title}", cell


def _made(
    test: Mapping[str, Any], section: Section, where: str, effects: BySeed | str, *groups: Group
) -> Compared:
    remarks = [
        f"{group.title}: {group.statuses['failed']} of {group.runs} runs failed"
        for group in groups
        if group.statuses.get("failed")
    ]
    reason, by_seed = (effects, {}) if isinstance(effects, str) else ("", effects)
    beside = COMPANIONS.get(test.get("quantity", ""))
    if beside is not None and by_seed:
        found = [values(group.members, beside, None)[0] for group in groups]
        means = [number(statistics.mean(each.values())) for each in found if each]
        remarks += [f"{_label(beside)} {' against '.join(means)}"] if means else []
    return Compared(section.task, where, section.stamp, by_seed, reason, "; ".join(remarks))


def _of_equal_cost(
    test: Mapping[str, Any], group: Group, section: Section, sections: Sequence[Section]
) -> Iterator[tuple[Group, Section]]:
    """Iterate over the networks of the same task that have the same cost as a pruned one.

    Dense networks are those of other settings, which may be smaller, trained for as many epochs.
    Methods are those of the same settings, at any sparsity and with any options.
    """
    cost = group.intervals.get(test["equal"])
    for home in sections:
        if cost is None or _what(home) != _what(section):
            continue
        for other in home.tried:
            theirs = other.intervals.get(test["equal"])
            named = other.pruner in test["against"] and (other.kind == "dense") == (
                home is not section
            )
            if named and theirs is not None and _is_equal(theirs.mean, cost.mean):
                yield other, home


def _is_equal(first: float, second: float) -> bool:
    return first <= EQUAL * second and second <= EQUAL * first


def _what(section: Section) -> tuple[object, ...]:
    """Return the task and its data, and how long dense networks are trained on them."""
    epochs = section.dense.intervals.get("epochs") if section.dense is not None else None
    return section.task, section.profile, section.data_name, epochs and epochs.mean


def _value(test: Mapping[str, Any], group: Group, section: Section) -> BySeed | str:
    found, reason = _undisturbed(group, test["quantity"], section)
    return found or reason


def _undisturbed(group: Group, key: str, section: Section) -> tuple[BySeed, str]:
    runs = undisturbed(group.members, key)
    if not runs:
        return {}, "other programs on the machine disturbed the measurement"
    return values(runs, key, section.machine)


def _effects(
    test: Mapping[str, Any], group: Group, section: Section, other: Group, home: Section
) -> BySeed | str:
    """Return the effects paired by seed; if there are none, why, as a string."""
    if test["effect"] == "improvement":
        return _improvement(group, section, other, home)
    key = test["quantity"]
    ours, reason = _undisturbed(group, key, section)
    theirs, their_reason = _undisturbed(other, key, section)
    if not ours.keys() & theirs.keys():
        return reason or their_reason or "no runs of the same seed"
    if energy_is_estimated((*group.members, *other.members), key):
        return "energy is only estimated here"
    if not positive(ours, theirs):
        return "zero has no ratio"
    return paired(ours, theirs, log_ratio)


def _improvement(group: Group, section: Section, other: Group, home: Section) -> BySeed | str:
    ours, theirs = normalised(section, group), normalised(home, other)
    if ours is None or theirs is None:
        return "no dense run to normalise by"
    if home is not section:
        theirs = _rescaled(theirs, home, section)
    pairs = {seed: 100 * difference for seed, difference in paired(ours, theirs).items()}
    return pairs or "no runs of the same seed with a result"


def _rescaled(scores: Mapping[int, float], home: Section, section: Section) -> dict[int, float]:
    """Return scores of one section on the scale of another of the same task."""

    def ends(of: Section) -> tuple[float, float]:
        assert of.dense is not None
        assert of.baseline is not None
        return of.baseline, of.dense.intervals["test"].mean

    (low, high), (new_low, new_high) = ends(home), ends(section)
    tests = {seed: low + score * (high - low) for seed, score in scores.items()}
    return {seed: (test - new_low) / (new_high - new_low) for seed, test in tests.items()}


def _outcomes(
    comparison: Comparison, estimate: Estimate | None, judgement: Judgement
) -> Iterator[Outcome]:
    """Iterate over the rows of a comparison: all tasks together, then each cell."""
    test, what, cells = comparison.test, comparison.what, comparison.cells
    words = _in_words(test)
    if len(cells) == 1:
        (cell,) = cells
        effect = _shown(test, cell, _p_words(judgement))
        yield Outcome(words, what, cell.where, judgement.verdict, effect, cell.stamp, p=judgement.p)
        return
    effect = "no task has the runs that it needs" if not cells else ""
    reasons = {cell.reason for cell in cells}
    effect = effect or (reasons.pop() if len(reasons) == 1 else "")
    effect = effect or "too few runs on every task"
    if estimate is not None:
        effect = _written(test, estimate) + _p_words(judgement)
    yield Outcome(
        words,
        what,
        _places(comparison),
        judgement.verdict,
        effect,
        _stamp(comparison.counted),
        p=judgement.p,
    )
    for cell in cells:
        yield Outcome(words, what, cell.where, "", _shown(test, cell), cell.stamp, decides=False)


def _places(comparison: Comparison) -> str:
    counted = comparison.counted
    without = len(comparison.cells) - len(counted)
    if not counted:
        return NONE
    words = f"{several(len({cell.task for cell in counted}), 'task')} together"
    words += f", {several(len(counted), 'cell')}"
    return f"{words}; {without} more with too few runs" if without else words


def _stamp(cells: Sequence[Compared]) -> str | None:
    stamps = {cell.stamp for cell in cells if cell.stamp}
    if len(stamps) == 1 and all(cell.stamp for cell in cells):
        return stamps.pop()
    return INCLUDES_STAMPED if stamps else None


def _shown(test: Mapping[str, Any], cell: Compared, further: str = "") -> str:
    effect = cell.reason
    if cell.effects:
        effect = _written(test, stratified([[cell.effects]])) + further
    return "; ".join(filter(None, (effect, cell.remark)))


def _written(test: Mapping[str, Any], estimate: Estimate) -> str:
    effect = estimate.ratio if test["effect"] == "ratio" else estimate.interval
    write = signed if test["effect"] == "improvement" else number
    unit = " %" if test["effect"] == "improvement" else ""
    words = f"{write(effect.mean)}{unit}"
    if effect.low is None or effect.high is None or not effect.decides:
        return f"{words}, n={effect.n}: too few seeds"
    return f"{words} [{write(effect.low)}, {write(effect.high)}], n={effect.n}"


def _p_words(judgement: Judgement) -> str:
    p, corrected = judgement.p, judgement.corrected
    if p is None or corrected is None:
        return ""
    words = f", p={p:.2g}"
    if p < corrected < 1:
        words += f" ({corrected:.2g} corrected)"
    if judgement.verdict == "undecided" and corrected < SIGNIFICANCE:
        words += ": too small to contradict the claim"
    return words
