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

from harness.matrix.dispatch import Dispatch, Tally
from harness.matrix.executor import Job, Resources, find_executor
from harness.registry import Registry
from harness.signals import StopRequest
from harness.spec import Plan, plan
from harness.storage.store import Store, outcome
from tests.helpers.workbench import FAULTS, POINTS, Workbench

REGISTRY = Registry([POINTS, FAULTS])
GOOD = ("dense", "snip", "crop_u", "random_u")
BAD = {
    "segfaulting": "its process was ended by SIGSEGV (Segmentation fault)",
    "killed": "its process was ended by SIGKILL (Killed)",
    "hanging": "did not end within 20 seconds, the limit for a run",
    "raising": "ValueError: boom",
    "greedy": "GB of memory, and the limit for a run is 1.2 GB",
}
HEAD, OTHER, PORT = "127.0.0.2", "127.0.0.3", 6399


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster of two nodes, of which only its own processes are ended afterwards."""
    pytest.importorskip("ray")
    before = {process.pid for process in psutil.process_iter()}
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", f"{HEAD}:{PORT}")
        patch.setenv("PYTHONPATH", str(FAULTS.parents[2]))
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nine")


@pytest.fixture(scope="module")
def plans(folder: Path) -> dict[str, Plan]:
    options = {"greedy": {"epochs": "1000000"}, "hanging": {"sleeper": str(folder / "sleeper")}}
    return {
        name: plan(REGISTRY, "points", name, profile="smoke", overrides=options.get(name, {}))
        for name in (*BAD, *GOOD)
    }


@pytest.fixture(scope="module")
def tally(cluster: None, folder: Path, plans: dict[str, Plan]) -> Tally:
    tally = Tally(len(plans))
    # Long enough for the good runs on any machine.
    resources = Resources(device="cpu", time_limit=20, memory_limit=1_200_000_000)
    executor = find_executor("ray")(resources, tally.report, folder)
    assert executor.slots == 2
    jobs = [Job(each, (POINTS, FAULTS), folder, checkpoint_every=60) for each in plans.values()]
    Dispatch(executor, Store(folder), tally, StopRequest()).run(jobs, lambda: None)
    return tally


@pytest.mark.ray
@pytest.mark.filterwarnings("default")
class TestNineCells:
    """Four good methods and five bad ones, on two nodes."""

    @pytest.mark.parametrize("name", GOOD)
    def test_good_runs_are_done(
        self, folder: Path, plans: dict[str, Plan], tally: Tally, bench: Workbench, name: str
    ) -> None:
        assert tally.outcomes[plans[name].run_id].status == "done"
        record = Store(folder).record(plans[name].run_id)
        assert record is not None
        assert outcome(record) == outcome(bench.run(name, sparsity=0.8))

    @pytest.mark.parametrize(("name", "reason"), BAD.items())
    def test_bad_runs_give_the_reason(
        self, plans: dict[str, Plan], tally: Tally, name: str, reason: str
    ) -> None:
        ended = tally.outcomes[plans[name].run_id]
        assert ended.status == "failed"
        assert reason in str(ended.reason)
