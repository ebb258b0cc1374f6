"""The conditions of a run: settings of the engine, equal for every task and pruner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from harness.errors import RequestError
from harness.settings import ON_OFF, Interval, Settings


@dataclass(frozen=True, kw_only=True)
class Conditions(Settings):
    """What ``--set`` changes for any task and pruner.

    ``scoring``, ``masks`` and ``weights`` are the sanity checks of Frankle et al. 2021
    (arXiv:2009.08576) and Su et al. 2020 (arXiv:2009.11094).

    Raises:
        RequestError: two conditions contradict each other.
    """

    schedule: Annotated[
        Literal["equal", "onecycle", "official"],
        "learning-rate schedule: equal is constant for half of the budget and then falls, "
        "onecycle rises first, official is that of the EarlyCroP code",
    ] = "equal"
    # The rate of `equal` falls from the middle of the budget on, so a warm-up ends before it.
    warmup: Annotated[
        float,
        "share of the budget over which the learning rate of schedule=equal rises to its constant "
        "value",
        Interval("[0, 0.5]"),
    ] = 0.0
    statistics: Annotated[
        Literal["batch", "running"], "statistics that batch normalisation uses while scoring"
    ] = "batch"
    scoring: Annotated[
        Literal["whole", "half"], "scoring batches that criteria see: all, or fewer than half"
    ] = "whole"
    masks: Annotated[
        Literal["scored", "shuffled", "inverted"],
        "what is removed: the lowest scores, as many weights or channels of each layer at random, "
        "or the highest scores",
    ] = "scored"
    weights: Annotated[
        Literal["inherited", "redrawn"],
        "weights after a pruning: those that were trained, or newly initialised ones",
    ] = "inherited"
    start: Annotated[
        str, "network to begin from: new, or the run whose trained dense network is used"
    ] = "new"
    kernel: Annotated[
        bool, "measure the tangent kernel after each epoch and around each pruning", ON_OFF
    ] = False
    precision: Annotated[
        Literal["float32", "bfloat16"], "precision of training steps; all else is in float32"
    ] = "float32"
    channels_last: Annotated[
        bool, "keep images with the channels last in memory during training steps", ON_OFF
    ] = False
    floor: Annotated[
        float,
        "share of each layer's weights, or of each group's channels, that no method removes; at 0 "
        "the last channel of a group still stays",
        Interval("[0, 1]"),
    ] = 0.0
    rounding: Annotated[
        int,
        "the number of channels that remain in each group is a multiple of this; smaller groups "
        "stay whole",
    ] = 1

    def __post_init__(self) -> None:
        if self.warmup and self.schedule != "equal":
            raise RequestError(
                f"warmup={self.warmup:g} belongs to schedule=equal; "
                f"the schedule {self.schedule!r} has its own beginning"
            )
