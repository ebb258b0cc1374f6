from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from pathlib import Path

import pytest
from workbench import CPU, POINTS, Workbench

from harness.costs.final import MEASURED, measure_elsewhere
from harness.durability.stop import Stop
from harness.errors import Interrupted, RunFailed
from harness.network import save_network


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


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is known on Linux")
def test_what_libraries_load_in_their_first_step_is_not_the_networks(
    bench: Workbench, tmp_path: Path
) -> None:
    """A network of a few hundred weights needs no megabytes; a first step by itself takes 40."""
    begun = bench.begin("dense")
    save_network(tmp_path, begun.trainer.model, {})
    costs = measure_elsewhere(tmp_path, bench.plan("dense"), [POINTS], CPU, Stop())
    assert costs["peak_step_bytes"] < 5e6
