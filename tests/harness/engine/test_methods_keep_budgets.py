"""Every method that prunes keeps a budget."""

from __future__ import annotations

from typing import Any

import pytest

from harness.registry import Registry
from harness.spec import plan
from tests.helpers.attempts import NEVER, Attempts
from tests.helpers.workbench import Workbench

REGISTRY = Registry()
METHODS = {name: REGISTRY.find("pruner", name) for name in REGISTRY.of_kind("pruner")}
BUDGETED = sorted(
    name
    for name, entry in METHODS.items()
    if entry.arguments.get("prunes", True) or entry.arguments.get("obeys_budgets")
)
STRUCTURED = sorted(
    name
    for name in BUDGETED
    if METHODS[name].arguments.get("group") == "structured" or "_s" in name
)
SHORT: dict[str, dict[str, Any]] = {
    "ltr": {"rounds": "2", "epochs": "2"},
    "synflow": {"rounds": "5"},
}


@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize("pruner", BUDGETED)
def test_a_method_keeps_a_budget(bench: Workbench, pruner: str, kind: str) -> None:
    record = bench.run(pruner, budget=f"{kind}=0.5", **SHORT.get(pruner, {}))
    budget = record["sparsity"]["budget"]
    assert 0.4 <= budget["reached"] <= 0.5
    # One weight of 80, or a channel with its 11 parameters of 112.
    slack = 1 / 80 if record["sparsity"]["nodes"] is None else 11 / 112
    assert budget["reached"] > 0.5 - slack - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("pruner", STRUCTURED)
def test_a_structured_method_keeps_a_budget_on_a_residual_network(
    bench: Workbench, pruner: str
) -> None:
    wanted = plan(REGISTRY, "digits", pruner, budget="macs=0.5", profile="smoke")
    record = Attempts(bench, wanted, bench.folder).go(checkpoints=NEVER)
    assert 0.4 <= record["sparsity"]["budget"]["reached"] <= 0.5
