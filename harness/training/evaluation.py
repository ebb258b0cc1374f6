"""Evaluating a model without changing it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.errors import RunFailed, nearest, place
from harness.task import Split, Task


def evaluate(
    task: Task, model: nn.Module, split: Split, metric: str | None = None
) -> dict[str, float]:
    """Return the task's metrics of a model in evaluation mode.

    Args:
        task: computes the metrics.
        model: the network to evaluate.
        split: the data.
        metric: a metric that must be among them.

    Raises:
        RunFailed: the task did not return metrics, or not that one.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            given: object = task.evaluate(model, split)
    finally:
        model.train(training)
    if not isinstance(given, Mapping):
        raise RunFailed(
            f"{place(task.evaluate)} returned a {type(given).__name__}, not a dictionary of metrics"
        )
    metrics = {str(name): _number(task, str(name), value) for name, value in given.items()}
    if metric is not None and metric not in metrics:
        raise RunFailed(
            f"{place(task.evaluate)} returned no {metric!r}, which is the metric of its task"
            f"{nearest(metric, metrics)}"
        )
    return metrics


def require_number(task: Task, metrics: Mapping[str, float], metric: str, split: Split) -> None:
    """Refuse a main metric of NaN, if the network's outputs are finite.

    Raises:
        RunFailed: the metric is NaN.
    """
    if math.isnan(metrics[metric]):
        raise RunFailed(
            f"{place(task.evaluate)} returned {metrics[metric]} for {metric!r} on the {split} "
            "data, although all outputs of the network are finite"
        )


def _number(task: Task, name: str, value: object) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    try:
        return float(value)  # type: ignore[arg-type]  # anything but a number is refused
    except (TypeError, ValueError):
        raise RunFailed(
            f"{place(task.evaluate)} returned a {type(value).__name__} for {name!r}, not a number"
        ) from None
