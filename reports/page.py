"""The page of a report: one HTML file that loads nothing from the network."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports.charts import quantity_data
from reports.claims import Verdict
from reports.figures import Drawn
from reports.groups import Section
from reports.provenance import number_data
from reports.published import Reference
from reports.ranking import THRESHOLDS, Ranking
from reports.results import UNTRIED, Results
from reports.tables import STATES, Table, percent

PACKAGE = resources.files("reports")

NOT_IN_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028"}
"""Characters that could end a script element or be taken for markup, with their escapes."""


def render(
    results: Results,
    sections: Sequence[Section],
    matrix: Table,
    tables: Mapping[str, Table],
    lengths: Mapping[str, Table],
    rankings: Sequence[tuple[Ranking, Table]],
    unranked: Sequence[str],
    verdicts: Sequence[Verdict],
    references: Sequence[Reference],
    charts: Mapping[str, Any],
    methods: Sequence[Mapping[str, Any]],
    figures: Drawn,
    moments: Mapping[str, bytes],
) -> str:
    """Return the page.

    Args:
        results: the runs.
        sections: the sections, in the order in which they are shown.
        matrix: the table of methods x tasks.
        tables: the result table of each section, by slug.
        lengths: the table of inference over the length of sequences, by slug of the section.
        rankings: the rankings across tasks, each with its table.
        unranked: which tasks and methods are in no ranking, and why.
        verdicts: the verdicts on the claims.
        references: the published tables with our numbers.
        charts: the data of each section's charts, by slug.
        methods: colours and markers of the methods.
        figures: the names of the figures' files.
        moments: the SVG of each section's curves over the moment of pruning, by slug.
    """
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment.get_template("page.html.j2").render(
        notes=results.notes,
        statuses=sorted(
            Counter(run.status for s in sections for g in s.groups for run in g.members).items()
        ),
        sections=sections,
        matrix=matrix,
        tables=tables,
        lengths=lengths,
        rankings=rankings,
        unranked=unranked,
        moments={slug: base64.b64encode(svg).decode() for slug, svg in moments.items()},
        verdicts=verdicts,
        references=references,
        states=STATES,
        figures=figures,
        environments=_counted(results, "environment"),
        commits=_counted(results, "commit"),
        style=Markup((PACKAGE / "style.css").read_text(encoding="utf-8")),
        script=Markup((PACKAGE / "page.js").read_text(encoding="utf-8")),
        data=embedded(_data(results, [ranking for ranking, _ in rankings], charts, methods)),
    )


def _counted(results: Results, what: str) -> list[tuple[str, int]]:
    """Return the different values of a detail of runs, the most frequent first."""
    counted = Counter(
        details[what]
        for details in results.details.values()
        if details["status"] not in UNTRIED and details[what]
    )
    return sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))


def embedded(data: Any) -> Markup:
    """Return data as JSON for a script element, with everything escaped that could end it.

    Numbers that are not finite become null.
    """
    try:
        text = _as_json(data)
    except ValueError:
        text = _as_json(_finite(data))
    for character, escaped in NOT_IN_HTML.items():
        text = text.replace(character, escaped)
    return Markup(text)


def _as_json(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _data(
    results: Results,
    rankings: Sequence[Ranking],
    charts: Mapping[str, Any],
    methods: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    shared: dict[str, int] = {}
    runs = {
        run_id: {
            **run,
            **{
                key: shared.setdefault(run[key], len(shared))
                for key in ("environment", "unmeasured")
            },
        }
        for run_id, run in sorted(results.details.items())
    }
    return {
        "methods": methods,
        "quantities": quantity_data(),
        "numbers": number_data(),
        "sections": charts,
        "profiles": [
            {
                "stamp": ranking.stamp,
                "thresholds": THRESHOLDS.tolist(),
                "methods": [{"method": r.method, "values": r.profile} for r in ranking.ranked],
            }
            for ranking in rankings
        ],
        "runs": runs,
        "shared": list(shared),
    }
