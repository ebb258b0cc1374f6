"""Successive halving on made-up scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from harness.advice.halving import Round, successive_halving

SCORES = {"poor": 1.0, "fair": 2.0, "good": 3.0, "best": 4.0}


def halve(
    methods: Sequence[str], seeds: Sequence[int], scores: Mapping[str, float] = SCORES
) -> list[Round]:
    """Return the rounds of methods whose scores are the same with all seeds."""
    return successive_halving(
        methods, seeds, lambda alive, _: {each: scores[each] for each in alive if each in scores}
    )


def test_the_better_half_goes_on_with_twice_the_seeds() -> None:
    first, last = halve([*SCORES], [0, 1, 2, 3])
    assert (first.methods, first.seeds) == (("poor", "fair", "good", "best"), (0, 1))
    assert (last.methods, last.seeds) == (("best", "good"), (0, 1, 2, 3))
    assert [*last.scores] == ["best", "good"]


def test_the_number_of_methods_is_halved_until_two_are_left() -> None:
    scores = {f"m{number}": float(number) for number in range(9)}
    rounds = halve([*scores], range(20), scores)
    assert [len(each.methods) for each in rounds] == [9, 5, 3, 2]
    assert [len(each.seeds) for each in rounds] == [2, 4, 8, 20]
    assert [*rounds[-1].scores] == ["m8", "m7"]


def test_two_methods_have_one_round_with_all_seeds() -> None:
    (only,) = halve(["fair", "good"], [5, 7, 9])
    assert (only.methods, only.seeds) == (("fair", "good"), (5, 7, 9))


def test_more_seeds_add_to_the_last_round_only() -> None:
    """So that runs which are done are the same, and are not repeated."""
    few, many = halve([*SCORES], range(4)), halve([*SCORES], range(30))
    assert few[:-1] == many[:-1]
    assert few[-1].methods == many[-1].methods


def test_of_equal_methods_the_first_is_ahead() -> None:
    same = dict.fromkeys("abcd", 1.0)
    assert halve("dbca", [0, 1, 2], same)[-1].methods == ("d", "b")


@pytest.mark.parametrize("known", [["good"], ["good", "best"]])
def test_a_method_without_a_score_is_out(known: list[str]) -> None:
    first, last = halve([*SCORES], [0, 1, 2], {each: SCORES[each] for each in known})
    assert len(first.methods) == 4
    assert [*last.scores] == known[::-1]


def test_without_any_score_there_is_no_further_round() -> None:
    (only,) = halve([*SCORES], [0, 1, 2], {})
    assert only.scores == {}


def test_a_score_that_falls_with_more_seeds_changes_the_winner() -> None:
    def evaluate(alive: Sequence[str], seeds: Sequence[int]) -> dict[str, float]:
        return {each: SCORES[each] if len(seeds) == 2 else -SCORES[each] for each in alive}

    *_, last = successive_halving([*SCORES], [0, 1, 2, 3], evaluate)
    assert [*last.scores] == ["good", "best"]


def test_a_round_for_which_there_is_no_time_is_left_out() -> None:
    asked: list[tuple[list[str], list[int]]] = []

    def has_time_for(methods: Sequence[str], seeds: Sequence[int]) -> bool:
        asked.append((list(methods), list(seeds)))
        return False

    rounds = successive_halving([*SCORES], [0, 1, 2], lambda alive, _: SCORES, has_time_for)
    assert [len(each.methods) for each in rounds] == [4]
    assert asked == [(["best", "good"], [0, 1, 2])]
