from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.errors import RequestError
from harness.storage.journal import fingerprint
from harness.trigger import Reading, Trigger
from pruners.criteria import random
from pruners.triggers import MaskDistance, at_epoch, lazy_regime, mask_distance
from pruners.weights import Weights


def watch(trigger: Trigger, trajectory: list[list[float]]) -> list[Reading]:
    """Show a trigger the weights at the start and after each epoch, in two layers."""
    start, *epochs = [
        {"a": torch.tensor(weights[:1]), "b": torch.tensor(weights[1:])} for weights in trajectory
    ]
    trigger.begin(start)
    return [trigger.after_epoch(weights) for weights in epochs]


def values(readings: list[Reading]) -> list[float | None]:
    return [reading.value for reading in readings]


# From (3, 4), of squared norm 25: squared distances 4, 5, 5.25, 5.25 and back to 4.
TRAJECTORY = [[3.0, 4.0], [5.0, 4.0], [5.0, 5.0], [5.0, 4 + 1.25**0.5], [1.0, 4 - 1.25**0.5]]


def test_the_lazy_regime_compares_each_epoch_with_the_first() -> None:
    readings = watch(lazy_regime(threshold=0.1), [*TRAJECTORY, [5.0, 4.0]])
    assert values(readings) == pytest.approx([1, 0.25, 0.0625, 0, 0.3125], abs=1e-6)
    assert [reading.fired for reading in readings] == [False, False, True, True, False]


def test_distances_in_place_of_squared_ones() -> None:
    # The distances are 2, 2.236, 2.291, 2.291; their changes relative to the first fall faster.
    readings = watch(lazy_regime(threshold=0.1, norm_power=1), TRAJECTORY)
    assert values(readings) == pytest.approx([1, 0.1180, 0.0276, 0], abs=1e-4)


def test_the_official_reading_starts_at_the_end_of_the_first_epoch() -> None:
    # From (5, 4): distances 0, 1, 1.118 (= sqrt 1.25), 4.153; normalised by the second epoch's 1.
    official = lazy_regime(threshold=0.2, norm_power=1, reference="first_epoch")
    readings = watch(official, TRAJECTORY)
    expected = [1.25**0.5 - 1, (16 + 1.25) ** 0.5 - 1.25**0.5]
    assert readings[0].value is None
    assert values(readings[1:]) == pytest.approx([1, *expected])
    assert [reading.fired for reading in readings] == [False, False, True, False]


def test_an_unknown_reference_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^reference=end: unknown value; known: start, first_"):
        lazy_regime(threshold=0.1, reference="end")


def test_a_norm_of_another_power_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^norm_power=3: unknown value; known: 1, 2$"):
        lazy_regime(threshold=0.1, norm_power=3)


def test_a_higher_sparsity_waits_longer() -> None:
    def fires_at(sparsity: float) -> int:
        readings = watch(lazy_regime(threshold=1 - sparsity), TRAJECTORY)
        return next(epoch for epoch, reading in enumerate(readings, 1) if reading.fired)

    assert [fires_at(sparsity) for sparsity in (0.5, 0.9, 0.98)] == [2, 3, 4]


def test_the_first_epoch_never_fires() -> None:
    assert not watch(lazy_regime(threshold=2.0), TRAJECTORY)[0].fired


def test_weights_that_keep_moving_never_fire() -> None:
    # The squared distance grows as 1, 4, 9, 16: by 1, 3, 5, 7 times the first.
    readings = watch(lazy_regime(threshold=0.5), [[1.0, float(epoch)] for epoch in range(5)])
    assert values(readings) == [1, 3, 5, 7]
    assert not any(reading.fired for reading in readings)


@pytest.mark.parametrize(
    "trajectory",
    [
        pytest.param([[1.0, 1.0]] * 3 + [[2.0, 1.0]], id="no movement in the first epoch"),
        pytest.param([[1.0, 1.0], [float("nan"), 1.0], [1.0, 1.0]], id="not a number"),
        pytest.param([[1.0, 1.0], [float("inf"), 1.0], [1.0, 1.0]], id="infinite"),
        pytest.param([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]], id="a start at zero"),
    ],
)
def test_a_trigger_without_a_value_never_fires(trajectory: list[list[float]]) -> None:
    readings = watch(lazy_regime(threshold=0.5), trajectory)
    assert readings == [Reading(value=None, fired=False, threshold=0.5)] * len(readings)


def test_the_reference_is_a_copy_of_the_weights_at_the_start() -> None:
    weights = {"a": torch.tensor([1.0])}
    trigger = lazy_regime(threshold=0.5)
    trigger.begin(weights)
    weights["a"] += 1
    assert trigger.after_epoch(weights).value == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: lazy_regime(threshold=0.3),
        lambda: lazy_regime(threshold=0.3, reference="first_epoch"),
        lambda: at_epoch(4),
    ],
)
def test_a_restored_trigger_continues_as_if_nothing_had_happened(make: type[Trigger]) -> None:
    first, second = make(), make()
    expected = watch(first, TRAJECTORY)
    watch(second, TRAJECTORY[:3])
    resumed = make()
    resumed.restore(second.state())
    rest = [{"a": torch.tensor(w[:1]), "b": torch.tensor(w[1:])} for w in TRAJECTORY[3:]]
    assert [resumed.after_epoch(weights) for weights in rest] == expected[2:]


def test_distances_are_accumulated_in_double_precision() -> None:
    # In single precision 1 + 1e-8 is 1, and the second epoch would not seem to move anything.
    start = {"large": torch.zeros(1), "small": torch.zeros(1), "still": torch.ones(1)}
    trigger = lazy_regime(threshold=1e-9)
    trigger.begin(start)
    trigger.after_epoch(start | {"large": torch.ones(1)})
    reading = trigger.after_epoch(start | {"large": torch.ones(1), "small": torch.full((1,), 1e-4)})
    assert reading.value == pytest.approx(1e-8, rel=1e-6)
    assert not reading.fired


def test_an_epoch_fires_when_it_ends() -> None:
    readings = watch(at_epoch(3), TRAJECTORY)
    assert [(r.value, r.fired) for r in readings] == [(1, False), (2, False), (3, True), (4, True)]


def masks_of(*rows: list[int]) -> list[dict[str, torch.Tensor]]:
    """Masks of ten channels in two groups."""
    flat = [torch.ones(10, dtype=torch.bool).index_fill(0, torch.tensor(r), 0) for r in rows]
    return [{"a": mask[:4], "b": mask[4:]} for mask in flat]


def settling(**options: Any) -> MaskDistance:
    return mask_distance(Weights, random, 0.5, **options)


def test_masks_have_settled_when_the_newest_is_near_all_the_last_ones() -> None:
    # The first epoch removes 0 and 1, the second 0 and 2: each change is 2 of 10 entries.
    masks = masks_of([0, 1], [0, 2], [0, 2], [0, 2], [0, 2], [0, 3], [0, 3])
    trigger = settling(threshold=0.15, epochs=3)
    trigger.begin(masks[0])
    readings = [trigger.after_epoch(mask) for mask in masks]
    assert values(readings) == [None, None, 0.2, 0, 0, 0.2, 0.2]
    assert [r.fired for r in readings] == [False, False, False, True, True, False, False]


def test_five_masks_are_compared() -> None:
    readings = [
        trigger.after_epoch(mask) for trigger in [settling()] for mask in masks_of(*[[1]] * 6)
    ]
    assert [reading.fired for reading in readings] == [False] * 4 + [True] * 2


def test_a_restored_mask_distance_remembers_the_masks() -> None:
    masks = masks_of([0], [1], [1])
    first, second = settling(epochs=3), settling(epochs=3)
    for mask in masks[:2]:
        first.after_epoch(mask)
    second.restore(first.state())
    reading = Reading(0.2, fired=False, threshold=second.threshold)
    assert second.after_epoch(masks[2]) == first.after_epoch(masks[2]) == reading


def test_a_trigger_is_identified_by_its_parameters() -> None:
    used = lazy_regime(threshold=0.02)
    watch(used, TRAJECTORY)
    assert repr(used) == "LazyRegime(threshold=0.02, norm_power=2, reference='start')"
    assert repr(at_epoch(3)) == "AtEpoch(epoch=3)"
    assert fingerprint(settling()) == (
        "MaskDistance{units: Weights, criterion: random, target: 0.5, threshold: 0.1, epochs: 5}"
    )
