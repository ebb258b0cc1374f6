"""Statements held against results; see `benchmarks/claims.toml` for how they are written."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import sub, truediv
from pathlib import Path
from typing import Any

from harness.errors import RequestError
from harness.results.intervals import FEWEST_SEEDS, Interval, mean_interval, ratio_interval
from reports.groups import Group, Section, normalised
from reports.quantities import QUANTITIES
from reports.results import energy_is_estimated, paired, values
from reports.tables import NONE, Block, Cell, Table, number, percent, signed

CLAIMS = Path(__file__).resolve().parent.parent / "benchmarks" / "claims.toml"

EQUAL = 1.25
"""Costs are equal if neither is more than this many times the other."""

EFFECTS = ("improvement", "ratio", "value")


@dataclass(frozen=True)
class Outcome:
    """One comparison on one task at one sparsity."""

    test: str
    what: str
    where: str
    verdict: str
    effect: str
    stamp: str | None


@dataclass(frozen=True)
class Verdict:
    """What the results say of a statement.

    Attributes:
        verdict: supported, contradicted or undecided.
        because: in one line.
        tests: what was held against what.
        outcomes: each comparison that the results allow.
        missing: methods of the tests that were never run.
    """

    statement: str
    verdict: str
    because: str
    tests: Sequence[str]
    outcomes: Sequence[Outcome]
    missing: Sequence[str]


def judge(sections: Sequence[Section], path: Path = CLAIMS) -> list[Verdict]:
    """Return the verdict on each claim of a file.

    Raises:
        RequestError: the file cannot be understood.
    """
    try:
        claims = tomllib.loads(path.read_text(encoding="utf-8"))["claim"]
        return [_judge(claim, sections) for claim in claims]
    except (tomllib.TOMLDecodeError, KeyError, ValueError) as error:
        raise RequestError(f"claims {path.name}: {error}") from None


def _judge(claim: Mapping[str, Any], sections: Sequence[Section]) -> Verdict:
    tests = [_in_words(test) for test in claim["test"]]
    outcomes = [
        outcome
        for test in claim["test"]
        for section in sections
        for outcome in _outcomes(test, section, sections)
    ]
    groups = [group for section in sections for group in section.tried]
    known = {name for group in groups for name in (group.method, group.pruner)} | {"dense"}
    named = {name for test in claim["test"] for name in (*test["of"], *test.get("against", ()))}
    verdict = _together([outcome.verdict for outcome in outcomes])
    return Verdict(
        statement=claim["statement"],
        verdict=verdict,
        because=_because(outcomes),
        tests=tests,
        outcomes=outcomes,
        missing=sorted(name for name in named - known if not name.startswith("kind:")),
    )


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """Return the claims with what was held against what, a row for each comparison."""
    none = [Outcome("", NONE, NONE, "undecided", "nothing was run that could decide it", None)]
    blocks = []
    for verdict in verdicts:
        rows = [
            [
                Cell(outcome.what),
                *(Cell(outcome.where), Cell(outcome.test), Cell(outcome.effect)),
                *(Cell(outcome.verdict), Cell(outcome.stamp or "")),
            ]
            for outcome in verdict.outcomes or none
        ]
        blocks.append(Block(f"{verdict.verdict}: {verdict.statement}", rows))
    columns = ["Comparison", "On", "Test", "Effect", "So it is", "Data"]
    return Table("claims", "The talk's claims, checked", columns, blocks)


def _together(verdicts: Sequence[str]) -> str:
    if "contradicted" in verdicts:
        return "contradicted"
    return "supported" if set(verdicts) == {"supported"} else "undecided"


def _because(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "nothing was run that could decide it"
    counted = Counter(outcome.verdict for outcome in outcomes)
    words = [f"{n} {verdict}" for verdict, n in sorted(counted.items())]
    return f"{', '.join(words)} of {len(outcomes)} comparisons"


def _in_words(test: Mapping[str, Any]) -> str:
    effect = test["effect"]
    if effect not in EFFECTS:
        raise ValueError(f"unknown effect {effect!r}; known: {', '.join(EFFECTS)}")
    if test["is"] not in ("above", "below"):
        raise ValueError(f"'is' has to be above or below, not {test['is']!r}")
    who = ", ".join(name.removeprefix("kind:") for name in test["of"])
    against = f" against {', '.join(test['against'])}" if "against" in test else ""
    equal = f" of equal {_label(test['equal'])}" if "equal" in test else ""
    what = "improvement of the test metric" if effect == "improvement" else ""
    what = what or f"{effect} of {_label(test['quantity'])}"
    unit = " %" if effect == "improvement" else ""
    return f"{who}{against}{equal}: {what} {test['is']} {test['threshold']}{unit}"


def _label(quantity: str) -> str:
    return (
        QUANTITIES[quantity].label.lower() if quantity in QUANTITIES else quantity.replace("_", " ")
    )


def _outcomes(
    test: Mapping[str, Any], section: Section, sections: Sequence[Section]
) -> Iterator[Outcome]:
    least, most = test.get("sparsity", (0.0, 1.0))
    for group in _selected(section, test["of"]):
        if not least <= group.sparsity <= most or not group.tried:
            continue
        where = f"{section.name}, {percent(group.sparsity)}"
        for what, effect in _effects(test, group, section, sections):
            verdict, words = _verdict(test, effect)
            title = f"{group.title}{what}"
            yield Outcome(_in_words(test), title, where, verdict, words, section.stamp)


def _selected(section: Section, names: Sequence[str]) -> list[Group]:
    kinds = [name.removeprefix("kind:") for name in names if name.startswith("kind:")]
    return [
        group
        for group in section.tried
        if group.method in names
        or group.kind in kinds
        or (group.kind == "dense" and "dense" in names)
    ]


def _effects(
    test: Mapping[str, Any], group: Group, section: Section, sections: Sequence[Section]
) -> Iterator[tuple[str, Interval | str]]:
    """Go through what a group is held against, each with the effect, or why there is none."""
    if test["effect"] == "value":
        yield "", _value(test, group, section)
        return
    if "equal" in test:
        yield from _against_equal(test, group, section, sections)
        return
    for other in _selected(section, test["against"]):
        if other.method != group.method and other.sparsity in (group.sparsity, 0.0):
            if other.kind == "dense" and section.dense is not other:
                continue
            yield f" against {other.title}", _effect(test, group, section, other, section)


def _against_equal(
    test: Mapping[str, Any], group: Group, section: Section, sections: Sequence[Section]
) -> Iterator[tuple[str, Interval | str]]:
    """Hold a pruned network against the others of the same task that cost as much.

    Of dense networks it is those of other settings, which may be smaller; of methods those of
    the same settings, whatever sparsity was asked of them and whatever their options.
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
            if named and theirs is not None and 1 / EQUAL <= theirs.mean / cost.mean <= EQUAL:
                setting = f" with {home.setting or 'the usual settings'}" * (home is not section)
                yield f" against {other.title}{setting}", _effect(test, group, section, other, home)


def _what(section: Section) -> tuple[object, ...]:
    return section.task, section.profile, section.data_name


def _value(test: Mapping[str, Any], group: Group, section: Section) -> Interval | str:
    found, reason = values(group.rows, test["quantity"], section.device)
    return mean_interval(list(found.values())) if found else reason


def _effect(
    test: Mapping[str, Any], group: Group, section: Section, other: Group, home: Section
) -> Interval | str:
    """Return the paired effect; as a text, why there is none."""
    if test["effect"] == "improvement":
        return _improvement(group, section, other, home)
    key = test["quantity"]
    if energy_is_estimated((*group.rows, *other.rows), key):
        return "energy is only estimated here"
    ours, reason = values(group.rows, key, section.device)
    theirs, their_reason = values(other.rows, key, section.device)
    if not ours.keys() & theirs.keys():
        return reason or their_reason or "no runs of the same seed"
    if min((*ours.values(), *theirs.values())) <= 0:
        return "is zero, which has no ratio"
    return ratio_interval(paired(ours, theirs, truediv))


def _improvement(group: Group, section: Section, other: Group, home: Section) -> Interval | str:
    ours, theirs = normalised(section, group), normalised(home, other)
    if ours is None or theirs is None:
        return "no dense run to scale by"
    if home is not section:
        theirs = _rescaled(theirs, home, section)
    pairs = [100 * difference for difference in paired(ours, theirs, sub)]
    return mean_interval(pairs) if pairs else "no runs of the same seed"


def _rescaled(scores: Mapping[int, float], home: Section, section: Section) -> dict[int, float]:
    """Return scores of one section on the scale of another of the same task."""

    def ends(of: Section) -> tuple[float, float]:
        assert of.dense is not None
        assert of.baseline is not None
        return of.baseline, of.dense.intervals["test"].mean

    (low, high), (new_low, new_high) = ends(home), ends(section)
    tests = {seed: low + score * (high - low) for seed, score in scores.items()}
    return {seed: (test - new_low) / (new_high - new_low) for seed, test in tests.items()}


def _verdict(test: Mapping[str, Any], effect: Interval | str) -> tuple[str, str]:
    if isinstance(effect, str):
        return "undecided", effect
    write = signed if test["effect"] == "improvement" else number
    unit = " %" if test["effect"] == "improvement" else ""
    words = f"{write(effect.mean)}{unit}"
    if effect.low is None or effect.high is None or effect.n < FEWEST_SEEDS:
        return "undecided", f"{words}, n={effect.n}: too few seeds to tell"
    words += f" [{write(effect.low)}, {write(effect.high)}], n={effect.n}"
    above, threshold = test["is"] == "above", test["threshold"]
    if effect.low > threshold if above else effect.high < threshold:
        return "supported", words
    if effect.high < threshold if above else effect.low > threshold:
        return "contradicted", words
    return "undecided", words
