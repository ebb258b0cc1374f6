"""Devices, cores and memory are divided between concurrent runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import RequestError
from harness.executors import local_resources
from harness.executors.local_resources import (
    available_memory,
    divide,
    total_memory,
    visible_gpus,
    why_too_large,
)
from harness.matrix.executor import Resources


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_each_gpu_is_a_slot() -> None:
    slots = divide(Resources(), ["0", "3"])
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "3"]
    assert {(slot.device, slot.threads, slot.runs_on_device) for slot in slots} == {
        ("cuda:0", 4, 1)
    }


def test_runs_that_share_a_gpu_are_counted() -> None:
    slots = divide(Resources(jobs=3), ["0", "1"])
    placed = [(slot.environment["CUDA_VISIBLE_DEVICES"], slot.runs_on_device) for slot in slots]
    assert placed == [("0", 2), ("1", 1), ("0", 2)]


def test_the_processor_is_shared_by_all_slots_and_sees_no_gpu() -> None:
    slots = divide(Resources(jobs=4, device="cpu"), ["0"])
    assert len(slots) == 4
    for slot in slots:
        assert (slot.device, slot.threads, slot.runs_on_device) == ("cpu", 2, 4)
        assert slot.environment == {"CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize(("free", "slots"), [(10**11, 8), (3 * 10**9, 3), (10**8, 1)])
def test_the_memory_limits_the_number_of_slots(
    monkeypatch: pytest.MonkeyPatch, free: int, slots: int
) -> None:
    monkeypatch.setattr("harness.executors.local_resources.available_memory", lambda: free)
    assert len(divide(Resources(device="cpu"), [])) == slots


def test_exclusive_means_one_run_with_all_threads() -> None:
    (slot,) = divide(Resources(exclusive=True, device="cpu"), [])
    assert (slot.threads, slot.runs_on_device) == (8, 1)


def test_omp_num_threads_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [slot.threads for slot in divide(Resources(jobs=2, device="cpu"), [])] == [3, 3]
    assert [slot.threads for slot in divide(Resources(jobs=4, device="cpu"), [])] == [2] * 4


def test_a_gpu_is_chosen_by_number() -> None:
    (slot,) = divide(Resources(device="cuda:1"), ["4", "6"])
    assert slot.environment == {"CUDA_VISIBLE_DEVICES": "6"}


@pytest.mark.parametrize(
    ("resources", "complaint"),
    [
        (
            Resources(jobs=2, exclusive=True),
            "--exclusive means one run at a time, but --jobs 2 asks for more",
        ),
        (Resources(device="cuda:2"), "device 'cuda:2' does not exist; GPUs of this machine: 2"),
        (Resources(device="cuda:x"), "unknown device 'cuda:x'; known: auto, cpu, cuda, cuda:1"),
        (Resources(device="tpu"), "unknown device 'tpu'; known: auto, cpu, cuda, cuda:1"),
    ],
)
def test_an_impossible_request_is_refused(resources: Resources, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        divide(resources, ["0", "1"])


@pytest.mark.parametrize(
    ("chosen", "names"), [(None, ["0", "1"]), ("5, 7", ["5", "7"]), ("GPU-a,1,2", ["GPU-a", "1"])]
)
def test_gpus_keep_the_names_that_the_user_gave_them(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, names: list[str]
) -> None:
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus(2) == names


class TestMemory:
    @pytest.fixture(autouse=True)
    def container(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A container with a limit of 1 GB that uses 600 MB, 200 MB of which are cached files."""
        (tmp_path / "memory.max").write_text("1000000000\n")
        (tmp_path / "memory.current").write_text("600000000\n")
        (tmp_path / "memory.stat").write_text("anon 400000000\ninactive_file 200000000\n")
        monkeypatch.setattr(local_resources, "_CONTAINER", tmp_path)

    def test_available_memory_is_that_of_the_container(self) -> None:
        assert total_memory() == 1_000_000_000
        assert available_memory() == 600_000_000 - 50_000_000

    def test_a_run_that_is_too_large_is_refused_with_its_size(self) -> None:
        assert why_too_large(1_000_000_000) is None
        refusal = "such a run needs 2 GB of memory, and this machine has 1 GB"
        assert why_too_large(2_000_000_000) == refusal

    def test_a_container_without_a_limit_is_the_machine(self, tmp_path: Path) -> None:
        (tmp_path / "memory.max").write_text("max\n")
        assert total_memory() > 1_000_000_000
