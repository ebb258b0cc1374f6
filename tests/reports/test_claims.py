"""Claims held against results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import RequestError
from reports.claims import CLAIMS, Verdict, judge
from reports.groups import sections
from reports.results import read
from tests.helpers.fabricated import record, save, slim

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
    folder.mkdir(exist_ok=True)
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


def at(moment: float, seed: int, test: float) -> Any:
    """Return a run that pruned at a fixed moment."""
    made = record(pruner="earlycrop_u_fixed", seed=seed, quality__test=test)
    made["spec"]["overrides"] = {"moment": moment}
    made["settings"] |= {"moment": moment}
    return made


@pytest.mark.parametrize(("late", "expected"), [(90.0, "supported"), (95.0, "contradicted")])
def test_every_variant_of_a_method_is_compared(tmp_path: Path, late: float, expected: str) -> None:
    claim = BETTER.replace('"snip"', '"earlycrop_u"').replace(
        '"random_u"', '"every:earlycrop_u_fixed"'
    )
    runs = [
        made
        for seed in range(3)
        for made in (
            record(pruner="dense", seed=seed, quality__test=95.0),
            record(pruner="earlycrop_u", seed=seed, quality__test=92.0 + seed / 100),
            at(0.1, seed, 90.0),
            at(0.4, seed, late),
        )
    ]
    judged = verdict(tmp_path, claim, runs)
    assert judged.verdict == expected
    assert judged.tests == [
        "earlycrop_u against every earlycrop_u_fixed: improvement of the test metric above 0 %"
    ]
    of_three = claim.replace("against", "at_least = 3\nagainst")
    (only,) = verdict(tmp_path, of_three, runs).outcomes
    assert only.what == "earlycrop_u against every earlycrop_u_fixed"
    assert only.effect == "no task has the runs that it needs"


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


def on_pole(*differences: float) -> list[dict[str, Any]]:
    """Return runs of another task in which SNIP is better by so many percent of the way."""
    made = []
    for seed, difference in enumerate(differences):
        tests = {"dense": 120.0, "random_u": 70.0, "snip": 70.0 + difference}
        made += [record("pole", p, seed=seed, quality__test=t) for p, t in tests.items()]
    return made


class TestOverTasks:
    def test_all_tasks_together_decide_and_each_is_shown(self, tmp_path: Path) -> None:
        """In percent of the way: +1.00 / 85, on average, and +3.0 / 100."""
        judged = verdict(tmp_path, BETTER, compared(0.85, 0.95, 0.75) + on_pole(3.0, 3.1, 2.9))
        assert (judged.verdict, judged.because) == ("supported", "1 supported of 1 comparison")
        whole, *cells = judged.outcomes
        assert whole.where == "2 tasks together, 2 cells"
        assert whole.effect.startswith("+2.00 % [")
        assert whole.decides
        assert [(cell.verdict, cell.decides, cell.effect[:7]) for cell in cells] == [
            ("", False, "+1.00 %"),
            ("", False, "+3.00 %"),
        ]

    def test_one_task_does_not_contradict_them(self, tmp_path: Path) -> None:
        """Clearly worse on one task, and better by more on the other."""
        judged = verdict(tmp_path, BETTER, compared(-1.7, -1.8, -1.6) + on_pole(9.0, 9.1, 8.9))
        assert judged.verdict == "supported"

    def test_stamps_of_all_tasks_are_kept(self, tmp_path: Path) -> None:
        judged = verdict(tmp_path, BETTER, compared(1.0, 1.1, 0.9) + on_pole(1.0, 1.1, 0.9))
        assert [outcome.stamp for outcome in judged.outcomes] == [
            "INCLUDES STAND-IN, SYNTHETIC OR UNOFFICIAL DATA",
            None,
            "SYNTHETIC DATA: pole for tests",
        ]

    def test_a_task_with_more_sparsities_weighs_no_more(self, tmp_path: Path) -> None:
        records = on_pole(4.0, 4.1, 3.9) + compared(0.85, 0.95, 0.75)
        for sparsity in (0.5, 0.9):
            for seed, difference in enumerate((0.85, 0.95, 0.75)):
                tests = {"random_u": 80.0 + seed, "snip": 80.0 + seed + difference}
                records += [
                    record(pruner=p, sparsity=sparsity, seed=seed, quality__test=t)
                    for p, t in tests.items()
                ]
        whole = verdict(tmp_path, BETTER, records).outcomes[0]
        assert whole.where == "2 tasks together, 4 cells"
        assert whole.effect.startswith("+2.50 %")

    def test_a_cell_with_too_few_seeds_takes_no_part(self, tmp_path: Path) -> None:
        whole, here, there = verdict(
            tmp_path, BETTER, compared(1.0, 1.1, 0.9) + on_pole(-50.0, -50.0)
        ).outcomes
        assert whole.verdict == "supported"
        assert whole.where == "1 task together, 1 cell; 1 more with too few runs"
        assert there.effect.endswith("n=2: too few seeds")
        assert here.effect.startswith("+1.18 %")


class TestContradiction:
    def test_it_survives_the_correction_for_all_comparisons(self, tmp_path: Path) -> None:
        """One of seven comparisons is beyond its own interval, which is no wonder of seven."""
        others = ["grasp", "synflow", "crop_u", "ltr", "gmp", "rigl"]
        claim = BETTER.replace('["random_u"]', str(["random_u", *others]).replace("'", '"'))
        records = compared(-2.0, -2.5, -1.5)
        for seed, difference in enumerate((0.3, -0.2, -0.1)):
            test = 80.0 + seed + (-2.0, -2.5, -1.5)[seed] + difference
            records += [record(pruner=p, seed=seed, quality__test=test) for p in others]
        alone = verdict(tmp_path / "one", BETTER, records)
        assert alone.verdict == "contradicted"
        judged = verdict(tmp_path / "all", claim, records)
        assert judged.verdict == "undecided"
        (row,) = [o for o in judged.outcomes if o.what == "SNIP against Random-U"]
        assert row.p == pytest.approx(0.0202, abs=1e-4)
        assert row.effect.endswith("p=0.02 (0.14 corrected)")

    def test_an_effect_too_small_to_matter_is_none(self, tmp_path: Path) -> None:
        """Half a percent of the way, however sure."""
        judged = verdict(tmp_path, BETTER, compared(-0.42, -0.425, -0.43))
        assert judged.verdict == "undecided"
        assert judged.outcomes[0].effect.endswith(": too small to contradict the claim")

    def test_the_smallest_effect_can_be_stated(self, tmp_path: Path) -> None:
        claim = "[smallest]\nimprovement = 0.1\n" + BETTER
        assert verdict(tmp_path, claim, compared(-0.42, -0.425, -0.43)).verdict == "contradicted"
        claim = BETTER + "smallest = 0.1\n"
        assert verdict(tmp_path, claim, compared(-0.42, -0.425, -0.43)).verdict == "contradicted"


class TestIntersectionUnion:
    CLAIM = BETTER.replace('["random_u"]', '["random_u", "grasp"]')

    def test_each_comparison_needs_to_pass(self, tmp_path: Path) -> None:
        records = compared(1.0, 1.1, 0.9)
        for seed, worse in enumerate((-5.0, 5.0, 0.1)):
            records.append(record(pruner="grasp", seed=seed, quality__test=81.0 + seed + worse))
        judged = verdict(tmp_path, self.CLAIM, records)
        assert (judged.verdict, judged.because) == (
            "undecided",
            "1 supported, 1 undecided of 2 comparisons",
        )

    def test_a_comparison_that_was_not_run_leaves_it_undecided(self, tmp_path: Path) -> None:
        judged = verdict(tmp_path, self.CLAIM, compared(1.0, 1.1, 0.9))
        assert (judged.verdict, judged.missing) == ("undecided", ["grasp"])
        assert judged.because == "1 supported, 1 not run of 2 comparisons"

    def test_methods_with_any_options_are_named_in_words(self, tmp_path: Path) -> None:
        claim = BETTER.replace('["random_u"]', '["random_u", "every:earlycrop_s_fixed"]')
        judged = verdict(tmp_path, claim, compared(1.0, 1.1, 0.9))
        assert judged.missing == ["every earlycrop_s_fixed"]

    def test_methods_of_different_tasks_cannot_be_compared(self, tmp_path: Path) -> None:
        away = [record("pole", "grasp", seed=seed) for seed in range(3)]
        judged = verdict(tmp_path, self.CLAIM, compared(1.0, 1.1, 0.9) + away)
        assert judged.verdict == "undecided"
        assert judged.outcomes[-1].effect == "no task has the runs that it needs"


class TestFailures:
    def test_a_run_that_failed_is_no_result_of_its_method(self, tmp_path: Path) -> None:
        full = "No space left on device"
        records = [r for r in compared(1.0, 1.1, 0.9) if r["spec"]["pruner"] != "random_u"]
        records += [
            record(pruner="random_u", seed=seed, status="failed", reason=full) for seed in range(3)
        ]
        judged = verdict(tmp_path, BETTER, records)
        assert judged.verdict == "undecided"
        assert judged.outcomes[0].effect == (
            "no runs of the same seed with a result; Random-U: 3 of 3 runs failed"
        )

    def test_other_seeds_are_compared_all_the_same(self, tmp_path: Path) -> None:
        records = compared(1.0, 1.1, 0.9)
        records += [record(pruner=p, seed=3) for p in ("dense", "random_u")]
        records.append(record(seed=3, status="failed", reason="it was killed"))
        judged = verdict(tmp_path, BETTER, records)
        assert judged.verdict == "supported"
        assert judged.outcomes[0].effect.endswith("SNIP: 1 of 4 runs failed")

    def test_a_run_that_diverged_is_the_worst_result(self, tmp_path: Path) -> None:
        records = [r for r in compared(1.0, 1.1, 0.9) if r["spec"]["pruner"] != "snip"]
        records += [record(seed=seed, status="diverged", reason="nan") for seed in range(3)]
        assert verdict(tmp_path, BETTER, records).verdict == "contradicted"

    def test_costs_of_a_run_that_diverged_are_not_compared(self, tmp_path: Path) -> None:
        records = [record(pruner="dense", seed=s) for s in range(3)]
        records += [record(pruner="crop_s", seed=s, status="diverged") for s in range(3)]
        judged = verdict(tmp_path, FASTER.replace("QUANTITY", "step_ms"), records)
        assert judged.verdict == "undecided"
        assert judged.outcomes[0].effect.startswith("diverged: ")


def test_improvement_is_in_percent_of_the_way_to_dense(tmp_path: Path) -> None:
    """From 10, of who ignores the input, to 95: one point is 1 / 85."""
    (outcome,) = verdict(tmp_path, BETTER, compared(0.85, 0.85, 0.85)).outcomes
    assert outcome.effect.startswith("+1.00 %")


def costs(**changes: Any) -> list[dict[str, Any]]:
    return [record(pruner=p, seed=s, **changes) for p in ("dense", "crop_s") for s in range(3)]


def test_costs_are_compared_as_ratios(tmp_path: Path) -> None:
    assert verdict(tmp_path, FASTER.replace("QUANTITY", "step_ms"), costs()).verdict == "supported"


def test_a_time_that_other_work_disturbed_decides_nothing(tmp_path: Path) -> None:
    claim = FASTER.replace("QUANTITY", "step_ms")
    judged = verdict(tmp_path, claim, costs(cost__disturbed={"step_ms": 0.3}))
    assert judged.verdict == "undecided"
    assert judged.outcomes[0].effect == "other programs on the machine disturbed the measurement"


def test_energy_that_is_only_estimated_decides_nothing(tmp_path: Path) -> None:
    claim = FASTER.replace("QUANTITY", "emissions_g")
    judged = verdict(tmp_path, claim, costs())
    assert judged.verdict == "undecided"
    assert judged.outcomes[0].effect == "energy is only estimated here"


def test_energy_that_was_not_measured_is_not_called_an_estimate(tmp_path: Path) -> None:
    claim = FASTER.replace("QUANTITY", "emissions_g")
    runs = costs(cost__emissions_g=None, cost__reasons={"emissions_g": "no counter"})
    assert verdict(tmp_path, claim, runs).outcomes[0].effect == "no counter"


def test_energy_that_was_measured_decides(tmp_path: Path) -> None:
    claim = FASTER.replace("QUANTITY", "emissions_g")
    assert (
        verdict(tmp_path, claim, costs(cost__energy_method="measured nvml")).verdict == "supported"
    )


def with_kernel(**readings: float) -> list[dict[str, Any]]:
    """Return runs whose trigger fires after three epochs, the last of which has these readings."""
    made = []
    for seed in range(3):
        each = record(pruner="earlycrop_u", seed=seed)
        for epoch in each["events"][0]["epochs"]:
            epoch["kernel"] = {"change": 0.5, "alignment": 1.0}
        each["events"][0]["epochs"][-1]["kernel"] |= {
            name: value * (1 + 0.01 * seed) for name, value in readings.items()
        }
        made.append(each)
    return made


def test_the_kernels_drift_when_the_trigger_fires(tmp_path: Path) -> None:
    judged = verdict(tmp_path, STABLE, with_kernel(drift=0.04, alignment=0.9))
    assert judged.verdict == "supported"
    assert judged.outcomes[0].effect.startswith("0.04040 [")
    assert judged.outcomes[0].effect.endswith("; kernel alignment at trigger 0.9090")


def test_a_record_without_the_drift_says_why_it_decides_nothing(tmp_path: Path) -> None:
    """Its distances to the first kernel stay the same while the kernel moves around it."""
    judged = verdict(tmp_path, STABLE, with_kernel())
    assert judged.verdict == "undecided"
    assert judged.outcomes[0].effect == "the record has distances to the first kernel only"


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
                    cost__epochs=epochs,
                    spec__overrides={"width": width},
                    run_id=f"dense-{width}-{seed}",
                )
                for width, macs, test, epochs in (
                    (8, 1100, 90.0, 10),
                    (16, 5000, 94.9, 10),
                    (9, 1000, 99.0, 15),
                )
            ),
            *(
                slim("pictures", seed, macs, test, spec__overrides=overrides)
                for overrides, macs, test in (({"macs": 0.001}, 900, 93.0), ({}, 100_000, 99.0))
            ),
        ]
    judged = verdict(tmp_path, claim, made)
    assert [(outcome.what, outcome.verdict) for outcome in judged.outcomes] == [
        ("CroP-S against Slim dense", "supported"),
        ("CroP-S against Dense", "supported"),
    ]
    slim_dense, dense = (outcome.where for outcome in judged.outcomes)
    assert slim_dense.endswith(", Slim dense (macs=0.001)")
    assert dense.endswith(", Dense with width=8")
    assert judged.missing == []


def test_networks_without_operations_have_equal_cost(tmp_path: Path) -> None:
    """As collapsed ones do that nothing is left of."""
    claim = BETTER.replace('against = ["random_u"]', 'against = ["slim_dense"]\nequal = "macs"')
    records = compared(1.0, 1.1, 0.9) + [slim("pictures", seed, 0, 70.0) for seed in range(3)]
    for each in records:
        each["cost"]["macs"] = 0
    assert verdict(tmp_path, claim, records).verdict == "supported"


def test_the_talks_claims_are_ten_and_understood(eventful: Path) -> None:
    verdicts = judge(sections(read(eventful)))
    assert len(verdicts) == 10
    assert {o.test for each in verdicts for o in each.outcomes} <= {
        test for each in verdicts for test in each.tests
    }
    assert {each.verdict for each in verdicts} <= {"supported", "contradicted", "undecided"}
    energy = [o for each in verdicts for o in each.outcomes if "energy" in o.effect]
    assert energy
    assert {outcome.verdict for outcome in energy} <= {"undecided", ""}
    assert {o.verdict for each in verdicts for o in each.outcomes if not o.decides} == {""}


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("improvement", "improvment", "unknown effect 'improvment'"),
        ('is = "above"', 'is = "over"', "'is' must be above or below, not 'over'"),
        ("[[claim]]", "[[claim\n", "claims claims.toml:"),
    ],
)
def test_a_claim_that_cannot_be_understood_is_refused(
    tmp_path: Path, before: str, after: str, complaint: str
) -> None:
    with pytest.raises(RequestError, match=complaint.replace("[", r"\[")):
        verdict(tmp_path, BETTER.replace(before, after), compared(1.0))


def test_the_claims_lie_where_they_are_looked_for() -> None:
    assert CLAIMS.is_file()
