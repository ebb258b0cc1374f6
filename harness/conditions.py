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
        "fraction of the budget over which the learning rate of schedule=equal rises to its "
        "constant value",
        Interval("[0, 0.5]"),
    ] = 0.0
    statistics: Annotated[
        Literal["batch", "running"], "statistics that batch normalisation uses while scoring"
    ] = "batch"
    scoring: Annotated[
        Literal["whole", "half"],
        "scoring batches that criteria see: whole means all five, half means two",
    ] = "whole"
    masks: Annotated[
        Literal["scored", "shuffled", "inverted"],
        "what is removed: the lowest scores, the same number of weights or channels of each layer "
        "at random, or the highest scores",
    ] = "scored"
    weights: Annotated[
        Literal["inherited", "redrawn"],
        "weights after pruning: keep the current ones or reinitialise",
    ] = "inherited"
    start: Annotated[str, "initial network: new, or the name of a dense run"] = "new"
    teacher: Annotated[
        str, "network whose outputs are learnt beside the data: none, or the name of a dense run"
    ] = "none"
    # Weight and temperature of Zagoruyko and Komodakis 2017 (arXiv:1612.03928).
    distill_weight: Annotated[
        float,
        "weight of the teacher in the training loss; the task's loss has the rest",
        Interval("(0, 1]"),
    ] = 0.9
    temperature: Annotated[
        float,
        "number by which the logits of teacher and network are divided before they are compared",
        Interval("(0, inf)"),
    ] = 4.0
    kernel: Annotated[
        bool, "measure the tangent kernel after each epoch and around each pruning", ON_OFF
    ] = False
    precision: Annotated[
        Literal["float32", "bfloat16"], "precision of training steps; all else uses float32"
    ] = "float32"
    channels_last: Annotated[
        bool, "store images with the channels last in memory during training steps", ON_OFF
    ] = False
    kernels: Annotated[
        Literal["dense", "sparse"],
        "kernels of masked layers in training and evaluation: sparse means sparse ones in those "
        "layers that were measured to be faster with them, on a CPU",
    ] = "dense"
    floor: Annotated[
        float,
        "minimum fraction of each layer's weights (or group's channels) to keep; at least one "
        "channel always remains",
        Interval("[0, 1]"),
    ] = 0.0
    ranking: Annotated[
        Literal["method", "isomorphic"],
        "which channels are ranked together: those that the method says, or those of groups of "
        "the same structure, so that every class of such groups loses the same share",
    ] = "method"
    rounding: Annotated[
        int,
        "the number of channels that remain in each group is a multiple of this; smaller groups "
        "are not pruned",
    ] = 1

    def __post_init__(self) -> None:
        if self.warmup and self.schedule != "equal":
            raise RequestError(
                f"warmup={self.warmup:g} belongs to schedule=equal; "
                f"the schedule {self.schedule!r} has its own beginning"
            )
        if self.kernels == "sparse" and self.precision != "float32":
            raise RequestError(
                f"kernels=sparse computes in float32; there are no sparse kernels for "
                f"precision={self.precision}"
            )
        for name in OF_TEACHER:
            value = self[name]
            if self.teacher == "none" and value != self.declared()[name].default:
                raise RequestError(f"{name}={value:g} needs a teacher: --set teacher=RUN")


OF_TEACHER = ("distill_weight", "temperature")
"""Conditions that mean something only in a run with a teacher."""
