"""What a run counts: the operations of its training, and the passes of its scoring.

The network of the points has 60 weights in its first layer and 20 in its second. An epoch has 40
samples, and a run has four. Of each sample, the forward pass multiplies with every weight. The
backward pass multiplies once more with each weight of the second layer, for the gradient of its
inputs, and once for the gradient of each weight.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.contracts import StopAfter
from harness.errors import Interrupted
from harness.record import NOTHING_SCORED
from tests.helpers.attempts import NEVER, attempts
from tests.helpers.workbench import WATCHING, Workbench

FORWARD, BACKWARD = 60 + 20, 60 + 2 * 20
"""Multiply-accumulates of a sample in the dense network."""
SAMPLES = 4 * 40
SCORED = 5 * 8
"""Samples of the scoring batches."""


def kept(record: dict[str, Any]) -> tuple[int, int]:
    first, second = (layer["kept"] for layer in record["sparsity"]["per_layer"])
    return first, second


@pytest.mark.parametrize("batch_size", ["8", "16"])
def test_every_sample_of_a_dense_training_counts_whatever_the_size_of_its_batch(
    bench: Workbench, batch_size: str
) -> None:
    """In batches of 16, the last of an epoch has 8."""
    cost = bench.run("dense", batch_size=batch_size)["cost"]
    assert cost["train_macs"] == SAMPLES * (FORWARD + BACKWARD)


def test_a_method_that_is_sparse_from_the_start_trains_what_it_has_left(bench: Workbench) -> None:
    record = bench.run("magnitude_initial_u")
    first, second = kept(record)
    assert first + second == 16
    assert record["cost"]["train_macs"] == SAMPLES * (2 * first + 3 * second)
    assert record["cost"]["scoring_passes"] == 0


def test_a_method_that_prunes_late_trains_the_whole_network_before(bench: Workbench) -> None:
    record = bench.run("magnitude_u")
    first, second = kept(record)
    half = SAMPLES // 2 * (FORWARD + BACKWARD + 2 * first + 3 * second)
    assert record["cost"]["train_macs"] == half


def test_scoring_counts_with_the_passes_that_it_takes(bench: Workbench) -> None:
    """CroP takes the gradient of each batch, and then the product with its Hessian."""
    record = bench.run("crop_u")
    first, second = kept(record)
    (pruning,) = (event for event in record["events"] if event["verb"] == "prune")
    assert pruning["scoring"]["passes"] == {"forward": 10, "backward": 15}
    assert record["cost"]["scoring_passes"] == 25
    scoring = SCORED * (2 * FORWARD + 3 * BACKWARD)
    assert record["cost"]["train_macs"] == scoring + SAMPLES * (2 * first + 3 * second)


def test_synflow_takes_no_data_but_computes(bench: Workbench) -> None:
    record = bench.run("synflow", rounds="1")
    first, second = kept(record)
    assert record["cost"]["scoring_passes"] == 0
    one_pass = FORWARD + BACKWARD
    assert record["cost"]["train_macs"] == one_pass + SAMPLES * (2 * first + 3 * second)


def test_a_teacher_adds_its_forward_pass(bench: Workbench) -> None:
    dense = bench.run("dense")
    taught = bench.run("dense", teacher=str(bench.folder / dense["run_id"]))
    assert taught["cost"]["train_macs"] == SAMPLES * (2 * FORWARD + BACKWARD)


def test_frozen_parameters_need_no_gradient(bench: Workbench) -> None:
    """Nothing is passed back beyond the last layer, the only one that learns at first."""
    method = bench.with_method(
        """
        from tests.helpers.watching import last_layer
        run.train(steps=2, only=last_layer)
        run.train()
        """
    )
    expected = 2 * 8 * (FORWARD + 20) + (SAMPLES - 2 * 8) * (FORWARD + BACKWARD)
    assert method.run("tried", sparsity=0.0)["cost"]["train_macs"] == expected


def test_what_only_observes_costs_nothing(bench: Workbench) -> None:
    method = bench.with_method(
        """
        from pruners.triggers import MaskDistance
        run.train(observe={"mask": MaskDistance(Weights, snip, 0.8)})
        """
    )
    cost = method.run("tried", sparsity=0.0)["cost"]
    assert cost["scoring_passes"] is None
    assert cost["reasons"]["scoring_passes"] == NOTHING_SCORED
    assert cost["train_macs"] == SAMPLES * (FORWARD + BACKWARD)


@pytest.mark.parametrize("pruner", ["watching", "cutting", "crop_u"])
def test_an_interrupted_run_counts_the_same(tmp_path: Path, pruner: str) -> None:
    bench = Workbench(tmp_path, [WATCHING])
    whole = attempts(bench, pruner, "whole").go(checkpoints=NEVER)["cost"]
    pieces = attempts(bench, pruner, "pieces")
    for steps in (3, 9):
        with pytest.raises(Interrupted):
            pieces.go(StopAfter(steps=steps))
    cost = pieces.go()["cost"]
    assert cost["train_macs"] == whole["train_macs"]
    assert cost["scoring_passes"] == whole["scoring_passes"]


def test_a_gradient_at_removed_places_counts_in_full(bench: Workbench) -> None:
    """RigL takes one for each exchange, from one batch of 8 samples."""
    record = bench.run("rigl", every="10", last="0.75")
    first, second = kept(record)
    (exchange,) = (event for event in record["events"] if event["verb"] == "exchange")
    assert exchange["scoring"]["passes"] == {"forward": 1, "backward": 1}
    assert record["cost"]["scoring_passes"] == 2
    forward, of_inputs, dense = first + second, second, 60 + 20
    growing = 8 * (forward + of_inputs + dense)
    assert record["cost"]["train_macs"] == growing + SAMPLES * (2 * first + 3 * second)
