"""What the runs of an advice have shown: differences with intervals, and a verdict in sentences.

Methods are chosen by the metric on the validation data and compared by that on the test data, so
that the choice does not make the comparison look better than it is.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.advice.halving import FINALISTS, Round
from harness.advice.request import DENSE, AdviceRequest
from harness.record import Record
from harness.results.intervals import (
    FEWEST_SEEDS,
    MOST_SEEDS,
    BySeed,
    Interval,
    paired,
    seeds_to_decide,
    stratified,
)
from harness.text import duration, several

Finding = Literal["better", "worse", "no difference found", "too few seeds"]
"""What an interval says of one method, compared with another."""

Runs = Mapping[str, Mapping[int, Record]]
"""The records of tested networks, by method and seed."""


@dataclass(frozen=True)
class Difference:
    """The test metric of a method minus that of another one, paired by seed.

    Attributes:
        pruner: the method.
        other: the other method.
        metric: its name.
        interval: the mean difference with its 95 % interval.
        finding: what the interval says of the method, compared with the other one.
        seeds_needed: with about how many seeds the interval would exclude 0, if mean and standard
            deviation stayed as they are. None if it excludes 0 already, or would still contain it
            with `harness.results.intervals.MOST_SEEDS`.
    """

    pruner: str
    other: str
    metric: str
    interval: Interval
    finding: Finding
    seeds_needed: int | None

    def __str__(self) -> str:
        """Return a sentence without its full stop."""
        interval, seeds = self.interval, several(self.interval.n, "seed")
        change = f"{self.metric} {interval.mean:+.4g}"
        if self.finding == "too few seeds":
            return f"{seeds} cannot tell {self.pruner} from {self.other}: {change}"
        change += f", 95 % interval {interval.low:+.4g} to {interval.high:+.4g}"
        if self.finding == "no difference found":
            names = f"{self.pruner} and {self.other}"
            return f"no difference was found between {names} with {seeds}: {change}"
        return f"{self.pruner} is {self.finding} than {self.other}: {change}, {seeds}"


@dataclass(frozen=True)
class Candidate:
    """A method and what its runs have shown.

    Attributes:
        pruner: its name.
        rounds: in how many rounds it took part.
        seeds: the seeds of its tested networks.
        validation: mean metric on the validation data.
        test: mean metric on the test data.
        to_dense: the difference to dense networks of the same seeds.
        reached: mean fraction of the dense network's cost if there is a budget; otherwise the mean
            fraction of the weights that were removed.
        train_seconds: median training time of a run.
        reason: why it dropped out; None if it is a finalist or other methods were better.
    """

    pruner: str
    rounds: int
    seeds: tuple[int, ...]
    validation: float | None
    test: float | None
    to_dense: Difference | None
    reached: float | None
    train_seconds: float | None
    reason: str | None


@dataclass(frozen=True)
class Surer:
    """What it takes to tell the two finalists apart, if mean and spread stay as they are.

    Attributes:
        seeds: how many more.
        seconds: how long their runs would train, one after another, judged by the runs so far.
        command: carries them out; what is done is not repeated.
    """

    seeds: int
    seconds: float
    command: str


@dataclass(frozen=True)
class Advice:
    """Which method to take.

    Attributes:
        task: its name.
        target: the budget, as in ``macs=0.5``, or the sparsity, as in ``sparsity=0.9``.
        metric: the task's.
        goal: whether a large (max) or a small (min) metric is good.
        take: the finalist with the better metric on the validation data.
        finalists: the difference between the two finalists; None if there is one only.
        within_tolerance: whether the method loses at most ``tolerance`` against dense; None if
            its interval contains both answers, or no tolerance was given.
        tolerance: in the unit of the metric; None if none was given.
        surer: None if the finalists differ, or if no affordable number of seeds would show it.
        run: the name of the run whose network is the method's best on the validation data.
        command: makes that network.
        dense: the dense networks.
        candidates: all methods, the best first.
        rounds: the rounds that were carried out.
        stopped: whether the time ended before the last round.
    """

    task: str
    target: str
    metric: str
    goal: Literal["max", "min"]
    take: str
    finalists: Difference | None
    within_tolerance: bool | None
    tolerance: float | None
    surer: Surer | None
    run: str
    command: str
    dense: Candidate
    candidates: tuple[Candidate, ...]
    rounds: tuple[Round, ...]
    stopped: bool

    @property
    def verdict(self) -> str:
        """The advice in a few sentences."""
        return " ".join(self._sentences())

    def _sentences(self) -> Iterator[str]:
        yield f"Take {self.take}: it has the best {self.metric} on the validation data."
        if self.stopped:
            yield "The time ended before the last round."
        if self.finalists is None:
            yield "No other method has a result to compare it with."
        known = [each for each in (self.finalists, self.candidates[0].to_dense) if each is not None]
        yield f"On the test data, {'; '.join(map(str, known))}."
        if self.tolerance is not None:
            yield {
                True: f"The whole interval loses at most {self.tolerance:g}, as asked.",
                False: f"The whole interval loses more than {self.tolerance:g}.",
                None: f"Whether it loses at most {self.tolerance:g} is open.",
            }[self.within_tolerance]
        if self.finalists is not None:
            yield from self._what_it_takes(self.finalists)

    def _what_it_takes(self, finalists: Difference) -> Iterator[str]:
        to_tell = f"tell {finalists.pruner} from {finalists.other}"
        if self.surer is not None:
            roughly = "at least" if finalists.finding == "too few seeds" else "about"
            yield (
                f"To {to_tell} would take {roughly} {several(self.surer.seeds, 'more seed')}, "
                f"{duration(self.surer.seconds)} of training, if mean and spread stay as they are."
            )
        elif finalists.finding == "no difference found":
            yield f"Even {MOST_SEEDS:,} seeds would hardly {to_tell}."


def find_advice(
    request: AdviceRequest, rounds: Sequence[Round], runs: Runs, reasons: Mapping[str, str]
) -> Advice:
    """Return what the rounds have shown.

    Args:
        request: what is wanted.
        rounds: at least one; the last one has a method with a result.
        runs: every tested network, those of dense networks included.
        reasons: why methods are out, by name.
    """
    last = rounds[-1]
    take, *others = last.scores
    candidates = tuple(_candidate(each, rounds, runs, reasons) for each in _best_first(rounds))
    seed = max(runs[take], key=lambda each: score(runs[take][each]))
    best = runs[take][seed]
    finalists = compare(take, others[0], runs) if others else None
    return Advice(
        task=request.task,
        target=request.target,
        metric=best["quality"]["metric"],
        goal=best["quality"]["goal"],
        take=take,
        finalists=finalists,
        tolerance=request.tolerance,
        within_tolerance=_is_within(request.tolerance, candidates[0].to_dense, best),
        surer=_surer(finalists, runs, request),
        run=best["run_id"],
        command=request.run_command(take, seed),
        dense=_candidate(DENSE, rounds, runs, reasons),
        candidates=candidates,
        rounds=tuple(rounds),
        stopped=len(last.methods) > FINALISTS or len(last.seeds) < len(request.seeds),
    )


def score(record: Record) -> float:
    """Return the metric on the validation data, negated if small values are good."""
    value = record["quality"]["validation"]
    assert value is not None, "a tested network has been validated"
    return float(value if record["quality"]["goal"] == "max" else -value)


def compare(pruner: str, other: str, runs: Runs) -> Difference | None:
    """Return the difference between two methods; None without common seeds."""
    pairs = paired(_tests(runs[pruner]), _tests(runs[other]))
    if not pairs:
        return None
    quality = next(iter(runs[pruner].values()))["quality"]
    interval = stratified([[pairs]]).interval
    finding = _finding(interval, quality["goal"])
    needed = seeds_to_decide(pairs)
    if finding == "too few seeds":
        needed = needed or FEWEST_SEEDS
    is_open = finding in ("no difference found", "too few seeds")
    return Difference(
        pruner,
        other,
        quality["metric"],
        interval,
        finding,
        needed if is_open else None,
    )


def _finding(interval: Interval, goal: Literal["max", "min"]) -> Finding:
    if interval.low is None or interval.high is None or not interval.decides:
        return "too few seeds"
    if interval.low <= 0 <= interval.high:
        return "no difference found"
    return "better" if (interval.low > 0) == (goal == "max") else "worse"


def _is_within(tolerance: float | None, to_dense: Difference | None, record: Record) -> bool | None:
    """Return whether a whole interval loses at most a tolerance, or more; None if it holds both."""
    if tolerance is None or to_dense is None or not to_dense.interval.decides:
        return None
    low, high = to_dense.interval.low, to_dense.interval.high
    assert low is not None
    assert high is not None
    least, most = (-high, -low) if record["quality"]["goal"] == "max" else (low, high)
    if most <= tolerance:
        return True
    return False if least > tolerance else None


def _surer(finalists: Difference | None, runs: Runs, request: AdviceRequest) -> Surer | None:
    if finalists is None or finalists.seeds_needed is None:
        return None
    more = finalists.seeds_needed - finalists.interval.n
    of_a_seed = (train_seconds(runs[each]) for each in (finalists.pruner, finalists.other, DENSE))
    seconds = more * sum(each or 0.0 for each in of_a_seed)
    return Surer(more, seconds, request.command(finalists.seeds_needed))


def _best_first(rounds: Sequence[Round]) -> list[str]:
    """Return all methods: those of later rounds first, and those without a score last."""
    ranked = [each for round_ in reversed(rounds) for each in round_.scores]
    return list(dict.fromkeys([*ranked, *rounds[0].methods]))


def _candidate(
    pruner: str, rounds: Sequence[Round], runs: Runs, reasons: Mapping[str, str]
) -> Candidate:
    own = runs.get(pruner, {})
    records = list(own.values())
    return Candidate(
        pruner=pruner,
        rounds=sum(pruner in (DENSE, *each.methods) for each in rounds),
        seeds=tuple(sorted(own)),
        validation=_mean(record["quality"]["validation"] for record in records),
        test=_mean(record["quality"]["test"] for record in records),
        to_dense=compare(pruner, DENSE, runs) if records and pruner != DENSE else None,
        reached=_mean(map(_reached, records)),
        train_seconds=train_seconds(own),
        reason=reasons.get(pruner),
    )


def _tests(runs: Mapping[int, Record]) -> BySeed:
    tests = {seed: record["quality"]["test"] for seed, record in runs.items()}
    return {seed: float(test) for seed, test in tests.items() if test is not None}


def _reached(record: Record) -> float:
    budget = record["sparsity"].get("budget")
    return float(record["sparsity"]["weights"] if budget is None else budget["reached"])


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def train_seconds(runs: Mapping[int, Record]) -> float | None:
    """Return the median time that runs trained; None if it was not measured."""
    times = [record["cost"]["train_seconds"] for record in runs.values()]
    known = [float(time) for time in times if time is not None]
    return statistics.median(known) if known else None
