"""Tables, independent of the format in which they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness import record
from harness.results.intervals import Interval
from harness.text import first_of
from reports.groups import Group, Section
from reports.quantities import BUDGET, COSTS, IN_RECORD, OWN_COSTS, QUANTITIES
from reports.ranking import Ranking, best_of

NONE = "\N{EN DASH}"
"""Replaces a number that is not known; the note of the cell says why."""

MINUS = "\N{MINUS SIGN}"

UNASKED = "no sparsity requested"
"""Said of methods whose sparsity is not a parameter, such as narrow dense networks."""


@dataclass(frozen=True)
class Cell:
    """One entry of a table.

    Attributes:
        text: its content.
        note: an explanation.
        order: the value by which it is sorted.
        rank: whether it is the best of its block, or not distinguishable from the best.
        state: of a cell of the matrix: better, worse, level, few, failed, skipped ...
        symbol: the state as a shape.
        target: the run that it links to.
        detail: a second line.
        low: the lower end of its interval, in the unit of the text.
        high: the upper end.
    """

    text: str
    note: str = ""
    order: float | str | None = None
    rank: Literal["best"] | None = None
    state: str = ""
    symbol: str = ""
    target: str = ""
    detail: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Block:
    """Rows that are ranked among each other."""

    title: str
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Table:
    """A table in blocks; the first column names the row.

    Attributes:
        slug: a name for files.
        columns: the header.
        theoretical: the places of columns that are counted or computed, not measured.
        stamp: a warning if the data are not the published ones.
    """

    slug: str
    title: str
    columns: Sequence[str]
    blocks: Sequence[Block]
    theoretical: frozenset[int] = frozenset()
    stamp: str | None = None
    notes: Sequence[str] = ()


ROUNDING = 1e-9
"""Smaller differences are due to rounding."""


def number(value: float) -> str:
    """Return a number with four digits and a typographic minus sign."""
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 or value == int(value) else f"{value:#.4g}"
    if size >= 1e7 or 0 < size < 1e-4:
        text = f"{value:.3g}"
    return text.replace("-", MINUS)


def signed(value: float) -> str:
    """Return a number with its sign."""
    known = 0.0 if abs(value) < ROUNDING else value
    return f"{'+' if known > 0 else ''}{_short(known)}"


def _short(value: float) -> str:
    text = (
        f"{value:.2f}" if 0.1 <= abs(value) < 100 else f"{value:.{2 if abs(value) < 0.1 else 3}g}"
    )
    return text.replace("-", MINUS) if float(text) else "0"


def percent(fraction: float) -> str:
    """Return a fraction in percent."""
    return f"{100 * fraction:.6g}\N{NO-BREAK SPACE}%"


def between(interval: Interval, write: Callable[[float], str] = number, scale: float = 1) -> str:
    """Return the ends of an interval and its number of seeds."""
    if interval.low is None or interval.high is None:
        return f"{interval.n} seed, no interval"
    ends = f"{write(scale * interval.low)} to {write(scale * interval.high)}"
    return f"95 % interval {ends}, {interval.n} seeds"


def result_table(section: Section) -> Table:
    """Return the table of all methods of a section: metric, sparsities and costs."""
    keys = [key for key in (*BUDGET, *IN_RECORD, *OWN_COSTS) if _has_column(section, key)]
    blocks = [
        _ranked(Block(block_title(*asked), _rows(section, groups, keys)), section, groups, keys)
        for asked, groups in blocks_of(section).items()
    ]
    columns = ["Method", "Seeds", f"Test {section.metric_title}", "To dense"]
    return Table(
        slug=f"{section.slug}-results",
        title=section.name,
        columns=[*columns, *(QUANTITIES[key].title for key in keys)],
        blocks=blocks,
        theoretical=frozenset(
            len(columns) + index for index, key in enumerate(keys) if QUANTITIES[key].theoretical
        ),
        stamp=section.stamp,
        notes=[*_table_notes(section), *_endings([section])],
    )


def _has_column(section: Section, key: str) -> bool:
    """Return whether a quantity is shown: one that not every run has, only if some run has it."""
    is_optional = key in BUDGET or (key in record.COSTS and not record.COSTS[key].always)
    return not is_optional or any(
        key in group.intervals or group.reasons.get(key, "").startswith(record.SLOWER_THAN_DENSE)
        for group in section.groups
    )


def _endings(sections: Sequence[Section]) -> list[str]:
    """Return why methods have no complete result; each reason occurs once."""
    together: dict[tuple[str, str], list[str]] = {}
    for section in sections:
        where = f" on {section.name}" if len(sections) > 1 else ""
        for group in section.groups:
            if group.status != "done" and group.reason is not None:
                at = f" at {percent(group.sparsity)}" if group.sparsity else ""
                ending = group.status, group.reason
                together.setdefault(ending, []).append(f"{group.title}{at}{where}")
    return [
        f"{STATES[status][0]} {status}: {first_of(names)}: {reason}"
        for (status, reason), names in sorted(together.items())
    ]


def _table_notes(section: Section) -> list[str]:
    better = "higher" if section.higher_is_better else "lower"
    notes = [
        f"{section.metric_title}: {better} is better. Numbers are means over the seeds, with 95 % "
        "intervals. Differences to dense are paired by seed.",
        "Bold: the best of its block and all methods that are not distinguishable from it (paired "
        "by seed, otherwise Welch's test; corrected by Holm; networks with equal arithmetic count "
        "as equal in time and memory of a step). Nothing is bold if no methods are "
        "distinguishable or if there are fewer than three seeds; metrics of collapsed or "
        "incomplete runs are never bold.",
    ]
    if section.stamp is None and section.data_name:
        notes.append(f"Data: {section.data_name} ({section.source}).")
    if section.baseline is not None:
        notes.append(
            f"The best predictor that ignores its input has {section.metric_title} "
            f"{number(section.baseline)}."
        )
    run, network = section.machine
    if run and run == network:
        notes.append(f"Times, memory and energy were measured on {run}.")
    elif run:
        notes.append(f"Time, memory and energy of the runs were measured on {run}.")
    if network and run != network:
        notes.append(f"The final networks were measured on {network}.")
    if others := [name for name in section.machines if name not in section.machine]:
        notes.append(
            f"Measurements of other machines are not pooled with them: {'; '.join(others)}."
        )
    if any(group.estimated & group.intervals.keys() for group in section.groups):
        notes.append("Energy and emissions marked ~ are estimates and are not ranked.")
    if any(budget_gap(group) >= LARGE_GAP for group in section.groups):
        notes.append(
            f"Marked {GAP}: the network costs at least {percent(LARGE_GAP)} less than its budget "
            "permits."
        )
    if any(group.disturbed & group.intervals.keys() for group in section.groups):
        notes.append(
            "Costs marked * were disturbed by other programs on the machine; they are not ranked "
            "and decide no claim."
        )
    return notes


def ranking_table(ranking: Ranking) -> Table:
    """Return the table of a ranking, best method first."""
    rows = []
    for row in ranking.ranked:
        score, over = row.score, row.over_next
        cells = [
            Cell(f"{score.mean:.3f}", order=score.mean),
            Cell(_range(score, 3)),
            Cell(f"{row.middle:.3f}", order=row.middle),
        ]
        if over is None or row.beats_next is None:
            cells += [Cell(NONE, "there is no next method")] * 2
        else:
            ahead = f"{signed(over.mean)} [{_range(over, 3)}]"
            cells += [
                Cell(ahead, order=over.mean),
                Cell(f"{row.beats_next:.2f}", order=row.beats_next),
            ]
        rows.append([Cell(row.title, order=row.title), *cells, Cell(row.verdict)])
    return Table(
        slug=ranking.slug,
        title="Mean of normalised scores",
        columns=[
            *("Method", "Score", "95 % interval", "Interquartile mean"),
            *("Ahead of the next by", "Beats the next, probability", "Verdict"),
        ],
        blocks=[Block("", rows)],
        stamp=ranking.stamp,
        notes=list(_ranking_notes(ranking)),
    )


def _ranking_notes(ranking: Ranking) -> Iterator[str]:
    yield (
        f"Over {'; '.join(ranking.cells)}. A score of 0 is the best predictor that ignores its "
        "input, 1 is the mean of the dense network; a run that is worse than 0 or diverged scores "
        "0. Score: the mean of the tasks' means. Intervals: Student's t over the seeds within each "
        "task (Satterthwaite); they treat the tasks as fixed and do not account for failures too "
        "rare to occur in these seeds. Verdict: two-sided, paired by seed, corrected by Holm over "
        "the table."
    )
    if ranking.failed:
        yield f"Failed runs are not results and have no score: {'; '.join(ranking.failed)}."
    if ranking.left_out:
        yield f"Not ranked here, for lack of a result in some cell: {', '.join(ranking.left_out)}."


def _range(interval: Interval, digits: int) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.n} seed, no interval"
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}".replace("-", MINUS)


def block_title(kind: str, sparsity: float, budget: str) -> str:
    """Return the title of a block: the kind of its methods, and what was requested of them."""
    if kind == "dense":
        return "Dense"
    if budget:
        return f"{kind.capitalize()}, {budget}"
    removed = f"{percent(sparsity)} removed" if sparsity else UNASKED
    return f"{kind.capitalize()}, {removed}"


def blocks_of(section: Section) -> dict[tuple[str, float, str], list[Group]]:
    """Return the groups of each block, by kind, sparsity and budget."""
    together: dict[tuple[str, float, str], list[Group]] = {}
    for group in section.groups:
        together.setdefault((group.kind, group.sparsity, group.budget), []).append(group)
    return together


def _rows(section: Section, groups: Sequence[Group], keys: Sequence[str]) -> list[list[Cell]]:
    return [
        [_name(group), _seeds(group), *_quality(section, group), *_costs(group, keys)]
        for group in groups
    ]


def _name(group: Group) -> Cell:
    return Cell(group.title, note=group.reason or "", order=group.title, target=group.run_ids[0])


def _seeds(group: Group) -> Cell:
    text = str(group.tested)
    return Cell(f"{text} ({group.remark})" if group.remark else text, order=group.tested)


def _quality(section: Section, group: Group) -> tuple[Cell, Cell]:
    test = group.intervals.get("test")
    if test is None:
        reason = group.reasons.get("test", "")
        return Cell(NONE, note=reason), Cell(NONE, note=reason)
    value = Cell(
        number(test.mean),
        between(test),
        order=test.mean,
        detail=_ends(test, number),
        low=test.low,
        high=test.high,
    )
    difference = group.differences.get("test")
    if group.kind == "dense":
        return value, Cell(NONE, "this is the reference")
    if difference is None:
        return value, Cell(NONE, "no dense run of the same seed")
    return value, Cell(
        signed(difference.mean),
        between(difference, signed),
        order=difference.mean,
        detail=_ends(difference, signed),
        low=difference.low,
        high=difference.high,
    )


def _ends(interval: Interval, write: Callable[[float], str]) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f"{write(interval.low)} to {write(interval.high)}"


def _costs(group: Group, keys: Sequence[str]) -> list[Cell]:
    cells = []
    for key in keys:
        interval = group.intervals.get(key)
        if interval is None:
            why = group.reasons.get(key, "not measured")
            slower = record.SLOWER_THAN_DENSE
            cells.append(Cell(NONE, why, detail=slower if why.startswith(slower) else ""))
            continue
        scale = QUANTITIES[key].scale
        value = scale * interval.mean
        text, note = number(value), between(interval, scale=scale)
        if key == "budget_asked":
            text = f"{text} ({group.budget.partition('=')[0]})"
        if key == "budget_reached" and (gap := budget_gap(group)) >= LARGE_GAP:
            text, note = f"{text}{GAP}", f"{percent(round(gap, 3))} less than permitted; {note}"
        if key in group.disturbed:
            text += "*"
            note = f"disturbed by other programs on the machine, not ranked; {note}"
        if key in group.estimated:
            text, note = f"~{text}", f"estimated, not ranked; {note}"
        cells.append(
            Cell(
                text,
                note,
                order=value,
                low=None if interval.low is None else scale * interval.low,
                high=None if interval.high is None else scale * interval.high,
            )
        )
    return cells


GAP = "\N{DOWNWARDS ARROW}"
"""Marks a network that costs much less than its budget permits."""

LARGE_GAP = 0.05
"""From which share of a budget on its unused part is marked."""


def budget_gap(group: Group) -> float:
    """Return the share of a group's budget that its networks leave unused, 0 without a budget."""
    asked, reached = (group.intervals.get(key) for key in BUDGET)
    return 1 - reached.mean / asked.mean if asked and reached else 0.0


def _ranked(block: Block, section: Section, groups: Sequence[Group], keys: Sequence[str]) -> Block:
    """Mark the best of each column, and what is not distinguishable from it."""
    rows = [list(row) for row in block.rows]
    columns = {2: ("test", not section.higher_is_better)}
    columns |= {4 + index: (key, True) for index, key in enumerate(keys) if key in COSTS}
    for column, (key, smaller) in columns.items():
        for index in best_of(groups, key, smaller=smaller):
            rows[index][column] = replace(rows[index][column], rank="best")
    return Block(block.title, rows)


STATES: Mapping[str, tuple[str, str]] = {
    "better": ("\N{BLACK UP-POINTING TRIANGLE}", "better than dense"),
    "worse": ("\N{BLACK DOWN-POINTING TRIANGLE}", "worse than dense"),
    "level": ("\N{ALMOST EQUAL TO}", "not distinguishable from dense"),
    "few": ("\N{WHITE CIRCLE}", "too few seeds"),
    "alone": ("\N{BULLET}", "no dense run to compare with"),
    "collapsed": ("\N{BLACK SQUARE}", "collapsed: the output ignores the input"),
    "diverged": ("\N{INFINITY}", "diverged: no finite loss"),
    "failed": ("\N{MULTIPLICATION X}", "failed: an error, not a result"),
    "skipped": ("\N{EMPTY SET}", "skipped: not possible"),
    "unknown": ("?", "no finite result"),
    "missing": ("\N{HORIZONTAL ELLIPSIS}", "missing: requested, no result yet"),
    "unasked": ("\N{MIDDLE DOT}", "not run, and not requested by a matrix"),
}
"""The symbol and the meaning of each state of a cell of the matrix."""


def matrix(sections: Sequence[Section]) -> Table:
    """Return the table of methods x tasks; a cell is the difference to dense."""
    columns = [(section, sparsity) for section in sections for sparsity in _asked(section)]
    methods: dict[str, tuple[str, str]] = {}
    for section in sections:
        methods |= {g.method: (g.kind, g.title) for g in section.groups if g.kind != "dense"}
    kinds = sorted({kind for kind, _ in methods.values()}, key=_kind_order)
    blocks = []
    for kind in kinds:
        named = sorted((title, m) for m, (of, title) in methods.items() if of == kind)
        rows = [
            [Cell(title, order=title), *(_matrix_cell(*column, method) for column in columns)]
            for title, method in named
        ]
        blocks.append(Block(kind.capitalize(), rows))
    headers = [
        f"{section.name}, {percent(sparsity) if sparsity else UNASKED}{_short_stamp(section)}"
        for section, sparsity in columns
    ]
    stamps = [f"{section.name}: {section.stamp}." for section in sections if section.stamp]
    return Table(
        slug="matrix",
        title="Test metric relative to dense",
        columns=["Method", *headers],
        blocks=blocks,
        notes=[*stamps, *_endings(sections)],
    )


def _asked(section: Section) -> Sequence[float]:
    """Return the requested sparsities in order; 0, which stands for none, comes last."""
    asked = {group.sparsity for group in section.groups if group.kind != "dense"}
    return sorted(asked, key=lambda sparsity: (not sparsity, sparsity))


def _short_stamp(section: Section) -> str:
    return f" ({section.stamp.partition(':')[0]})" if section.stamp else ""


def _kind_order(kind: str) -> tuple[int, str]:
    known = ("structured", "unstructured", "control")
    return (known.index(kind) if kind in known else len(known), kind)


def _matrix_cell(section: Section, sparsity: float, method: str) -> Cell:
    own = [group for group in section.groups if group.method == method]
    found = [group for group in own if group.sparsity == sparsity]
    if own and all(bool(group.sparsity) != bool(sparsity) for group in own):
        return Cell(NONE, "shown in another column")
    if not found:
        return _state_cell("unasked", "not run", "")
    group = found[0]
    difference = group.differences.get("test")
    if difference is None:
        state = "unknown" if group.status == "done" else group.status
        state = "alone" if "test" in group.intervals else state
        test = group.intervals.get("test")
        text = number(test.mean) if test else NONE if state == "unknown" else state
        note = group.reason or group.reasons.get("test", "")
        return _state_cell(state, text, note, target=_culprit(group))
    state = matrix_state(section, group, difference)
    sure = f"n={difference.n}"
    if difference.low is not None and difference.high is not None:
        sure = f"{signed(difference.low)} to {signed(difference.high)}, {sure}"
    return replace(
        _state_cell(state, signed(difference.mean), "", target=_culprit(group)),
        detail=group.remark or sure,
        order=difference.mean,
        low=difference.low,
        high=difference.high,
        note="; ".join(filter(None, (sure, group.remark, group.reason, STATES[state][1]))),
    )


def _state_cell(state: str, text: str, note: str, target: str = "") -> Cell:
    return Cell(text, note or STATES[state][1], None, None, state, STATES[state][0], target)


def matrix_state(section: Section, group: Group, difference: Interval) -> str:
    """Return the state of a cell: that of the difference to dense, or of a run that is not done."""
    if group.status != "done":
        return group.status
    if not difference.decides or difference.low is None or difference.high is None:
        return "few"
    if difference.low - ROUNDING <= 0 <= difference.high + ROUNDING:
        return "level"
    return "better" if (difference.mean > 0) == section.higher_is_better else "worse"


def _culprit(group: Group) -> str:
    """Return the first run that has the status of its group."""
    return next(run.run_id for run in group.members if run.status == group.status)
