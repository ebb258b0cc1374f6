"""The card of an exported network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.export.model_card import model_card, of_all_seeds
from harness.record import check
from harness.results.example import example
from harness.storage.store import Store
from tests.helpers.fabricated import record


def saved(folder: Path, **changes: Any) -> Any:
    """Save a record and return it."""
    made = record(**changes)
    store = Store(folder)
    store.open_run(made["run_id"])
    store.save(made)
    return made


def metadata(card: str) -> dict[str, str]:
    """Return the lines between the first two rules, by their key."""
    _, lines, _ = card.split("---\n", 2)
    return dict(line.split(": ", 1) for line in lines.splitlines())


def test_the_seeds_of_the_same_run_give_the_interval(tmp_path: Path) -> None:
    """Of 94, 95 and 96, the mean is 95, and the half width 4.303 / sqrt(3) = 2.484."""
    runs = [
        saved(tmp_path, pruner="snip", seed=seed, quality__test=94.0 + seed) for seed in range(3)
    ]
    saved(tmp_path, pruner="snip", sparsity=0.5, seed=3)
    saved(tmp_path, pruner="grasp", seed=4)
    tests = of_all_seeds(runs[0], Store(tmp_path))
    assert tests == {0: 94.0, 1: 95.0, 2: 96.0}
    card = model_card(runs[0], tests)
    assert "The accuracy on the test data is 94; higher is better" in card
    assert "Over 3 seeds, its mean is 95 with a 95 % interval from 92.52 to 97.48." in card


def test_a_single_seed_has_no_interval() -> None:
    assert "the result of a single seed, so there is no interval." in model_card(record(), {0: 9.0})


def test_the_metadata_are_what_a_hub_reads() -> None:
    made = record(pruner="snip", quality__test=94.5)
    told = metadata(model_card(made, {}))
    assert told["license"] == "unknown # to be filled in"
    assert json.loads(told["tags"]) == ["pruning", "pictures", "snip"]
    ((index,)) = json.loads(told["model-index"])
    (result,) = index["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 94.5}]
    assert result["dataset"]["type"] == "official"


@pytest.mark.parametrize(
    "line",
    [
        "| Multiply-accumulates carried out | ",
        "The run was carried out on: ",
        "Official: ",
        "* Method: SNIP, `snip`",
        "* Weights removed: ",
        "## Licence\n\nTo be filled in",
    ],
)
def test_a_card_tells_costs_data_method_and_that_the_licence_is_missing(line: str) -> None:
    assert line in model_card(record(pruner="snip"), {})


def test_every_record_has_a_card() -> None:
    assert model_card(check(example()), {}).startswith("---\nlicense: unknown")
