"""The first pruning of a method is known before it trains, if it does not depend on training."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.engine.rehearsal import first_pruning
from harness.errors import RequestError
from harness.operations import Prune
from harness.run import Run
from harness.spec import Spec
from harness.units import Units
from pruners.channels.units import Channels
from pruners.criteria import magnitude
from pruners.methods.after_training import gate_decorators, ltr
from pruners.methods.dense import dense, slim_dense
from pruners.methods.early_in_training import earlycrop_s
from pruners.triggers import AtEpoch
from pruners.weights import Weights

SPEC = Spec("points", "tried", 0.5)


def rehearsed(method: Callable[[Run], object], spec: Spec = SPEC) -> Prune | None:
    def name_of(units: type[Units]) -> str:
        return units.__name__.lower()

    return first_pruning(method, spec, 4, 5, 0.5, name_of)


@pytest.mark.parametrize(
    ("method", "units"),
    [(earlycrop_s, Channels), (gate_decorators, Channels), (slim_dense, Channels), (ltr, Weights)],
)
def test_methods_are_known_by_the_units_that_they_prune(
    method: Callable[[Run], object], units: type[Units]
) -> None:
    pruning = rehearsed(method)
    assert pruning is not None
    assert pruning.units is units


def test_a_method_that_never_prunes_has_none() -> None:
    assert rehearsed(dense) is None


def test_time_passes_as_in_a_run() -> None:
    def at_the_end(run: Run) -> None:
        start = run.snapshot()
        while run.position < run.budget * run.steps_per_epoch:
            run.train(steps=3)
        assert run.spent == 20
        run.rewind(start)
        assert run.position == 0
        run.prune(Weights, magnitude, 0.5)

    assert rehearsed(at_the_end) is not None


def test_a_method_that_waits_for_its_trigger_is_not_known() -> None:
    def waiting(run: Run) -> None:
        while not run.train(until=AtEpoch(1)).fired:
            pass
        run.prune(Weights, magnitude, 0.5)

    assert rehearsed(waiting) is None


def test_a_method_that_refuses_its_options_does_so_at_once() -> None:
    def refusing(run: Run) -> None:
        raise RequestError("moment=1: leaves no epoch")

    with pytest.raises(RequestError, match="moment=1"):
        rehearsed(refusing)
