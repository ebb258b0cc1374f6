"""Verdicts in matrices whose truth is known."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from benchmarks.verdicts import (
    NOISES,
    OTHERS,
    Shape,
    collapses,
    coverage,
    left_out,
    misranked,
    normal,
    rates,
)
from harness.results.intervals import Estimate, stratified
from reports.claims import judge
from reports.groups import sections
from reports.ranking import leaders
from reports.results import read
from reports.verdicts import Threshold, judgements, together
from tests.helpers.fabricated import record, save

ALLOWED = 0.05


def within(rate: float, matrices: int) -> bool:
    """Return whether a true rate that is allowed can have shown itself as this one."""
    return rate <= ALLOWED + 3 * math.sqrt(ALLOWED * (1 - ALLOWED) / matrices)


@pytest.mark.parametrize("others", [1, OTHERS])
@pytest.mark.parametrize("shape", [(8, 1, 3), (8, 3, 5), (1, 1, 3), (1, 1, 5)])
def test_equal_methods_are_seldom_called_either_way(shape: Shape, others: int) -> None:
    called = 1 - rates(shape, normal, others, 300)["undecided"]
    assert within(called, 300)


def test_collapses_do_not_make_verdicts() -> None:
    assert within(1 - rates((8, 1, 3), collapses, OTHERS, 200)["undecided"], 200)


def test_a_true_advantage_of_one_deviation_is_mostly_supported() -> None:
    assert rates((8, 1, 5), normal, OTHERS, 100, advantage=1.0)["supported"] > 0.8


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 1, 3), (8, 1, 3), (8, 1, 5)])
def test_intervals_hold_the_true_score(shape: Shape) -> None:
    assert within(1 - coverage(shape, normal, 1000), 1000)


def test_rankings_and_tables_seldom_tell_equal_methods_apart() -> None:
    assert within(misranked((1, 1, 3), normal, 200), 200)
    assert within(left_out((1, 1, 3), normal, 500), 500)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["normal", "unequal", "heavy", "collapses"])
@pytest.mark.parametrize(
    "shape", [(8, 1, 3), (8, 3, 3), (8, 3, 5), (2, 3, 3), (1, 1, 3), (1, 1, 5)]
)
def test_equal_methods_are_seldom_called_whatever_the_noise(shape: Shape, noise: str) -> None:
    for others in (1, OTHERS):
        assert within(1 - rates(shape, NOISES[noise], others, 1000)["undecided"], 1000)


@pytest.mark.slow
def test_equal_methods_are_seldom_called_by_a_report(tmp_path: Path) -> None:
    """From records to verdicts: eight tasks, three seeds, twenty matrices."""
    chance = random.Random(0)
    called = []
    claim = tmp_path / "claims.toml"
    claim.write_text(
        '[[claim]]\nstatement = "CroP beats SNIP and GraSP."\n'
        '[[claim.test]]\neffect = "improvement"\nof = ["crop_u"]\nagainst = ["snip", "grasp"]\n'
        'is = "above"\nthreshold = 0\n'
    )
    for number in range(20):
        records = [
            record(f"task{task}", pruner, seed=seed, quality__test=80 + chance.gauss(0, 3))
            for task in range(8)
            for pruner in ("dense", "crop_u", "snip", "grasp")
            for seed in range(3)
        ]
        (verdict,) = judge(sections(read(save(tmp_path / str(number), records))), claim)
        called += [verdict.verdict] if verdict.verdict != "undecided" else []
    assert len(called) <= 3


class TestJudgements:
    ABOVE = Threshold(0.0, above=True, smallest=1.0)

    def test_support_takes_no_correction_and_contradiction_does(self) -> None:
        """Both are two of their errors away from the threshold, with many degrees of freedom."""
        right, wrong = Estimate(2.2, 1.0, 1e6, 5), Estimate(-2.2, 1.0, 1e6, 5)
        others = [(Estimate(0.1, 1.0, 1e6, 5), self.ABOVE)] * 3
        for estimate, alone, among in (
            (right, "supported", "supported"),
            (wrong, "contradicted", "undecided"),
        ):
            assert judgements([(estimate, self.ABOVE)])[0].verdict == alone
            assert judgements([(estimate, self.ABOVE), *others])[0].verdict == among

    def test_too_few_seeds_decide_nothing(self) -> None:
        (judged,) = judgements([(None, self.ABOVE)])
        assert (judged.verdict, judged.p) == ("undecided", None)

    @pytest.mark.parametrize(
        ("found", "complete", "verdict"),
        [
            (["supported", "supported"], True, "supported"),
            (["supported", "supported"], False, "undecided"),
            (["supported", "undecided"], True, "undecided"),
            (["supported", "contradicted"], False, "contradicted"),
            ([], True, "undecided"),
        ],
    )
    def test_a_claim_needs_all_of_its_comparisons(
        self, found: list[str], complete: bool, verdict: str
    ) -> None:
        assert together(found, complete=complete) == verdict


class TestLeaders:
    def test_the_smallest_can_be_the_best(self) -> None:
        samples = [dict(enumerate(v)) for v in ((1.0, 1.1, 0.9), (9.0, 9.1, 8.9), (1.0, 1.2, 0.9))]
        assert leaders(samples, smaller=True) == [0, 2]

    def test_all_alike_have_no_best(self) -> None:
        assert leaders([{0: 1.0, 1: 2.0, 2: 3.0}] * 3) == []

    def test_samples_of_one_kind_are_the_same(self) -> None:
        samples = [{0: 1.0, 1: 1.0, 2: 1.0}, {0: 2.0, 1: 2.0, 2: 2.0}]
        assert leaders(samples, ["a", "a"]) == []
        assert leaders(samples, ["a", "b"]) == [1]
        assert leaders(samples, [None, None]) == [1]

    def test_one_alone_is_not_the_best(self) -> None:
        assert leaders([{0: 1.0, 1: 1.0, 2: 1.0}]) == []


def test_a_score_out_of_reach_of_the_bootstrap_is_held() -> None:
    """Three seeds 1, 2, 3: a percentile bootstrap never reaches beyond them, t does."""
    interval = stratified([[{0: 1.0, 1: 2.0, 2: 3.0}]]).interval
    assert interval.low is not None
    assert interval.low < 0
