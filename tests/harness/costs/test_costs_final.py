from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from workbench import CPU, POINTS, Workbench

from harness.costs import final
from harness.costs.final import MEASURED, measure_elsewhere
from harness.durability.stop import Stop
from harness.errors import Interrupted, RunFailed
from harness.network import Network, load_network, save_network


def test_being_asked_to_stop_ends_the_measuring_at_once(bench: Workbench, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Interrupted):
        measure_elsewhere(tmp_path, bench.plan("dense"), [POINTS], CPU, Stop(requested=True))
    assert time.monotonic() - began < 2
    assert multiprocessing.active_children() == []


def test_a_measuring_process_that_is_killed_is_told(bench: Workbench, tmp_path: Path) -> None:
    def kill() -> None:
        while not multiprocessing.active_children():
            time.sleep(0.01)
        for child in multiprocessing.active_children():
            child.kill()

    threading.Thread(target=kill).start()
    costs = measure_elsewhere(tmp_path, bench.plan("dense"), [POINTS], CPU, Stop())
    assert costs["step_ms"] is None
    assert costs["reasons"] == dict.fromkeys(MEASURED, "the measuring process was killed")


def test_what_goes_wrong_there_is_told_here(bench: Workbench, tmp_path: Path) -> None:
    """Here there is no network to measure."""
    with pytest.raises(RunFailed, match=r"^measuring the final network: .*is missing or damaged"):
        measure_elsewhere(tmp_path, bench.plan("dense"), [POINTS], CPU, Stop())


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is Linux's")


@needs_linux
def test_what_libraries_load_in_their_first_step_is_not_the_networks(
    bench: Workbench, tmp_path: Path
) -> None:
    """A network of a few hundred weights needs no megabytes; a first step by itself takes 40."""
    save_network(tmp_path, bench.begin("dense").trainer.model, {})
    costs = measure_elsewhere(tmp_path, bench.plan("dense"), [POINTS], CPU, Stop())
    assert costs["peak_step_bytes"] < 5e6


@needs_linux
def test_what_building_a_network_takes_for_a_moment_is_no_part_of_a_step(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As finding the channels does of one that was cut."""

    def load_at_length(*arguments: Any) -> Network:
        torch.ones(50 * 1024**2, dtype=torch.uint8)
        return load_network(*arguments)

    save_network(tmp_path, bench.begin("dense").trainer.model, {})
    monkeypatch.setattr(final, "load_network", load_at_length)
    costs = final.measure(tmp_path, bench.plan("dense"), [POINTS], "cpu", torch.get_num_threads())
    torch.set_flush_denormal(False)
    assert costs["peak_step_bytes"] < 5e6
