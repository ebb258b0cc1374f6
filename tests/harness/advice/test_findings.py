"""What made-up runs say: intervals by hand, honest sentences, and what it takes to be surer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from harness.advice.findings import Advice, find_advice
from harness.advice.halving import Round
from harness.advice.request import AdviceRequest
from harness.advice.summary import summarise_advice
from harness.errors import RequestError
from tests.helpers.records import record

DENSE = [90.0, 91.0, 92.0, 93.0]


def runs(
    tests: Mapping[str, Sequence[float]], goal: str = "max", seconds: float = 10.0
) -> dict[str, dict[int, Any]]:
    """Return records by method and seed; the metric on the validation data is that on the test."""
    return {
        pruner: {
            seed: record(
                run_id=f"digits-{pruner}-seed{seed}",
                spec__task="digits",
                spec__pruner=pruner,
                spec__seed=seed,
                quality__metric="accuracy",
                quality__goal=goal,
                quality__test=test,
                quality__validation=test,
                cost__train_seconds=seconds,
            )
            for seed, test in enumerate(values)
        }
        for pruner, values in tests.items()
    }


def advice(
    first: Sequence[float],
    second: Sequence[float],
    *,
    goal: str = "max",
    reasons: Mapping[str, str] | None = None,
    **asked: Any,
) -> Advice:
    """Return the advice on ``snap`` and ``crop_s``, of which the former has the better score."""
    seeds = tuple(range(len(first)))
    scores = {"snap": 2.0, "crop_s": 1.0}
    if not second:
        del scores["crop_s"]
    found = {"dense": DENSE[: len(first)], "snap": first, "crop_s": second}
    request = AdviceRequest("digits", ["snap", "crop_s"], seeds, budget="macs=0.5", **asked)
    return find_advice(
        request, [Round(("snap", "crop_s"), seeds, scores)], runs(found, goal), reasons or {}
    )


def test_a_difference_is_paired_by_seed() -> None:
    """The seeds differ by whole points, the methods by one point in every seed."""
    found = advice([91.0, 92.0, 93.0, 94.0], [90.0, 91.0, 92.0, 93.1])
    assert found.finalists is not None
    assert found.finalists.finding == "better"
    assert found.finalists.interval.mean == pytest.approx(0.975)
    # 3.1824 is the 97.5 % quantile of t with three degrees of freedom; the deviation is 0.05.
    assert found.finalists.interval.low == pytest.approx(0.975 - 3.182446 * 0.05 / 2)
    assert found.surer is None
    assert "snap is better than crop_s: accuracy +0.975, 95 % interval" in found.verdict


def test_where_there_is_no_difference_it_says_so_and_what_it_takes() -> None:
    """Differences of 0, 1 and 2 have the mean 1 and the deviation 1."""
    found = advice([90.0, 92.0, 94.0], [90.0, 91.0, 92.0])
    assert "no difference was found between snap and crop_s with 3 seeds" in found.verdict
    assert found.finalists is not None
    # t with 6 degrees of freedom is 2.447 < sqrt(7); with 5 it is 2.571 > sqrt(6).
    assert found.finalists.seeds_needed == 7
    assert found.surer is not None
    assert found.surer.seeds == 4
    assert found.surer.seconds == 4 * 3 * 10.0  # of both methods and of dense networks
    assert "--seeds 0-6" in found.surer.command
    assert "about 4 more seeds, 2 min of training" in found.verdict


def test_a_difference_that_no_number_of_seeds_would_show() -> None:
    found = advice([90.0, 91.0, 92.0], [91.0, 90.0, 92.0])
    assert found.surer is None
    assert "Even 1,000 seeds would hardly tell snap from crop_s" in found.verdict


@pytest.mark.parametrize("number", [1, 2])
def test_one_or_two_seeds_decide_nothing(number: int) -> None:
    found = advice([99.0] * number, [10.0] * number)
    assert f"{number} seed{'s' * (number > 1)} cannot tell snap from crop_s" in found.verdict
    assert found.surer is not None
    assert found.surer.seeds == 3 - number
    assert f"at least {3 - number} more seed" in found.verdict


def test_a_smaller_metric_may_be_the_better_one() -> None:
    found = advice([80.0, 81.0, 82.1], [90.0, 91.0, 92.0], goal="min")
    assert found.finalists is not None
    assert found.finalists.finding == "better"
    assert found.candidates[0].to_dense is not None
    assert found.candidates[0].to_dense.finding == "better"


def test_validation_chooses_and_test_data_may_contradict() -> None:
    found = advice([80.0, 81.0, 82.1], [90.0, 91.0, 92.0])
    assert found.take == "snap"
    assert "snap is worse than crop_s: accuracy -9.967" in found.verdict


@pytest.mark.parametrize(
    ("losses", "goal", "within", "said"),
    [
        ([0.1, 0.2, 0.3], "max", True, "The whole interval loses at most 1, as asked."),
        ([5.0, 5.1, 5.2], "max", False, "The whole interval loses more than 1."),
        ([0.0, 1.0, 2.0], "max", None, "Whether it loses at most 1 is open."),
        ([-5.0, -5.1, -5.2], "max", True, "at most 1"),
        ([-5.0, -5.1, -5.2], "min", False, "more than 1"),
        ([0.1], "max", None, "is open"),
    ],
)
def test_a_loss_is_tolerated_if_its_whole_interval_is(
    losses: list[float], goal: str, within: bool | None, said: str
) -> None:
    tests = [dense - loss for dense, loss in zip(DENSE, losses, strict=False)]
    found = advice(tests, tests, goal=goal, tolerance=1.0)
    assert found.within_tolerance is within
    assert said in found.verdict


def test_the_network_is_that_of_the_best_seed() -> None:
    found = advice([90.0, 95.0, 93.0], [80.0, 81.0, 82.0], settings={"epochs": "4"})
    assert found.run == "digits-snap-seed1"
    assert found.command == (
        "python -m harness run --task digits --budget macs=0.5 --pruner snap --seed 1 "
        "--set epochs=4"
    )


def test_a_method_without_a_result_is_listed_with_its_reason() -> None:
    found = advice([90.0, 91.0, 92.0], [], reasons={"crop_s": "diverged with seed 2: the loss"})
    assert "No other method has a result" in found.verdict
    assert [each.pruner for each in found.candidates] == ["snap", "crop_s"]
    assert "crop_s is out: diverged with seed 2: the loss" in summarise_advice(found)


def test_the_table_has_all_methods_and_fits_a_terminal() -> None:
    lines = summarise_advice(advice([90.0, 92.0, 94.0], [90.0, 91.0, 92.0])).splitlines()
    assert lines[0] == "digits, macs=0.5: 2 methods in 1 round, 9 runs"
    assert lines[1].split()[:4] == ["method", "seeds", "validation", "accuracy"]
    assert lines[2].split()[:6] == ["snap", "3", "92", "92", "+1", "(-1.484"]
    assert lines[4].split()[:4] == ["dense", "3", "91", "91"]
    commands = [line for line in lines if line.startswith("  python -m harness ")]
    assert len(commands) == 2
    assert max(len(line) for line in lines if line not in commands) <= 100


def test_the_time_may_end_before_the_last_round() -> None:
    request = AdviceRequest("digits", ["snap", "crop_s"], range(9), budget="macs=0.5")
    found = runs({"dense": [1.0, 2.0], "snap": [1.0, 2.0], "crop_s": [1.0, 2.0]})
    rounds = [Round(("snap", "crop_s"), (0, 1), {"snap": 2.0, "crop_s": 1.0})]
    assert (
        "The time ended before the last round." in find_advice(request, rounds, found, {}).verdict
    )


class TestRequest:
    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"task": "digit"}, "unknown task 'digit'; did you mean 'digits'?"),
            ({"pruners": ["snap", "crops"]}, "unknown pruner 'crops'; did you mean 'crop_s'?"),
            ({"pruners": ["snap"]}, "advise compares methods, and snap is only one"),
            ({"pruners": ["dense", "snap", "snap"]}, "snap is only one"),
            ({"budget": "latency=5"}, "has no unit"),
            ({"budget": None}, "either a budget, as in --budget latency=0.5, or a --sparsity"),
            ({"sparsity": 0.5}, "either a budget, as in --budget latency=0.5, or a --sparsity"),
            ({"budget": None, "sparsity": 1.5}, "sparsity 1.5 is outside [0, 1)"),
            ({"seeds": []}, "one or more different seeds"),
            ({"seeds": [1, 1]}, "one or more different seeds"),
            ({"seeds": [-1]}, "seed -1 is negative"),
            ({"minutes": 0}, "minutes: 0 is not greater than 0"),
            ({"tolerance": -1.0}, "tolerance -1 must be a number of at least 0"),
            ({"profile": "smokey"}, "unknown profile 'smokey'"),
        ],
    )
    def test_a_mistake_is_refused_in_one_line(
        self, changes: dict[str, Any], complaint: str
    ) -> None:
        asked = {"task": "digits", "pruners": None, "seeds": [0, 1, 2], "budget": "macs=0.5"}
        with pytest.raises(RequestError) as refused:
            AdviceRequest(**{**asked, **changes})
        assert complaint in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_a_budget_is_for_channels_and_a_sparsity_for_weights(self) -> None:
        def groups(**asked: Any) -> set[str]:
            request = AdviceRequest("digits", None, [0], **asked)
            entries = (request.registry.find("pruner", name) for name in request.methods)
            return {entry.arguments.get("group", "unstructured") for entry in entries}

        assert groups(budget="latency=0.5") == {"structured", "control"}
        assert groups(sparsity=0.9) == {"unstructured"}

    def test_a_method_gets_the_settings_that_it_has(self) -> None:
        settings = {"epochs": "3", "rounds": "5", "floor": "0.1"}
        request = AdviceRequest(
            "digits", ["taylor_s", "snap"], [0], budget="macs=0.5", settings=settings
        )
        assert request.settings_of("taylor_s") == settings
        assert request.settings_of("snap") == {"epochs": "3", "floor": "0.1"}
        assert request.settings_of("dense") == {"epochs": "3", "floor": "0.1"}

    def test_its_command_asks_the_same(self) -> None:
        request = AdviceRequest(
            "digits",
            ["taylor_s", "snap"],
            [0, 1, 2],
            sparsity=0.5,
            tolerance=0.0,
            profile="smoke",
            settings={"epochs": "3"},
            jobs=2,
        )
        assert request.command() == (
            "python -m harness advise --task digits --sparsity 0.5 --pruners taylor_s,snap "
            "--seeds 0-2 --tolerance 0.0 --profile smoke --jobs 2 --set epochs=3"
        )
        assert "--seeds 0-5 " in request.command(6)
        assert "--seeds 0-2 " in request.command(2)
