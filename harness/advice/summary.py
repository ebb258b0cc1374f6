"""An advice as people read it: a short table, the verdict, and the commands to go on with."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from harness.advice.findings import Advice, Candidate
from harness.text import WIDTH, duration, number, percent, several, table


def summarise_advice(advice: Advice) -> str:
    """Return the table of all methods, the verdict, and what to type next."""
    runs = sum(len(each.seeds) for each in (advice.dense, *advice.candidates))
    head = f"{advice.task}, {advice.target}: {several(len(advice.candidates), 'method')}"
    lines = [f"{head} in {several(len(advice.rounds), 'round')}, {several(runs, 'run')}"]
    lines += [table(_rows(advice), left=1), *_notes(advice)]
    lines += ["", *_wrapped(advice.verdict)]
    if advice.surer is not None:
        lines += ["", "To be surer:", f"  {advice.surer.command}"]
    lines += ["", f"The network is in the run {advice.run}; this command makes it:"]
    lines += [f"  {advice.command}"]
    return "\n".join(lines)


def _rows(advice: Advice) -> Iterator[tuple[str, ...]]:
    metric = advice.metric
    yield (
        "method",
        "seeds",
        f"validation {metric}",
        f"test {metric}",
        "- dense (95 % interval)",
        advice.target.partition("=")[0],
        "training",
    )
    for each in (*advice.candidates, advice.dense):
        if each.seeds:
            yield _row(each, advice)


def _row(candidate: Candidate, advice: Advice) -> tuple[str, ...]:
    difference = ""
    if candidate.to_dense is not None:
        interval = candidate.to_dense.interval
        difference = f"{interval.mean:+.4g}"
        if interval.decides:
            difference += f" ({interval.low:+.4g} to {interval.high:+.4g})"
    is_dense = candidate is advice.dense
    reached = "-" if is_dense or candidate.reached is None else percent(round(candidate.reached, 4))
    seconds = candidate.train_seconds
    return (
        candidate.pruner,
        str(len(candidate.seeds)),
        number(candidate.validation),
        number(candidate.test),
        difference,
        reached,
        "-" if seconds is None else duration(seconds),
    )


def _notes(advice: Advice) -> Iterator[str]:
    for each in advice.candidates:
        if each.reason is not None:
            yield from _wrapped(f"{each.pruner} is out: {each.reason}", "  ")


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
