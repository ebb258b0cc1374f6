"""Every method prunes the transformers of the tasks, or says why it cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.errors import Skip
from harness.registry import Registry
from harness.spec import plan
from tasks.ptb.settings import PROFILES
from tasks.ptb.task import PennTreebank
from tests.helpers.attempts import NEVER, Attempts
from tests.helpers.workbench import Workbench

REGISTRY = Registry()
MODELS = {"ptb": "transformer", "digits": "vit"}
SAMPLE = ["crop_s", "synflow", "sparsegpt", "rigl"]
"""Second derivatives by gates, flow, inputs of layers, and weights that return."""
SHORT: dict[str, dict[str, str]] = {
    "ltr": {"rounds": "1"},
    "lr_rewinding": {"rounds": "1"},
    "synflow": {"rounds": "3"},
    "force": {"rounds": "3"},
    "group_norm_s": {"rounds": "3"},
}


def pruned(bench: Workbench, task: str, pruner: str, **request: Any) -> Any:
    wanted = plan(
        REGISTRY,
        task,
        pruner,
        profile="smoke",
        overrides={"model": MODELS[task], **SHORT.get(pruner, {})},
        **request,
    )
    return Attempts(bench, wanted, bench.folder).go(checkpoints=NEVER)


@pytest.mark.parametrize("task", MODELS)
@pytest.mark.parametrize("pruner", SAMPLE)
def test_a_few_methods_prune_transformers(bench: Workbench, task: str, pruner: str) -> None:
    record = pruned(bench, task, pruner, sparsity=0.5)
    assert record["status"] == "done", record["reason"]
    assert record["sparsity"]["weights"] >= 0.5 - 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("task", MODELS)
@pytest.mark.parametrize("pruner", list(REGISTRY.of_kind("pruner")))
def test_every_method_prunes_transformers_or_says_why_not(
    bench: Workbench, task: str, pruner: str
) -> None:
    try:
        record = pruned(bench, task, pruner, sparsity=0.5)
    except Skip as skip:
        pytest.skip(str(skip))
    assert record["status"] == "done", record["reason"]
    if record["spec"]["sparsity"] > 0:
        assert record["sparsity"]["weights"] >= 0.5 - 1e-3


def test_a_budget_of_operations_counts_attention(bench: Workbench) -> None:
    """Two blocks of width 16, in windows of 19 words, and a score for each word."""
    record = pruned(bench, "ptb", "random_s", budget="macs=0.5")
    assert record["status"] == "done", record["reason"]
    words = len(PennTreebank(PROFILES["smoke"], bench.folder, torch.device("cpu")).vocabulary)
    length, width = 19, 16
    maps, attention = 12 * length * width**2, 2 * length**2 * width
    assert record["sparsity"]["budget"]["dense"] == (
        2 * (maps + attention) + length * width * words
    )
    assert 0.45 <= record["sparsity"]["budget"]["reached"] <= 0.5
