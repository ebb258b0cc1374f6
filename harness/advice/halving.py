"""Successive halving: all methods with few seeds, then the better half with more seeds.

Jamieson and Talwalkar 2016, arXiv:1502.07943, train every candidate for a while and continue with
the better half. Here a round gives the survivors more seeds instead of more epochs. The moment at
which a method prunes depends on its budget of epochs, so a short run is not the beginning of a long
one: it is another method on an easier task. And with seeds, every run of every round is a complete
run with the network that was asked for, and counts in the final intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

FIRST_SEEDS = 2
"""Seeds of the first round; every further round has twice as many."""

FINALISTS = 2
"""Methods in the last round, which has all seeds."""


@dataclass(frozen=True)
class Round:
    """A round that has been carried out.

    Attributes:
        methods: the methods that took part, the best of the previous round first.
        seeds: the seeds with which each has been run.
        scores: the scores of the methods that have results, the best first.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    scores: Mapping[str, float]


def successive_halving(
    methods: Sequence[str],
    seeds: Sequence[int],
    evaluate: Callable[[Sequence[str], Sequence[int]], Mapping[str, float]],
    has_time_for: Callable[[Sequence[str], Sequence[int]], bool] = lambda methods, seeds: True,
) -> list[Round]:
    """Return the rounds that lead from many methods to two.

    Args:
        methods: at least one; of two with the same score the first is ahead.
        seeds: the seeds of the last round. Earlier rounds take the first 2, 4, 8 ... of them.
        evaluate: runs methods with seeds, and returns the score of each that has a result; larger
            is better. A method without a score drops out.
        has_time_for: whether there is time for such a round; not asked for the first one.
    """
    rounds: list[Round] = []
    alive = list(methods)
    while True:
        is_last = len(alive) <= FINALISTS
        most = len(seeds) if is_last else min(FIRST_SEEDS * 2 ** len(rounds), len(seeds))
        if rounds and not has_time_for(alive, seeds[:most]):
            return rounds
        scores = evaluate(alive, seeds[:most])
        ranked = sorted((each for each in alive if each in scores), key=lambda each: -scores[each])
        ordered = {each: scores[each] for each in ranked}
        rounds.append(Round(tuple(alive), tuple(seeds[:most]), ordered))
        if is_last or not ranked:
            return rounds
        alive = ranked[: max(FINALISTS, math.ceil(len(ranked) / 2))]
