"""Claims held against results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fabricated import record, save, slim

from harness.errors import RequestError
from reports.claims import CLAIMS, Verdict, judge
from reports.groups import sections
from reports.results import read

BETTER = """
[[claim]]
statement = "SNIP beats random pruning."
[[claim.test]]
effect = "improvement"
of = ["snip"]
against = ["random_u"]
is = "above"
threshold = 0
"""

FASTER = """
[[claim]]
statement = "CroP-S is faster than dense."
[[claim.test]]
effect = "ratio"
quantity = "QUANTITY"
of = ["kind:structured"]
against = ["dense"]
is = "below"
threshold = 0.9
"""

STABLE = """
[[claim]]
statement = "The kernel is stable."
[[claim.test]]
effect = "value"
quantity = "kernel_drift_at_trigger"
of = ["earlycrop_u"]
is = "below"
threshold = 0.1
"""


def verdict(folder: Path, claim: str, records: list[dict[str, Any]]) -> Verdict:
    file = folder / "claims.toml"
    file.write_text(claim)
    (judged,) = judge(sections(read(save(folder / "results", records))), file)
    return judged


def compared(*differences: float) -> list[dict[str, Any]]:
    """Return runs in which SNIP is better than random pruning by so much."""
    made = []
    for seed, difference in enumerate(differences):
        tests = {"dense": 95.0, "random_u": 80.0 + seed, "snip": 80.0 + seed + difference}
        made += [record(pruner=p, seed=seed, quality__test=t) for p, t in tests.items()]
    return made


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ((1.0, 1.1, 0.9), "supported"),
        ((-1.0, -1.1, -0.9), "contradicted"),
        ((1.0, -1.0, 0.2), "undecided"),
        ((1.0, 1.0), "undecided"),
        ((), "undecided"),
    ],
)
def test_the_interval_of_the_paired_difference_decides(
    tmp_path: Path, differences: tuple[float, ...], expected: str
) -> None:
    records = compared(*differences) or [record(pruner="dense")]
    assert verdict(tmp_path, BETTER, records).verdict == expected


def test_one_counterexample_contradicts(tmp_path: Path) -> None:
    records = compared(1.0, 1.1, 0.9)
    for seed in range(3):
        tests = {"dense": 95.0, "random_u": 70.0, "snip": 60.0 + 0.1 * seed}
        records += [record("pole", p, seed=seed, quality__test=t) for p, t in tests.items()]
    judged = verdict(tmp_path, BETTER, records)
    assert (judged.verdict, judged.because) == (
        "contradicted",
        "1 contradicted, 1 supported of 2 comparisons",
    )
    assert "SYNTHETIC" in str([outcome.stamp for outcome in judged.outcomes])


def test_improvement_is_in_percent_of_the_way_to_dense(tmp_path: Path) -> None:
    """From 10, of who ignores the input, to 95: one point is 1 / 85."""
    (outcome,) = verdict(tmp_path, BETTER, compared(0.85, 0.85, 0.85)).outcomes
    assert outcome.effect.startswith("+1.00 %")


def test_runs_that_failed_count_against_a_method(tmp_path: Path) -> None:
    records = [r for r in compared(1.0, 1.1, 0.9) if r["spec"]["pruner"] != "snip"]
    records += [record(seed=seed, status="diverged", reason="nan") for seed in range(3)]
    assert verdict(tmp_path, BETTER, records).verdict == "contradicted"


def costs(**changes: Any) -> list[dict[str, Any]]:
    return [record(pruner=p, seed=s, **changes) for p in ("dense", "crop_s") for s in range(3)]


def test_costs_are_compared_as_ratios(tmp_path: Path) -> None:
    assert verdict(tmp_path, FASTER.replace("QUANTITY", "step_ms"), costs()).verdict == "supported"


def test_energy_that_is_only_estimated_decides_nothing(tmp_path: Path) -> None:
    claim = FASTER.replace("QUANTITY", "emissions_g")
    judged = verdict(tmp_path, claim, costs())
    assert judged.verdict == "undecided"
    assert judged.outcomes[0].effect == "energy is only estimated here"


def test_energy_that_was_measured_decides(tmp_path: Path) -> None:
    claim = FASTER.replace("QUANTITY", "emissions_g")
    assert (
        verdict(tmp_path, claim, costs(cost__energy_method="measured nvml")).verdict == "supported"
    )


def test_the_kernels_drift_when_the_trigger_fires(tmp_path: Path) -> None:
    """From 0.50 to 0.52 in the epoch that fired, where the first moved it by 0.5."""
    made = []
    for seed in range(3):
        each = record(pruner="earlycrop_u", seed=seed)
        changes = (0.5, 0.5 + 0.001 * seed, 0.52)
        for epoch, change in zip(each["events"][0]["epochs"], changes, strict=True):
            epoch["kernel"] = {"change": change, "alignment": 1.0}
        made.append(each)
    judged = verdict(tmp_path, STABLE, made)
    assert judged.verdict == "supported"
    assert judged.outcomes[0].effect.startswith("0.03800")


def test_a_small_dense_network_of_equal_cost(tmp_path: Path) -> None:
    claim = """
[[claim]]
statement = "Large and sparse beats small and dense."
[[claim.test]]
effect = "improvement"
of = ["crop_s"]
against = ["dense", "slim_dense"]
equal = "macs"
is = "above"
threshold = 0
"""
    made = []
    for seed in range(3):
        made += [
            record(pruner="dense", seed=seed, quality__test=95.0),
            record(pruner="crop_s", seed=seed, quality__test=94.0 + seed / 10, cost__macs=1000),
            *(
                record(
                    pruner="dense",
                    seed=seed,
                    quality__test=test,
                    cost__macs=macs,
                    spec__overrides={"width": width},
                    run_id=f"dense-{width}-{seed}",
                )
                for width, macs, test in ((8, 1100, 90.0), (16, 5000, 94.9))
            ),
            *(
                slim("pictures", seed, macs, test, spec__overrides=overrides)
                for overrides, macs, test in (({"macs": 0.001}, 900, 93.0), ({}, 100_000, 99.0))
            ),
        ]
    judged = verdict(tmp_path, claim, made)
    assert [(outcome.what, outcome.verdict) for outcome in judged.outcomes] == [
        ("CroP-S against Slim dense (macs=0.001)", "supported"),
        ("CroP-S against Dense with width=8", "supported"),
    ]
    assert judged.missing == []


def test_the_talks_claims_are_nine_and_understood(eventful: Path) -> None:
    verdicts = judge(sections(read(eventful)))
    assert len(verdicts) == 9
    assert {o.test for each in verdicts for o in each.outcomes} <= {
        test for each in verdicts for test in each.tests
    }
    assert {each.verdict for each in verdicts} <= {"supported", "contradicted", "undecided"}
    energy = [o for each in verdicts for o in each.outcomes if "energy" in o.effect]
    assert energy
    assert {outcome.verdict for outcome in energy} == {"undecided"}


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("improvement", "improvment", "unknown effect 'improvment'"),
        ('is = "above"', 'is = "over"', "'is' has to be above or below, not 'over'"),
        ("[[claim]]", "[[claim\n", "claims claims.toml:"),
    ],
)
def test_a_claim_that_cannot_be_understood_is_refused(
    tmp_path: Path, before: str, after: str, complaint: str
) -> None:
    with pytest.raises(RequestError, match=complaint.replace("[", r"\[")):
        verdict(tmp_path, BETTER.replace(before, after), compared(1.0))


def test_the_claims_lie_where_they_are_looked_for() -> None:
    assert CLAIMS.exists()
