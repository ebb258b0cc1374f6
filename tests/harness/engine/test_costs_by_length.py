"""The inference of shorter sequences, measured beside that of whole ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.costs.memory import Measured
from harness.costs.timing import Timing
from harness.engine import final_costs as final
from harness.engine import measurement, network_timing
from harness.engine.final_costs import exact_costs, measure
from harness.network import build_task, save_network
from harness.registry import Registry
from harness.results import provenance
from harness.signals import Stop
from harness.spec import Plan, plan
from harness.task import Batch
from tasks.ptb.task import OwnText
from tests.helpers.workbench import CPU, POINTS, Workbench

LENGTHS = [3, 5, 10, 19]
"""Of windows of 20 words, of which 19 are read."""
SECONDS = 1.0
"""For which each time of a smoke run is measured at most."""


@pytest.fixture
def decoder() -> Plan:
    """A transformer of two blocks and a width of 8, which reads generated sentences."""
    sizes = {"model": "transformer", "positions": "learned", "head_width": "2"}
    return plan(Registry(), "text", "dense", profile="smoke", overrides=sizes)


@pytest.fixture
def folder(decoder: Plan, tmp_path: Path) -> Path:
    """The folder of its network."""
    save_network(tmp_path, build_task(decoder, CPU).model(), {})
    return tmp_path


def predicted(model: nn.Module, batch: Batch) -> Tensor:
    log_probabilities: Tensor = model(batch[0])[0]
    return log_probabilities


class Clock:
    """Stands for `time_call`: a call takes as many milliseconds as the sequences are long.

    Args:
        busy: by length, how many processors other work keeps busy meanwhile.
    """

    def __init__(self, patch: pytest.MonkeyPatch, busy: Mapping[int, float] | None = None) -> None:
        self.asked: list[tuple[int, float]] = []
        """The length of the sequences, 0 for a training step, and the seconds at most."""
        self._busy = busy or {}
        self._read = 0

        def inference(task: OwnText, model: nn.Module, batch: Batch) -> Tensor:
            self._read = batch[0].shape[1]
            return predicted(model, batch)

        patch.setattr(network_timing, "time_call", self)
        patch.setattr(OwnText, "inference", inference)

    def __call__(
        self, call: Callable[[], object], device: torch.device, *, at_most_seconds: float
    ) -> Timing:
        self._read = 0
        call()
        self.asked.append((self._read, at_most_seconds))
        load = self._busy.get(self._read, 0.0)
        return Timing(float(self._read), 0.5, 50, 0.25, waited=0.0, load=load)


@pytest.fixture
def inference(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    """Make a clock; see `Clock`."""
    return lambda **arguments: Clock(monkeypatch, **arguments)


def measured(folder: Path, wanted: Plan) -> dict[str, Any]:
    return measure(folder, wanted, (), "cpu", 1)


def test_each_length_is_timed_once_and_together_they_take_no_longer_than_whole_sequences(
    decoder: Plan, folder: Path, inference: Callable[..., Clock]
) -> None:
    clock = inference()
    costs = measured(folder, decoder)
    assert clock.asked[:2] == [(0, SECONDS), (19, SECONDS)]
    assert [length for length, _ in clock.asked[2:]] == [3, 5, 10]
    assert sum(seconds for _, seconds in clock.asked[2:]) == pytest.approx(SECONDS)
    times = {length: each["inference_ms"] for length, each in costs["by_length"].items()}
    assert times == {"3": 3.0, "5": 5.0, "10": 10.0, "19": 19.0}
    assert costs["inference_ms"] == 19.0
    assert costs["disturbed"] == {}
    assert costs["load"].keys() == {"step_ms", "inference_ms", "by_length"}


def test_the_memory_of_whole_sequences_is_that_of_the_batch(decoder: Plan, folder: Path) -> None:
    costs = measured(folder, decoder)
    peaks = [each["peak_inference_bytes"] for each in costs["by_length"].values()]
    assert peaks == sorted(set(peaks))
    assert peaks[-1] == costs["peak_inference_bytes"]
    whole = costs["by_length"]["19"]
    assert all(whole[name] == costs[name] for name in ("inference_ms", "inference_ms_iqr", "macs"))


def test_both_products_of_attention_grow_with_the_square_of_the_length(
    decoder: Plan, folder: Path
) -> None:
    """Two blocks have 12 w^2 weights and two products L x L x w; each word has a score."""
    costs = exact_costs(folder, decoder, (), CPU, Stop())
    task = build_task(decoder, CPU)
    assert isinstance(task, OwnText)
    words, width = len(task.vocabulary), 8
    assert costs["by_length"] == {
        str(length): {
            "macs": 2 * (12 * length * width**2 + 2 * length**2 * width) + length * width * words
        }
        for length in LENGTHS
    }
    assert "by_length" not in costs["reasons"]


def test_other_work_at_one_length_marks_them_all(
    decoder: Plan, folder: Path, inference: Callable[..., Clock]
) -> None:
    inference(busy={5: 0.5})
    costs = measured(folder, decoder)
    assert costs["disturbed"] == {"by_length": 0.001}
    assert costs["load"]["by_length"]["during"] == 0.5


def test_other_work_beside_whole_sequences_marks_them_too(
    decoder: Plan, folder: Path, inference: Callable[..., Clock]
) -> None:
    inference(busy={19: 0.5})
    assert measured(folder, decoder)["disturbed"] == {"inference_ms": 0.001, "by_length": 0.001}


def test_a_length_that_a_network_refuses_is_left_out_with_the_reason(
    decoder: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def even(task: OwnText, model: nn.Module, batch: Batch) -> Tensor:
        if batch[0].shape[1] == 5:
            raise AssertionError("5 words have no middle\nof two")
        return predicted(model, batch)

    monkeypatch.setattr(OwnText, "inference", even)
    for costs in (measured(folder, decoder), exact_costs(folder, decoder, (), CPU, Stop())):
        assert list(costs["by_length"]) == ["3", "10", "19"]
        assert costs["reasons"]["by_length"] == (
            "no inference of sequences of length 5: 5 words have no middle"
        )


def test_a_task_without_sequences_is_measured_no_longer(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_network(tmp_path, bench.begin("dense").trainer.model, {})
    calls: list[object] = []

    def timed(call: Callable[[], object], device: torch.device, **at_most: float) -> Timing:
        calls.append(call)
        return Timing(1.0, 0.0, 50, 1.0, waited=0.5, load=2.0)

    monkeypatch.setattr(network_timing, "time_call", timed)
    peaks: list[object] = []
    memory = final._inference_memory

    def peak(*arguments: Any) -> Measured:
        peaks.append(arguments)
        return memory(*arguments)

    monkeypatch.setattr(final, "_inference_memory", peak)
    costs = measure(tmp_path, bench.plan("dense"), [POINTS], "cpu", 1)
    assert (len(calls), len(peaks)) == (2, 1)
    assert "by_length" not in costs
    assert costs["disturbed"] == {"step_ms": 0.5, "inference_ms": 0.5}


def test_the_use_of_a_gpu_by_others_marks_all_times(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is measured here: no GPU is needed."""
    record = bench.run("dense")
    monkeypatch.setattr(measurement, "wait_until_idle", lambda *arguments: 0.8)
    found = {"step_ms": 2.0, "inference_ms": 1.0, "by_length": {"3": {"inference_ms": 0.5}}}
    monkeypatch.setattr(measurement, "measure_elsewhere", lambda *arguments: {**found})
    monkeypatch.setattr(provenance, "environment", lambda device: {"machine": "gpu"})
    taken = measurement.measure_run(
        tmp_path,
        record,
        bench.registry,
        torch.device("cuda"),
        (),
        Path("data"),
        0.0,
        lambda line: None,
        Stop(),
    )
    assert taken is not None
    assert taken["cost"]["disturbed"] == {"step_ms": 0.8, "inference_ms": 0.8, "by_length": 0.8}
