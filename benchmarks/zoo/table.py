"""The outcomes as text: counts per family, and a page with a table of all networks."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from benchmarks.zoo.trial import NOTHING_CUT, Outcome, Result
from harness.text import markdown_table
from pruners.channels.kinds import HEAD_WIDTH, HEADS, NEURONS, OUTPUT, RESIDUAL

Row = tuple[str, str, Result]
"""Family, name and result of a network."""

SCORED: tuple[Outcome, ...] = tuple(o for o in get_args(Outcome) if o != "not built")
"""Outcomes that say something about tracing."""

INTRODUCTION = """\
# Which networks can be cut

Structured pruning contains no code for any architecture: `trace_channels` follows the operations of
a forward pass ([Extending](guide/extending.md#channels-without-the-harness) shows how to use it).
This page shows how it fares on networks of other libraries, with random weights in double precision
(`python -m benchmarks.zoo --write docs/channels.md`, in the environment of `tox -e zoo`).

Each network is traced and cut, to half of the channels and to one channel of each group. Its
outputs are compared with those of the network whose other channels are held at zero (tolerance
{tolerance:g}). Then it is trained for a step, traced and cut again together with its optimizer,
compared again, and trained for another step.

- **right**: all of that succeeded.
- **counts channels**: the cut network differs from the masked one by nature, because an operation
  takes a mean or the like over channels. Permuting the channels of each group changes nothing.
- **wrong**: tracing succeeded, but the cut network fails or computes something else.
- **refused**: tracing named an operation and a reason, before anything was cut.
- **out of time**, **out of memory**: the trial exceeded the limits that it was given.

*Cuttable* is the share of the weights (parameters of two axes or more) that have a channel that can
be removed. *Left* is the share of all parameters that remains when each group is halved. *What
stops the others* gives the reasons why weights cannot be cut, with their share.
"""


def counts(rows: Sequence[Row]) -> dict[str, dict[Outcome, int]]:
    """Return how many networks of each family ended how."""
    found: dict[str, dict[Outcome, int]] = {}
    for family, _, result in rows:
        of_family = found.setdefault(family, dict.fromkeys(get_args(Outcome), 0))
        of_family[result.outcome] += 1
    return found


def summary(rows: Sequence[Row]) -> list[str]:
    """Return a line for each family."""
    lines = []
    for family, of_family in counts(rows).items():
        parts = [f"{number} {outcome}" for outcome, number in of_family.items() if number]
        lines.append(f"{family}: {sum(of_family.values())} networks: {', '.join(parts)}")
    return lines


def page(
    rows: Sequence[Row], versions: Mapping[str, str], tolerance: float, limit: int | None = None
) -> str:
    """Return the page in Markdown.

    Args:
        rows: the results of all networks.
        versions: versions of the libraries, by name.
        tolerance: tolerance of the comparison.
        limit: how many of each family were asked for; None for all.
    """
    numbers = counts(rows)
    outcomes = [o for o in get_args(Outcome) if any(each[o] for each in numbers.values())]
    parts = [INTRODUCTION.format(tolerance=tolerance)]
    parts.append(
        f"Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}.\n"
    )
    if limit is not None:
        parts.append(f"Only the first {limit} networks of each family were tried (`--limit`).\n")
    parts.append(
        markdown_table(
            ["family", "networks", *outcomes, "median seconds to trace"],
            [
                [
                    family,
                    str(sum(of_family.values())),
                    *(str(of_family[outcome]) for outcome in outcomes),
                    f"{_median(r.seconds for f, _, r in rows if f == family and r.groups):.2g}",
                ]
                for family, of_family in numbers.items()
            ],
        )
    )
    for family in numbers:
        parts.append(f"## {family}\n")
        parts.append(
            markdown_table(
                ["network", "parameters", "outcome", "cuttable", "left", "what stops the others"],
                [_cells(name, result) for f, name, result in rows if f == family],
            )
        )
    return "\n".join(parts)


PEER: Mapping[Outcome, str] = {"right": "right", "wrong": "silently wrong", "refused": "fails"}
"""What the table says of torch-pruning; a refusal has its reason only if nothing is cut."""


def comparison(
    rows: Sequence[Row], peers: Mapping[tuple[str, str], Result], versions: Mapping[str, str]
) -> str:
    """Return a table of transformers in Markdown, with the results of torch-pruning.

    Args:
        rows: the results of all networks.
        peers: the results with torch-pruning, by family and name.
        versions: versions of the libraries, by name.
    """
    by_nature = {(f, name) for f, name, result in rows if result.outcome == "counts channels"}
    told = {
        place: _of_peer(result, differs_by_nature=place in by_nature)
        for place, result in peers.items()
    }
    ours = _counted(Counter(result.outcome for _, _, result in rows))
    parts = [
        f"Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}.\n",
        f"{len(rows)} networks: {ours}. torch-pruning: {_counted(Counter(told.values()))}.\n",
    ]
    for family in dict.fromkeys(family for family, _, _ in rows):
        lines = [
            [*_compared(name, result), told.get((family, name), "")]
            for own, name, result in rows
            if own == family
        ]
        parts.append(markdown_table([family, *_COMPARED, "torch-pruning"], lines))
    return "\n".join(parts)


_COMPARED = (
    "outcome",
    "difference",
    *("heads", "head width", "neurons", "residual"),
    "what stays, and why",
)


def _compared(name: str, result: Result) -> list[str]:
    kinds = (HEADS, HEAD_WIDTH, NEURONS, RESIDUAL)
    why = [f"{kind}: {reason}" for kind, reason in result.whole.items() if OUTPUT not in reason]
    return [
        name,
        result.outcome,
        f"{result.difference:.0e}" if result.groups else "",
        *(str(result.kinds.get(kind, "")) for kind in kinds),
        "; ".join(filter(None, (result.reason, *why))),
    ]


def _of_peer(result: Result, *, differs_by_nature: bool) -> str:
    if result.reason == NOTHING_CUT:
        return NOTHING_CUT
    if differs_by_nature and result.outcome == "wrong":
        return "counts channels"
    return PEER.get(result.outcome, result.outcome)


def _counted(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())


def _cells(name: str, result: Result) -> list[str]:
    traced = result.groups > 0
    stops = "; ".join(
        f"{share:.0%}: {reason}" for reason, share in result.stops.items() if share >= 0.005
    )
    why = f"`{result.operation}`: {result.reason}" if result.operation else result.reason
    return [
        name,
        f"{result.parameters:,}" if result.parameters else "",
        result.outcome,
        f"{result.cuttable:.0%}" if traced else "",
        f"{result.left:.0%}" if traced and result.left < 1 else "",
        "; ".join(filter(None, (why, stops))),
    ]


def _median(values: Iterable[float]) -> float:
    found = list(values)
    return statistics.median(found) if found else 0.0
