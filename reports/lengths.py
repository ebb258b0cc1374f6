"""The time of inference over the length of its sequences, for tasks whose inputs are sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.results.comparable import not_comparable
from harness.results.intervals import BySeed, Interval, mean_interval, ratio
from reports.groups import Group, Section
from reports.results import Results, finite
from reports.tables import NONE, Block, Cell, Table, between, block_title, blocks_of, number


@dataclass(frozen=True)
class OverLengths:
    """The time of inference of a group's networks, by length.

    Attributes:
        times: of a batch, in milliseconds.
        ratios: to dense, paired by seed.
        disturbed: whether other programs disturbed the measurement of some run.
        ratios_disturbed: whether they disturbed that of some run or of a dense one.
        reason: why there are no times; empty if there are.
    """

    times: Mapping[int, Interval]
    ratios: Mapping[int, Interval]
    disturbed: bool
    ratios_disturbed: bool
    reason: str = ""


Found = Mapping[tuple[str, float], OverLengths]
"""By method and sparsity of the group."""


def over_lengths(section: Section, results: Results) -> Found:
    """Return the times of each group of a section; nothing if none was measured at any length.

    Only the networks that were measured on the section's machine count.
    """
    dense = _times(section.dense, section, results) if section.dense else {}
    reference = section.dense is not None and "by_length" in section.dense.disturbed
    found = {}
    for group in section.groups:
        times = _times(group, section, results)
        compared = {
            length: ratio(times[length], dense[length]) for length in times if length in dense
        }
        found[group.method, group.sparsity] = OverLengths(
            {length: mean_interval(list(each.values())) for length, each in times.items()},
            {length: each for length, each in compared.items() if each is not None},
            disturbed := "by_length" in group.disturbed,
            disturbed or reference,
            "" if times else _reason(group, section, results),
        )
    return found if any(each.times for each in found.values()) else {}


def _times(group: Group, section: Section, results: Results) -> dict[int, BySeed]:
    """Return the times by length and seed, the shortest length first."""
    measured = {
        run.seed: results.records[run.run_id]["cost"].get("by_length") or {}
        for run in group.members
        if run.status != "diverged" and run.network_machine == section.machine.network
    }
    lengths = {length for costs in measured.values() for length in costs}
    by_length = {
        int(length): finite(
            (seed, costs.get(length, {}).get("inference_ms")) for seed, costs in measured.items()
        )
        for length in sorted(lengths, key=int)
    }
    return {length: by_seed for length, by_seed in by_length.items() if by_seed}


def _reason(group: Group, section: Section, results: Results) -> str:
    for run in group.members:
        reasons = not_comparable(results.records[run.run_id])
        if why := reasons.get("by_length", reasons.get("inference_ms")):
            return why
        if run.network_machine != section.machine.network:
            return f"measured on another machine: {run.network_machine}"
    return "not measured"


def lengths_table(section: Section, found: Found) -> Table:
    """Return the table of times and their ratios to dense.

    Args:
        section: the section.
        found: the times of each of its groups, as `over_lengths` returns them.
    """
    lengths = sorted({length for each in found.values() for length in each.times})
    blocks = [
        Block(
            block_title(*asked),
            [_row(group, found[group.method, group.sparsity], lengths) for group in groups],
        )
        for asked, groups in blocks_of(section).items()
    ]
    headers = [
        header
        for length in lengths
        for header in (f"Length {length} (ms)", f"Length {length}, to dense")
    ]
    notes = [
        "The inference of a batch whose sequences are cut to this length: the median time, as a "
        "mean over the seeds, and its ratio to dense, paired by seed. The greatest length is that "
        "of the recipe.",
    ]
    if section.machine.network:
        notes.append(f"The final networks were measured on {section.machine.network}.")
    if any(each.disturbed and each.times for each in found.values()):
        notes.append("Times marked * were disturbed by other programs on the machine.")
    return Table(
        slug=f"{section.slug}-lengths",
        title=f"{section.name}: inference over the length of sequences",
        columns=["Method", *headers],
        blocks=blocks,
        stamp=section.stamp,
        notes=notes,
    )


def _row(group: Group, found: OverLengths, lengths: Sequence[int]) -> list[Cell]:
    name = Cell(group.title, group.reason or "", group.title, target=group.run_ids[0])
    reason = found.reason or "not measured"
    why = "this is the reference" if group.kind == "dense" else "no dense run of the same seed"
    cells = [name]
    for length in lengths:
        time = found.times.get(length)
        compared = None if group.kind == "dense" else found.ratios.get(length)
        cells.append(_cell(time, reason, disturbed=found.disturbed))
        cells.append(_cell(compared, why if time else reason, disturbed=found.ratios_disturbed))
    return cells


def _cell(interval: Interval | None, reason: str, *, disturbed: bool) -> Cell:
    if interval is None:
        return Cell(NONE, reason)
    text, note = number(interval.mean), between(interval)
    if disturbed:
        text, note = f"{text}*", f"disturbed by other programs on the machine; {note}"
    return Cell(text, note, interval.mean, low=interval.low, high=interval.high)
