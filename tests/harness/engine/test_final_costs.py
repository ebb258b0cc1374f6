"""Measuring the network of a finished run, in its process or in a new one."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.costs import timing
from harness.costs.memory import Allocations, Measured
from harness.costs.operations import Operations
from harness.engine import final_costs as final
from harness.engine import network_timing
from harness.engine.final_costs import (
    MEASURED,
    exact_costs,
    final_costs,
    measure,
    measure_elsewhere,
)
from harness.errors import Interrupted, RunFailed
from harness.network import Network, load_network, save_network
from harness.signals import Stop
from harness.sparse_kernels import choice
from harness.sparse_kernels.choice import Choice
from pruners.criteria import magnitude
from pruners.weights import Weights
from tests.helpers.workbench import CPU, POINTS, Workbench


def test_a_request_to_stop_ends_the_measuring_at_once(bench: Workbench, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Interrupted):
        measure_elsewhere(
            tmp_path, bench.plan("dense", profile="embedded"), [POINTS], CPU, Stop(requested=True)
        )
    assert time.monotonic() - began < 2
    assert multiprocessing.active_children() == []


def test_a_killed_measuring_process_is_reported(bench: Workbench, tmp_path: Path) -> None:
    def kill() -> None:
        while not multiprocessing.active_children():
            time.sleep(0.01)
        for child in multiprocessing.active_children():
            child.kill()

    threading.Thread(target=kill).start()
    costs = measure_elsewhere(
        tmp_path, bench.plan("dense", profile="embedded"), [POINTS], CPU, Stop()
    )
    assert costs["step_ms"] is None
    assert costs["reasons"] == dict.fromkeys(MEASURED, "the measuring process was killed")


def test_an_error_in_the_measuring_process_fails_the_run(bench: Workbench, tmp_path: Path) -> None:
    """The folder has no network to measure."""
    with pytest.raises(RunFailed, match=r"^measuring the final network: .*there is no such file"):
        measure_elsewhere(tmp_path, bench.plan("dense", profile="embedded"), [POINTS], CPU, Stop())


@pytest.fixture
def dense(bench: Workbench, tmp_path: Path) -> Path:
    """The folder of a finished network."""
    save_network(tmp_path, bench.begin("dense").trainer.model, {})
    return tmp_path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time calls briefly: no test depends on how long they take."""
    monkeypatch.setattr(timing, "_SHORTEST_SECONDS", 0.01)


def measured_here(bench: Workbench, folder: Path) -> dict[str, Any]:
    return measure(folder, bench.plan("dense"), [POINTS], "cpu", torch.get_num_threads())


def test_the_costs_of_a_smoke_run_are_measured_in_its_own_process(
    bench: Workbench, dense: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final, "measure_elsewhere", None)
    costs = final_costs(dense, bench.plan("dense"), [POINTS], CPU, Stop())
    assert costs["measured_in"] == "the process of the run"
    assert costs.keys() >= set(MEASURED)
    with pytest.raises(Interrupted):
        final_costs(dense, bench.plan("dense"), [POINTS], CPU, Stop(requested=True))


def test_an_error_in_the_process_of_the_run_is_reported_in_the_same_words(
    bench: Workbench, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed, match=r"^measuring the final network: .*there is no such file"):
        final_costs(tmp_path, bench.plan("dense"), [POINTS], CPU, Stop())


def test_the_costs_of_any_other_run_are_measured_in_a_process_of_its_own(
    bench: Workbench, dense: Path
) -> None:
    wanted = bench.plan("dense", profile="embedded")
    costs = final_costs(dense, wanted, [POINTS], CPU, Stop())
    assert costs["measured_in"] == "a process of its own"
    assert costs["peak_step_method"] == "allocator"
    assert costs["peak_step_bytes"] == measured_here(bench, dense)["peak_step_bytes"]


def test_the_memory_of_a_step_is_exact(bench: Workbench, dense: Path) -> None:
    """It is at least four times that of the network, which has 102 parameters."""
    once, again = (measured_here(bench, dense)["peak_step_bytes"] for _ in range(2))
    assert once == again
    assert 4 * 2 * 102 < once < 20_000


def test_memory_that_building_a_network_takes_is_no_part_of_a_step(
    bench: Workbench, dense: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding the channels of a shrunk network takes some, for example."""

    def load_at_length(*arguments: Any) -> Network:
        torch.ones(50 * 1024**2, dtype=torch.uint8)
        return load_network(*arguments)

    monkeypatch.setattr(final, "load_network", load_at_length)
    assert measured_here(bench, dense)["peak_step_bytes"] < 20_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports peak memory")
def test_without_reports_of_torch_the_resident_memory_is_measured(
    bench: Workbench, dense: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 40 MB or so that libraries load in their first step do not count."""
    silent = Measured(None, "torch has told no allocations")
    monkeypatch.setattr(Allocations, "peak", lambda allocations: silent)
    costs = measured_here(bench, dense)
    assert costs["peak_step_method"] == "resident memory"
    assert costs["peak_step_bytes"] < 5e6


def test_each_time_comes_with_its_processor_time_and_load(bench: Workbench, dense: Path) -> None:
    costs = measured_here(bench, dense)
    assert costs["step_cpu_ms"] > costs["inference_cpu_ms"] > 0
    assert costs["load"].keys() == {"step_ms", "inference_ms"}
    assert costs["disturbed"].keys() <= {"step_ms", "inference_ms"}


def test_a_call_that_waits_for_a_processor_is_marked(
    bench: Workbench, dense: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(task: Any, network: Any, batch: object) -> None:
        time.sleep(0.01)

    monkeypatch.setattr(bench.points, "inference", waits)
    monkeypatch.setattr(
        "harness.costs.operations.count_operations", lambda *arguments: Operations(1, 1)
    )
    costs = measured_here(bench, dense)
    assert costs["disturbed"]["inference_ms"] > 0.5


def test_what_is_counted_needs_no_measurement(bench: Workbench, dense: Path) -> None:
    """Six inputs, ten channels, two outputs: 80 weights, 12 biases, 20 of the normalisation."""
    costs = exact_costs(dense, bench.plan("dense"), [POINTS], CPU, Stop())
    exact = {"macs": 80, "macs_effective": 80, "macs_dense": 80, "parameters": 80 + 12 + 20}
    assert exact.items() <= costs.items()
    assert costs["disk_bytes"] == (dense / "network.safetensors").stat().st_size
    missing = set(MEASURED) - {*exact, "disk_bytes"}
    assert costs.keys() == {*MEASURED, "measured_in", "reasons"}
    assert {name for name in MEASURED if costs[name] is None} == missing == costs["reasons"].keys()
    assert set(costs["reasons"].values()) == {"left to a later measurement"}
    everything = measured_here(bench, dense)
    assert all(everything[name] == costs[name] for name in (*exact, "disk_bytes"))


def test_an_error_while_counting_is_reported_in_the_same_words(
    bench: Workbench, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed, match=r"^measuring the final network: .*there is no such file"):
        exact_costs(tmp_path, bench.plan("dense"), [POINTS], CPU, Stop())


def test_a_step_that_is_not_possible_on_one_sample_leaves_inference(
    bench: Workbench, dense: Path
) -> None:
    """Batch normalization has no variance of a single value."""
    costs = measure(dense, bench.plan("dense"), [POINTS], "cpu", 1, (1, 4))
    one, four = (costs["by_batch_size"][size] for size in ("1", "4"))
    assert one["step_ms"] is one["step_cpu_ms"] is None
    assert one["reasons"]["step_ms"].startswith("no step on a batch of 1: Expected more than 1")
    assert one["inference_ms"] > 0
    assert four["step_ms"] > 0
    assert "step_ms" not in four["reasons"]


# Sparse kernels


@pytest.fixture
def masked(bench: Workbench, tmp_path: Path) -> Path:
    """The folder of a finished network with masks."""
    trainer = bench.begin("crop_u", sparsity=0.8)
    trainer.run.prune(Weights, magnitude, 0.8)
    save_network(tmp_path, trainer.trainer.model, trainer.trainer.units)
    return tmp_path


def measured_with(bench: Workbench, folder: Path, **conditions: Any) -> dict[str, Any]:
    wanted = bench.plan("crop_u", **conditions)
    return measure(folder, wanted, [POINTS], "cpu", torch.get_num_threads())


def set_limit(monkeypatch: pytest.MonkeyPatch, limit: float) -> None:
    """Use what takes less than this share of the dense time."""
    for module in (choice, "harness.sparse_kernels"):
        name = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{name}.CLEARLY_FASTER", limit)


def test_times_with_sparse_kernels_stand_beside_the_dense_ones(
    bench: Workbench, masked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limit(monkeypatch, float("inf"))
    costs = measured_with(bench, masked, kernels="sparse")
    assert costs["step_sparse_ms"] > costs["inference_sparse_ms"] > 0
    assert costs["step_sparse_layers"] == costs["sparse_layers"] == ["0", "4"]
    assert costs["load"].keys() >= {"step_sparse_ms", "inference_sparse_ms"}
    assert not costs["reasons"].keys() & {"step_sparse_ms", "inference_sparse_ms"}


@pytest.mark.parametrize(
    ("ratio", "reason"),
    [
        (1.25, "slower than dense: sparse kernels take 1.2 times as long"),
        (0.97, "hardly faster than dense: sparse kernels take 0.97 times as long"),
        (None, "no masked layer has a sparse kernel that could be faster"),
    ],
)
def test_where_no_layer_is_faster_there_is_a_reason_in_place_of_a_time(
    bench: Workbench,
    masked: Path,
    monkeypatch: pytest.MonkeyPatch,
    ratio: float | None,
    reason: str,
) -> None:
    none = Choice({}, {}, {}, 1.0, ratio, contiguous=False)
    monkeypatch.setattr("harness.sparse_kernels.choose_kernels", lambda *inputs, **named: none)
    costs = measured_with(bench, masked, kernels="sparse")
    assert costs["inference_sparse_ms"] is None
    assert costs["reasons"]["inference_sparse_ms"] == reason


def test_a_step_in_half_precision_has_no_sparse_kernels(
    bench: Workbench, masked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_timing, "_why_no_sparse_times", lambda *inputs: None)
    costs = measured_with(bench, masked, precision="bfloat16")
    assert costs["step_sparse_ms"] is None
    assert costs["reasons"]["step_sparse_ms"] == "there are no sparse kernels for bfloat16"


def test_sparse_kernels_are_measured_where_weights_are_masked(
    bench: Workbench, dense: Path
) -> None:
    reasons = measured_with(bench, dense, kernels="sparse")["reasons"]
    assert reasons["step_sparse_ms"] == reasons["inference_sparse_ms"] == "no weights are masked"
