"""A matrix measures its networks when all its runs have ended, each once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import harness
from harness.costs.meter import CostMeter
from harness.engine import measurement, run_plan
from harness.engine.final_costs import MEASURED, exact_costs
from harness.errors import Interrupted, RequestError, RunFailed
from harness.executors.debug import Debug
from harness.executors.local import Local
from harness.matrix.dispatch import Tally
from harness.matrix.manifest import manifest_files, read_manifest
from harness.matrix.measuring import measure_networks
from harness.matrix.request import MatrixRequest
from harness.matrix.suite import Suite, read_suite
from harness.signals import Stop, StopRequest
from harness.storage.measurements import measurements
from harness.storage.store import Store
from tests.helpers.commands import Command
from tests.helpers.costs import NOT_MEASURED
from tests.helpers.workbench import POINTS, Workbench

WORDS = ("--tasks", "points", "--plugin", POINTS, "--pruners", "dense,magnitude_u")


class Machine:
    """Measures networks at once, in place of a new process that takes seconds."""

    def __init__(self) -> None:
        self.measured: list[str] = []
        """The pruners of the runs, in the order of the measurements."""
        self.finished: list[int] = []
        """How many runs had a record by then."""
        self.error: Exception | None = None
        """Raised by the second measurement."""

    def measure(self, folder: Path, plan: Any, *arguments: object) -> dict[str, Any]:
        if self.error is not None and self.measured:
            raise self.error
        self.measured.append(plan.spec.pruner)
        self.finished.append(len(Store(folder.parent).run_ids()))
        return {**dict.fromkeys(MEASURED, 5), "sparse_layers": [], "reasons": {}, "disturbed": {}}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine that is idle, and a matrix whose runs are carried out in this process."""
    machine = Machine()
    monkeypatch.setattr(measurement, "measure_elsewhere", machine.measure)
    monkeypatch.setattr(measurement, "wait_until_idle", lambda *arguments: 0.0)
    monkeypatch.setattr("harness.matrix.request.find_executor", lambda name: Debug)

    def without_energy(device: torch.device, energy: bool, load: float | None) -> CostMeter:
        return CostMeter(device, False, load)  # looking for counters takes seconds

    monkeypatch.setattr(run_plan, "CostMeter", without_energy)
    return machine


def costs() -> dict[str, Any]:
    """Return the costs in the records, by pruner."""
    records = Store(Path("results")).records()
    return {record["spec"]["pruner"]: record["cost"] for record in records}


def test_all_runs_end_before_the_first_network_is_measured(
    command: Command, machine: Machine
) -> None:
    said = command("matrix", *WORDS, "--json")
    assert said.code == 0
    assert machine.measured == ["dense", "magnitude_u"]
    assert machine.finished == [2, 2]
    assert json.loads(said.out.splitlines()[-1])["unmeasured"] == 0
    *_, announced, first, second = said.err.splitlines()
    assert announced == "measuring 2 networks, one at a time"
    assert first.startswith("[1/2] points-dense-0-seed0-")
    assert second.endswith(" step 5 ms, inference 5 ms")


def test_a_record_has_what_is_exact_and_the_measurement_the_rest(
    command: Command, machine: Machine
) -> None:
    command("matrix", *WORDS)
    cost = costs()["magnitude_u"]
    assert (cost["macs"], cost["macs_effective"], cost["parameters"]) == (80, 16, 112)
    assert (cost["step_ms"], cost["inference_ms"], cost["peak_step_bytes"]) == (None, None, None)
    assert cost["reasons"]["step_ms"] == "left to a later measurement"
    assert cost["measured_in"] == "no process yet"
    shown = command("show", "points-magnitude_u").out
    assert "training step    5 ms" in shown
    assert "later measurement" not in shown
    frame = harness.read_results("results")
    assert list(frame["cost.step_ms"]) == [5, 5]


def test_a_matrix_that_is_measured_measures_nothing(command: Command, machine: Machine) -> None:
    command("matrix", *WORDS)
    said = command("matrix", *WORDS)
    assert (said.code, said.err, len(machine.measured)) == (0, "", 2)


def test_what_is_missing_is_measured_when_the_matrix_goes_on(
    command: Command, machine: Machine
) -> None:
    machine.error = Interrupted()
    said = command("matrix", *WORDS)
    assert said.code == 1
    assert said.out.endswith("\n  1 network is still to be measured (measure --missing)\n")
    assert said.err.endswith("interrupted: the same command resumes from here\n")
    assert "1 network is still to be measured" in command("status").out
    machine.error = None
    assert command("matrix", *WORDS).code == 0
    assert machine.measured == ["dense", "magnitude_u"]
    assert "measured" not in command("status").out


def test_a_network_that_cannot_be_measured_costs_the_others_nothing(
    command: Command, machine: Machine
) -> None:
    machine.error = RunFailed("no memory")
    said = command("matrix", *WORDS, "--json")
    assert said.code == 1
    assert "command-line: 2 runs: 2 done\n" in said.out
    assert "\n  not measured: points-magnitude_u-0.8-seed0-" in said.out
    assert ": no memory\n" in said.out
    assert json.loads(said.out.splitlines()[-1])["unmeasured"] == 1


def test_networks_are_left_unmeasured_on_request(command: Command, machine: Machine) -> None:
    said = command("matrix", *WORDS, "--measure", "never")
    assert said.code == 0
    assert said.out.endswith("  2 networks are still to be measured (measure --missing)\n")
    assert machine.measured == []
    assert "to continue" not in command("status").out
    assert json.loads(command("status", "--json").out)["matrices"][0]["unmeasured"] == 2
    assert command("measure", "--missing", "--plugin", POINTS, "--device", "cpu").code == 0
    assert command("measure", "--missing", "--plugin", POINTS, "--device", "cpu").code == 0
    assert len(machine.measured) == 2
    assert command("matrix", *WORDS, "--measure", "never").out == (
        "command-line: 2 runs: 2 done\n  2 were already done\n"
    )


def test_networks_are_measured_during_their_runs_on_request(
    command: Command, machine: Machine
) -> None:
    """The fixture of the commands replaces what is measured then."""
    command("matrix", *WORDS, "--measure", "during")
    assert machine.measured == []
    assert set(costs()["dense"]["reasons"].values()) >= {NOT_MEASURED}
    assert "measured_in" not in costs()["dense"]


def test_a_repeated_run_is_measured_before_it_replaces_the_old_one(
    command: Command, machine: Machine
) -> None:
    command("matrix", *WORDS)
    machine.measured.clear()
    machine.error = Interrupted()
    assert command("matrix", *WORDS, "--again").code == 1
    assert len(Store(Path("results", "again")).run_ids()) == 2
    machine.error = None
    assert command("matrix", *WORDS, "--again").code == 0
    assert machine.measured == ["dense", "magnitude_u"]
    store = Store(Path("results"))
    assert [len(measurements(store.folder / run)) for run in store.run_ids()] == [1, 1]
    assert not Path("results", "again").exists()


def test_a_network_is_measured_once_by_processes_that_wait_for_each_other(
    bench: Workbench, machine: Machine
) -> None:
    wanted, store = bench.plan("dense"), Store(bench.folder)
    cpu, stop, lines = torch.device("cpu"), Stop(), list[str]()
    record = run_plan.run_plan(
        wanted, bench.registry, store, cpu, lines.append, stop, measure=exact_costs
    )
    folder = store.folder / wanted.run_id

    def measure() -> object:
        where = (folder, record, bench.registry, cpu)
        return measurement.measure_run(
            *where, (), Path("data"), 0.0, lines.append, stop, missing=True
        )

    assert measure() is not None
    assert measure() is None
    assert machine.measured == ["dense"]


def test_a_request_to_stop_during_the_last_run_leaves_the_networks_for_later(
    command: Command, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("harness.matrix.request.StopRequest", lambda: StopRequest(level=1))
        said = command("matrix", *WORDS)
    assert said.code == 1
    assert "2 networks are still to be measured" in said.out
    assert machine.measured == []
    assert command("matrix", *WORDS).code == 0
    assert machine.measured == ["dense", "magnitude_u"]


def test_a_device_that_is_not_on_this_machine_is_the_reason_for_all_networks() -> None:
    """The runs may have been carried out on a cluster."""
    tally, folders = Tally(2), [Path("a"), Path("b")]
    measure_networks(
        folders, tally, plugins=(), data=Path("data"), device="tpu", threads=None, progress=None
    )
    assert tally.not_measured.keys() == {"a", "b"}
    assert set(tally.not_measured.values()) == {"unknown device 'tpu'; did you mean 'cpu'?"}


class TestWhen:
    def when(self, executor: type, profile: str = "embedded", **request: Any) -> str:
        suite = Suite("mine", "Mine", (), profile, measure=request.pop("suite", None))
        request_ = MatrixRequest(suite, "", **request)
        request_.__dict__["executor_type"] = executor
        return request_.when_measured

    @pytest.mark.parametrize(
        ("executor", "profile", "request_", "when"),
        [
            (Local, "embedded", {}, "end"),
            (Debug, "paper", {}, "end"),
            (object, "embedded", {}, "during"),
            (Local, "smoke", {}, "during"),
            (Local, "smoke", {"suite": "end"}, "during"),
            (Local, "embedded", {"suite": "never"}, "never"),
            (object, "embedded", {"measure": "end"}, "end"),
            (Local, "embedded", {"suite": "never", "measure": "during"}, "during"),
            (Local, "smoke", {"measure": "during"}, "during"),
        ],
    )
    def test_it_depends_on_executor_and_profile_unless_it_is_given(
        self, executor: type, profile: str, request_: dict[str, Any], when: str
    ) -> None:
        assert self.when(executor, profile, **request_) == when

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            (("--measure", "later"), "measure: 'later' is not one of end, during, never"),
            (
                ("--measure", "end", "--profile", "smoke"),
                "measure: 'end' is not for the profile smoke, whose networks are measured during "
                "its runs",
            ),
        ],
    )
    def test_what_is_not_possible_is_refused(
        self, command: Command, words: tuple[str, ...], complaint: str
    ) -> None:
        said = command("matrix", *WORDS, *words)
        assert (said.code, said.err) == (2, f"error: {complaint}\n")
        assert not Path("results").exists()

    def test_the_same_is_refused_in_python_and_in_suites(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        why = "measure: 'later' is not one of end, during, never"
        with pytest.raises(RequestError, match=why):
            harness.run_matrix(tasks="digits", pruners="dense", measure="later")
        assert not Path("results").exists()
        (tmp_path / "mine.toml").write_text('measure = "later"')
        with pytest.raises(RequestError, match=why):
            read_suite(tmp_path / "mine.toml")

    def test_python_leaves_networks_unmeasured_and_says_how_many(
        self, command: Command, machine: Machine
    ) -> None:
        request: dict[str, Any] = {"tasks": "points", "pruners": "dense", "plugins": POINTS}
        ended = harness.run_matrix(**request, measure="never")
        assert (ended["waiting"], ended["unmeasured"]) == (0, 1)
        (manifest,) = manifest_files(Path("results"))
        assert " --measure never" in read_manifest(manifest).command
        assert harness.run_matrix(**request)["unmeasured"] == 0

    def test_a_suite_says_when(self, tmp_path: Path) -> None:
        runs = '[[runs]]\ntasks = ["digits"]\npruners = ["dense"]\n'
        (tmp_path / "mine.toml").write_text(f'measure = "never"\n{runs}')
        assert read_suite(tmp_path / "mine.toml").measure == "never"
