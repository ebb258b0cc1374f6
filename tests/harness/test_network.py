"""Loading the networks of finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import harness
from harness.errors import RequestError, RunFailed
from harness.network import FIRST_UNITS, load_network, save_network
from harness.record import Record
from harness.storage.files import save_state
from harness.storage.network_file import load_weights
from harness.storage.store import RECORD, WEIGHTS
from pruners.channels.units import Channels
from pruners.criteria import snip
from pruners.weights import Weights
from tests.helpers.first_format import write_first_format
from tests.helpers.workbench import CPU, POINTS, Workbench


def folder_of(bench: Workbench, record: Record) -> Path:
    return bench.folder / str(record["run_id"])


def refusal(folder: Path) -> str:
    with pytest.raises((RequestError, RunFailed)) as refused:
        harness.load(folder, plugins=[POINTS])
    (line,) = str(refused.value).splitlines()
    return line


def rewrite_in_first_format(folder: Path, units: dict[str, Any]) -> None:
    """Rewrite the weights in the first format, with the units in a file of their own."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        layout = json.loads(file.metadata()["network"])["layout"]
        stored = {name: file.get_tensor(name) for name in set(file.keys()) - {":units"}}
    del layout["units"]
    write_first_format(folder / WEIGHTS, layout, stored)
    save_state(folder / FIRST_UNITS, units)


@pytest.mark.parametrize("pruner", ["crop_u", "crop_s"])
def test_a_network_needs_only_its_record_and_one_file(bench: Workbench, pruner: str) -> None:
    folder = folder_of(bench, bench.run(pruner, sparsity=0.5))
    for path in folder.iterdir():
        if path.name not in (RECORD, WEIGHTS):
            path.unlink()
    network = harness.load(folder, plugins=[POINTS]).state_dict()
    for name, weight in load_weights(folder / WEIGHTS).items():
        assert torch.equal(network[name], weight)


@pytest.mark.parametrize("kind", [Weights, Channels])
def test_loaded_units_have_the_state_that_was_saved(
    bench: Workbench, tmp_path: Path, kind: type[Weights | Channels]
) -> None:
    begun = bench.begin(sparsity=0.5)
    begun.run.prune(kind, snip, 0.5)
    save_network(tmp_path, begun.trainer.model, begun.trainer.units)
    loaded = load_network(tmp_path, bench.plan("crop_u"), bench.registry, CPU)
    (name,) = begun.trainer.units
    kept, again = begun.trainer.units[name].state(), loaded.units[name].state()
    assert list(kept) == list(again)
    assert all(torch.equal(kept[part], again[part]) for part in kept)


@pytest.mark.parametrize("pruner", ["crop_u", "crop_s"])
def test_a_network_of_an_earlier_version_is_loaded(bench: Workbench, pruner: str) -> None:
    record = bench.run(pruner, sparsity=0.5)
    folder = folder_of(bench, record)
    before = harness.load(folder, plugins=[POINTS]).state_dict()
    network = load_network(folder, bench.plan(pruner, sparsity=0.5), bench.registry, CPU)
    units = {name: each.state() for name, each in network.units.items()}
    rewrite_in_first_format(folder, units)
    after = harness.load(folder, plugins=[POINTS]).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before | after)
    (folder / FIRST_UNITS).unlink()
    assert refusal(folder).endswith("units.pt is missing or damaged; remove the run to do it again")


@pytest.mark.parametrize("pruner", ["crop_u", "crop_s"])
def test_a_network_of_another_size_than_its_task_builds_is_refused(
    bench: Workbench, pruner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench.run(pruner, sparsity=0.5)
    monkeypatch.setitem(bench.points.model.__globals__, "HIDDEN", 12)
    assert refusal(folder_of(bench, record)) == (
        f"{record['run_id']}: the task 'points' builds another network than the stored one: its "
        "code has changed since; load it with the code of that time"
    )


def test_a_network_with_another_buffer_is_refused(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench.run("crop_u")
    build = bench.points.model

    def with_a_buffer(task: Any) -> torch.nn.Module:
        model = build(task)
        model.register_buffer("scale", torch.ones(3))
        return model

    monkeypatch.setattr(bench.points, "model", with_a_buffer)
    assert refusal(folder_of(bench, record)) == (
        f"{record['run_id']} is another network: its 'scale' is missing, and here 3"
    )


@pytest.mark.parametrize(("pruner", "width"), [("crop_s", 4), ("snip", 6)])
def test_a_network_whose_task_has_changed_is_refused_and_a_comment_is_no_change(
    tmp_path: Path, pruner: str, width: int
) -> None:
    source = POINTS.read_text()
    plugin = tmp_path / "points.py"
    plugin.write_text(source)
    bench = Workbench(tmp_path, points=plugin)
    folder = folder_of(bench, bench.run(pruner))
    for unchanged in (source, f"# Only a comment.\n{source}"):
        plugin.write_text(unchanged)
        harness.load(folder, plugins=[plugin])
    plugin.write_text(source.replace("= 6, 10, 2", f"= 6, {width}, 2"))
    with pytest.raises(RunFailed) as refused:
        harness.load(folder, plugins=[plugin])
    (line,) = str(refused.value).splitlines()
    assert "the task 'points' builds another network than the stored one: its code has" in line
