"""Evaluating a model without leaving a trace in it."""

from __future__ import annotations

import torch
from torch import nn

from harness.task import Split, Task


def evaluate(task: Task, model: nn.Module, split: Split) -> dict[str, float]:
    """Return the task's metrics of a model in evaluation mode."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return task.evaluate(model, split)
    finally:
        model.train(training)
