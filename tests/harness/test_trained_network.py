"""Runs that start from the dense network of another run, or learn from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import harness
from harness.errors import RequestError
from harness.pruning.event import digest
from harness.record import Record
from harness.spec import plan
from harness.storage.network_file import load_weights, save_weights
from harness.storage.store import RECORD, WEIGHTS
from tests.helpers.workbench import POINTS, Workbench


@pytest.fixture
def dense(bench: Workbench) -> Any:
    """A finished dense run."""
    return bench.run("dense")


def folder_of(bench: Workbench, record: Record) -> Path:
    return bench.folder / str(record["run_id"])


ROLES = pytest.mark.parametrize("role", ["start", "teacher"])


def identity(bench: Workbench, name: str, role: str = "start") -> str:
    wanted = plan(
        bench.registry,
        "points",
        "crop_u",
        profile="smoke",
        overrides={role: name},
        results=bench.folder,
    )
    return wanted.identity


def refusal(bench: Workbench, name: str, role: str = "start") -> str:
    with pytest.raises(RequestError) as refused:
        identity(bench, name, role)
    (line,) = str(refused.value).splitlines()
    return line


def run_with(bench: Workbench, role: str, folder: Path) -> None:
    """Start a run that begins or learns from the network in a folder."""
    overrides: dict[str, Any] = {role: str(folder)}
    bench.run("crop_u", **overrides)


def edit(folder: Path, **changes: Any) -> None:
    """Change the record of a finished run."""
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(record | changes))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_starts_with_the_weights_of_another(
    bench: Workbench, dense: Record, seed: int
) -> None:
    folder = folder_of(bench, dense)
    record = bench.run("crop_u", seed=seed, start=str(folder))
    begun_with = record["provenance"]["initial_weights_sha256"]
    assert begun_with == digest(harness.load(folder, plugins=[POINTS]).state_dict())
    assert begun_with != dense["provenance"]["initial_weights_sha256"]


def test_the_record_names_the_run_that_it_started_from(bench: Workbench, dense: Record) -> None:
    record = bench.run("crop_u", start=str(folder_of(bench, dense)))
    assert record["start"]["run"] == dense["run_id"]
    assert len(record["start"]["sha256"]) == 64
    assert record["spec"]["overrides"] == {"start": dense["run_id"]}
    assert record["settings"]["start"] == dense["run_id"]
    assert dense["start"] is None
    assert str(bench.folder) not in json.dumps(record)


@ROLES
def test_the_weights_decide_the_identity_and_the_name_does_not(
    bench: Workbench, dense: Record, tmp_path: Path, role: str
) -> None:
    folder = folder_of(bench, dense)
    names = [str(folder), folder.name, "points-dense", str(dense["run_id"])[-12:]]
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    (before,) = {identity(bench, name, role) for name in [*names, str(copy)]}
    weights = load_weights(copy / WEIGHTS)
    weights["0.bias"] += 1
    save_weights(copy / WEIGHTS, weights, {})
    assert identity(bench, str(copy), role) != before


def test_a_finished_network_does_not_need_the_run_that_it_started_from(
    bench: Workbench, dense: Record
) -> None:
    record = bench.run("crop_u", start=str(folder_of(bench, dense)))
    shutil.rmtree(folder_of(bench, dense))
    network = harness.load(folder_of(bench, record), plugins=[POINTS])
    weights = load_weights(folder_of(bench, record) / WEIGHTS)
    assert all(torch.equal(network.state_dict()[name], weights[name]) for name in weights)


@ROLES
def test_a_run_that_is_missing_is_refused(bench: Workbench, dense: Record, role: str) -> None:
    complaint = refusal(bench, "points-dnse", role)
    assert complaint.startswith(f"{role}=points-dnse: results folder")
    assert f"did you mean {dense['run_id']!r}" in complaint


@ROLES
def test_a_network_that_is_missing_is_refused(bench: Workbench, dense: Record, role: str) -> None:
    (folder_of(bench, dense) / WEIGHTS).unlink()
    assert refusal(bench, "points-dense", role) == (
        f"{role}=points-dense: cannot read {WEIGHTS}: No such file or directory"
    )


@ROLES
def test_a_network_that_is_damaged_is_refused(bench: Workbench, dense: Record, role: str) -> None:
    weights = folder_of(bench, dense) / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RequestError, match=f"^{role}=points.* is not a weights file, or is damage"):
        run_with(bench, role, weights.parent)


@ROLES
def test_a_pruned_network_is_refused(bench: Workbench, role: str) -> None:
    bench.run("crop_u")
    complaint = refusal(bench, "points-crop_u", role)
    assert "80 % of its weights are gone; a run " in complaint


@ROLES
def test_a_run_that_diverged_is_refused(bench: Workbench, dense: Record, role: str) -> None:
    edit(folder_of(bench, dense), status="diverged", reason="the training loss became nan")
    assert refusal(bench, "points-dense", role) == (
        f"{role}=points-dense has diverged: the training loss became nan"
    )


@ROLES
def test_a_run_of_another_task_is_refused(bench: Workbench, dense: Record, role: str) -> None:
    edit(folder_of(bench, dense), spec={**dense["spec"], "task": "ptb"})
    complaint = refusal(bench, "points-dense", role)
    assert complaint == f"{role}=points-dense is of the task 'ptb' and not of 'points'"


@ROLES
@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("0.weight", torch.zeros(3, 6), "its '0.weight' is 3x6, and here 10x6"),
        ("0.weight", None, "its '0.weight' is missing, and here 10x6"),
        ("9.weight", torch.zeros(2), "its '9.weight' is 2, and here missing"),
    ],
)
def test_another_network_is_refused(
    bench: Workbench,
    dense: Record,
    role: str,
    name: str,
    value: torch.Tensor | None,
    complaint: str,
) -> None:
    folder = folder_of(bench, dense)
    weights = {**load_weights(folder / WEIGHTS), name: value}
    save_weights(folder / WEIGHTS, {k: v for k, v in weights.items() if v is not None}, {})
    with pytest.raises(RequestError, match=f"^{role}=points.* is another network: {complaint}$"):
        run_with(bench, role, folder)
