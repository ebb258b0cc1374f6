"""Runs on a Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from workbench import Workbench

from harness.contracts import outcome
from harness.dispatch import Dispatch, Tally
from harness.executor import Order, Resources, find_executor
from harness.registry import Registry
from harness.spec import plan
from harness.stop import Urgency
from harness.store import Store

FAULTS = Path(__file__).parent / "faults.py"
HEAD, OTHER, PORT = "127.0.0.2", "127.0.0.3", 6399


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two nodes; what was started for them is ended, and nothing else."""
    pytest.importorskip("ray")
    before = {process.pid for process in psutil.process_iter()}
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", f"{HEAD}:{PORT}")
        patch.setenv("PYTHONPATH", f"{FAULTS.parents[2]}:{FAULTS.parent}")
        _start("--head", f"--port={PORT}", f"--node-ip-address={HEAD}", f"--temp-dir={folder}")
        _start(f"--address={HEAD}:{PORT}", f"--node-ip-address={OTHER}")
        yield
    for process in psutil.process_iter():
        if process.pid not in before and "ray" in " ".join(process.cmdline()[:4]):
            os.kill(process.pid, signal.SIGKILL)


def _start(*words: str) -> None:
    ray = Path(sys.executable).with_name("ray")
    node = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
    subprocess.run([ray, "start", *words, *node], check=True, capture_output=True, timeout=120)


@pytest.mark.ray
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("cluster")
def test_what_ends_badly_costs_the_others_nothing(tmp_path: Path, bench: Workbench) -> None:
    names = ("segfaulting", "dense", "killed", "snip", "raising")
    registry = Registry([FAULTS])
    plans = {name: plan(registry, "quick_points", name, profile="smoke") for name in names}
    tally = Tally(len(plans))
    executor = find_executor("ray")(Resources(device="cpu"), tally.hear, tmp_path)
    assert executor.slots == 2
    orders = [Order(each, (FAULTS,), tmp_path, checkpoint_every=60) for each in plans.values()]
    Dispatch(executor, Store(tmp_path), tally, Urgency()).carry_out(orders, lambda: None)
    assert dict(tally.count()) == {"done": 2, "failed": 3}
    for name in ("dense", "snip"):
        record = Store(tmp_path).record(plans[name].run_id)
        assert record is not None
        assert outcome(record) == outcome(bench.carry_out(name, sparsity=0.8))
