"""The task of a table: how columns become inputs, what is predicted, what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from harness.errors import RequestError
from harness.network import build_task
from harness.registry import Registry
from harness.spec import Plan, plan
from tasks.tabular.task import Tabular

ROWS = 40


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pandas.DataFrame:
    monkeypatch.chdir(tmp_path)
    length = np.arange(ROWS, dtype=float)
    frame = pandas.DataFrame(
        {
            "length": length,
            "colour": np.where(length % 4 == 0, "red", "green"),
            "same": 1,
            "kind": np.where(length < 20, "short", "long"),
            "price": 3 * length + 2,
        }
    )
    frame.to_csv("wares.csv", index=False)
    return frame


def planned(**settings: str) -> Plan:
    overrides = {"table": "wares.csv", "target": "kind", **settings}
    return plan(Registry(), "tabular", "dense", profile="smoke", overrides=overrides)


def build(**settings: str) -> Tabular:
    task = build_task(planned(**settings), torch.device("cpu"))
    assert isinstance(task, Tabular)
    return task


class Constant(nn.Module):
    def __init__(self, *outputs: float) -> None:
        super().__init__()
        self.outputs = torch.tensor(outputs)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.outputs.expand(len(rows), -1)


def test_a_table_without_a_file_is_generated() -> None:
    wanted = plan(Registry(), "tabular", "dense", profile="smoke")
    assert (wanted.data.source, wanted.data.name) == ("synthetic", "a generated table")


def test_what_is_predicted_follows_from_the_column_and_is_said() -> None:
    assert planned().data.name == (
        "table wares.csv: kind as classes from 4 columns (40 rows; split by row with seed 0)"
    )
    assert "price as a number" in planned(target="price").data.name
    assert planned(target="price").run_id != planned().run_id


def test_columns_become_normalised_numbers_and_categories() -> None:
    task = build()
    inputs, classes = task._batch(torch.arange(28))
    assert task.classes == ["long", "short"]
    # length, two colours, price; the constant column is no input.
    assert inputs.shape == (28, 4)
    assert inputs[:, 0].mean().item() == pytest.approx(0, abs=1e-6)
    assert inputs[:, 0].std(correction=0).item() == pytest.approx(1, rel=1e-6)
    assert torch.equal(inputs[:, 1] + inputs[:, 2], torch.ones(28))
    assert set(classes.tolist()) == {0, 1}


def test_a_missing_number_is_the_mean(table: pandas.DataFrame) -> None:
    table["length"] = table["length"].where(table.index % 2 == 0)
    table.to_csv("wares.csv", index=False)
    inputs, _ = build()._batch(torch.arange(28))
    assert bool((inputs[:, 0] == 0).any())
    assert bool(inputs.isfinite().all())


def test_the_score_of_classes_is_the_accuracy() -> None:
    task = build()
    share = 100 * (task._targets[task._rows["test"]] == 1).double().mean().item()
    assert task.evaluate(Constant(0.0, 1.0), "test")["score"] == pytest.approx(share)


def test_the_score_of_numbers_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import r2_score

    task = build(target="price")
    test = task._targets[task._rows["test"]]
    mean, deviation = task._mean, task._deviation
    metrics = task.evaluate(Constant(0.5), "test")
    predicted = np.full(len(test), mean + 0.5 * deviation)
    assert metrics["score"] == pytest.approx(100 * r2_score(test, predicted), rel=1e-4)
    assert task.baseline() == pytest.approx(100 * r2_score(test, np.full(len(test), mean)), 1e-4)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"table": "nowhere.csv"}, "table=nowhere.csv is not a file, here or in data"),
        ({"table": "wares.txt"}, r"wares\.txt ends in neither \.csv nor \.parquet"),
        ({"target": "kinds"}, "no column 'kinds'; did you mean 'kind'"),
        ({"target": "same"}, "has one value only, 1: there is nothing to predict"),
        ({"predict": "number"}, "predict=number: the column 'kind' has other values than numbers"),
        ({"target": "price", "predict": "class"}, "has 40 classes in 40 rows"),
    ],
)
def test_a_wrong_request_is_refused(settings: dict[str, str], complaint: str) -> None:
    Path("wares.txt").write_text("kind\n")
    with pytest.raises(RequestError, match=complaint):
        planned(**settings)


def test_a_damaged_table_is_refused() -> None:
    Path("wares.csv").write_bytes(b"kind\n\xff\xfe\n")
    with pytest.raises(RequestError, match=r"wares\.csv is damaged: "):
        planned()


def test_parquet_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("wares.parquet").write_bytes(b"PAR1")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "pyarrow" else find(name)
    )
    with pytest.raises(RequestError, match="pyarrow is not installed; pip install"):
        planned(table="wares.parquet")
