"""The runs of an advice: each round is a matrix, so what is done is not repeated."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import TextIO

from harness.advice.findings import score, train_seconds
from harness.advice.request import DENSE, AdviceRequest
from harness.errors import Interrupted, RequestError, RunFailed
from harness.matrix.dispatch import Tally
from harness.matrix.plan import Matrix
from harness.matrix.state import by_reason
from harness.record import TESTED, Record
from harness.results.measured import with_measurement
from harness.storage.store import Store
from harness.text import first_of, several


class Trials:
    """Carries out rounds, and keeps what came of their runs.

    Args:
        request: what is wanted.
        progress: a stream for lines of progress; None for none.

    Attributes:
        runs: the records of tested networks, with their newest measurements, by method and seed.
        reasons: why methods are out, by name.
    """

    def __init__(self, request: AdviceRequest, progress: TextIO | None) -> None:
        self.runs: dict[str, dict[int, Record]] = defaultdict(dict)
        self.reasons: dict[str, str] = {}
        self._request = request
        self._progress = progress
        self._impossible: set[str] = set()
        """Methods that are out because they do not apply, not because they failed."""

    def evaluate(self, methods: Sequence[str], seeds: Sequence[int]) -> dict[str, float]:
        """Run methods and dense networks, and return the mean validation score of each method.

        The methods come first: if none of them can do what is wanted, no dense network is trained.

        Raises:
            RequestError: none of the methods can do what is wanted.
            RunFailed: none of them has a result, or a dense run has none.
            Interrupted: the process was asked to stop.
        """
        self._carry_out(methods, seeds)
        if all(each in self.reasons for each in methods):
            raise self._nothing_left(methods)
        self._carry_out([DENSE], seeds)
        if DENSE in self.reasons:
            raise RunFailed(f"there is nothing to compare with: dense {self.reasons[DENSE]}")
        return {
            each: statistics.fmean(score(self.runs[each][seed]) for seed in seeds)
            for each in methods
            if each not in self.reasons
        }

    def expected_seconds(self, methods: Sequence[str], seeds: Sequence[int]) -> float:
        """Return how long a round would train, by what the runs of its methods have taken."""
        seconds = sum(
            train_seconds(self.runs[each]) or 0.0
            for each in (*methods, DENSE)
            for seed in seeds
            if seed not in self.runs[each]
        )
        return seconds / (self._request.jobs or 1)

    def _carry_out(self, pruners: Sequence[str], seeds: Sequence[int]) -> None:
        """Carry out the runs that are not done, and keep the records of all."""
        request = self._request.matrix(pruners, seeds)
        matrix = request.plan()
        if self._progress is not None:
            line = f"{first_of(pruners, 8)} with {several(len(seeds), 'seed')} each"
            print(line, file=self._progress, flush=True)
        tally = request.run(matrix, self._progress)
        if tally.waiting or tally.measuring_interrupted:
            raise Interrupted
        for left_out in matrix.left_out.values():
            is_impossible = left_out["status"] == "skipped"
            self._drop(left_out["spec"]["pruner"], str(left_out["reason"]), is_impossible)
        self._keep(matrix, tally, request.store)

    def _keep(self, matrix: Matrix, tally: Tally, store: Store) -> None:
        for run_id, plan in matrix.plans.items():
            pruner, seed, outcome = plan.spec.pruner, plan.spec.seed, tally.outcomes[run_id]
            record = store.record(run_id) if outcome.status in TESTED else None
            if outcome.status == "skipped":
                self._drop(pruner, str(outcome.reason), True)
            elif record is None:
                self._drop(pruner, f"{outcome.status} with seed {seed}: {outcome.reason}", False)
            elif record["quality"]["validation"] is None:
                self._drop(pruner, f"has no finite validation with seed {seed}", False)
            else:
                self.runs[pruner][seed] = with_measurement(record, store.folder / run_id)

    def _drop(self, pruner: str, why: str, is_impossible: bool) -> None:
        self.reasons.setdefault(pruner, why)
        if is_impossible:
            self._impossible.add(pruner)

    def _nothing_left(self, methods: Sequence[str]) -> RequestError | RunFailed:
        """Return the error that says why no method has a result."""
        why = by_reason({each: self.reasons[each] for each in methods})
        reasons = "; ".join(f"{first_of(names)}: {reason}" for reason, names in why.items())
        if self._impossible.issuperset(methods):
            return RequestError(f"{self._request.target}: no method can do it: {reasons}")
        return RunFailed(f"no method has a result: {reasons}")
