"""A stored network whose task has changed since."""

from __future__ import annotations

from pathlib import Path

import pytest
from workbench import POINTS, Workbench

import harness
from harness.errors import RunFailed
from harness.storage.store import Store


@pytest.mark.parametrize(("pruner", "width"), [("crop_s", 4), ("snip", 6)])
def test_another_network_than_the_stored_one_is_told_in_one_line(
    tmp_path: Path, pruner: str, width: int
) -> None:
    text = POINTS.read_text()
    plugin = tmp_path / "points.py"
    plugin.write_text(text)
    bench = Workbench(tmp_path)
    bench.registry = type(bench.registry)([plugin])
    record = bench.run(pruner)
    folder = Store(tmp_path).folder / record["run_id"]
    harness.load(folder, plugins=[plugin])
    plugin.write_text(f"# Only a comment.\n{text}")
    harness.load(folder, plugins=[plugin])
    plugin.write_text(text.replace("= 6, 10, 2", f"= 6, {width}, 2"))
    with pytest.raises(RunFailed) as refusal:
        harness.load(folder, plugins=[plugin])
    (line,) = str(refusal.value).splitlines()
    assert "the task 'points' builds another network than the stored one: its code has" in line
