"""A user's table as the inputs and targets of a network, or a generated table without one."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from harness.data.description import DataDescription, located
from harness.errors import RequestError, nearest
from tasks.tabular.settings import TableSettings

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Part = Literal["train", "validation", "test"]
Kind = Literal["class", "number"]

SHARES: Mapping[Part, float] = {"test": 0.2, "validation": 0.1}
"""Of the rows; the others are for training."""

LEAST_ROWS = 10

MOST_CLASSES = 20
"""With predict=auto, a column with more different numbers is one of numbers."""

MOST_CATEGORIES = 50
"""Inputs that a column of texts becomes, at most: one for each of its most frequent values."""

VERSION = 1
"""Increased when the generated table or the preparation of columns changes."""


@dataclass(frozen=True)
class Table:
    """A table, prepared for a network."""

    inputs: npt.NDArray[np.float32]
    """(rows, inputs): normalised numbers, and a one for the category of each text."""
    targets: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    """(rows,): classes, or numbers as they are in the table."""
    classes: Sequence[str]
    """Their names; empty if numbers are predicted."""
    rows: Mapping[Part, npt.NDArray[np.int64]]
    """The rows of each part."""


def describe(profile: str, settings: TableSettings, data_folder: Path) -> DataDescription:
    """Describe the table; what is predicted and how rows are divided belongs to it.

    Raises:
        RequestError: the table or its column is missing, or cannot be predicted.
    """
    frame = _frame(settings, data_folder)
    kind = _kind(frame, settings)
    division = f"split by row with seed {settings.split_seed}"
    what = "as classes" if kind == "class" else "as a number"
    text = f"{VERSION} {settings.target} {what} {division} "
    if settings.table == "generated":
        fingerprint = hashlib.sha256(f"{text} generated {settings.generated_rows}".encode())
        return DataDescription("synthetic", "a generated table", fingerprint.hexdigest())
    path = _file(settings, data_folder)
    fingerprint = hashlib.sha256(text.encode())
    fingerprint.update(hashlib.sha256(path.read_bytes()).digest())
    return DataDescription(
        "real",
        f"table {path.resolve().name}: {settings.target} {what} from {frame.shape[1] - 1} columns "
        f"({len(frame)} rows; {division})",
        fingerprint.hexdigest(),
    )


def read(settings: TableSettings, data_folder: Path) -> Table:
    """Return the table that the setting ``table`` names.

    Columns of numbers are normalised by the training rows; a missing number becomes their mean.
    Other columns become an input for each of their `MOST_CATEGORIES` most frequent values in the
    training rows; a missing or rare value has zeros.

    Raises:
        RequestError: as for `describe`, or the table has too few rows or no other columns.
    """
    frame = _frame(settings, data_folder)
    kind, target = _kind(frame, settings), frame[settings.target]
    order = np.random.default_rng(settings.split_seed).permutation(len(frame))
    rows: dict[Part, npt.NDArray[np.int64]] = {}
    for part, share in SHARES.items():
        count = int(share * len(frame))
        rows[part], order = np.sort(order[:count]), order[count:]
    rows["train"] = np.sort(order)
    columns = [
        column
        for name in frame.columns
        if name != settings.target
        for column in _inputs(frame[name], rows["train"])
    ]
    if not columns:
        raise RequestError(
            f"tabular: table={settings.table} has no column besides {settings.target!r} "
            "whose values differ"
        )
    inputs = np.stack(columns, axis=1).astype(np.float32)
    if kind == "number":
        return Table(inputs, target.to_numpy(np.float32), (), rows)
    labels = target.astype(str)
    classes = sorted(labels.unique())
    numbers = labels.map({name: number for number, name in enumerate(classes)})
    return Table(inputs, numbers.to_numpy(np.int64), classes, rows)


def _file(settings: TableSettings, data_folder: Path) -> Path:
    path = located(settings.table, data_folder)
    if path is None or not path.is_file():
        raise RequestError(
            f"tabular: table={settings.table} is not a file, here or in {data_folder}"
            f"{nearest(settings.table, ['generated'])}"
        )
    return path


def _frame(settings: TableSettings, data_folder: Path) -> DataFrame:
    import pandas

    if settings.table == "generated":
        frame = _generated(settings.generated_rows)
    else:
        path = _file(settings, data_folder)
        read = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}.get(path.suffix.lower())
        if read is None:
            raise RequestError(f"tabular: table={settings.table} ends in neither .csv nor .parquet")
        if path.suffix.lower() == ".parquet" and not importlib.util.find_spec("pyarrow"):
            raise RequestError(
                f"tabular: table={settings.table}: pyarrow is not installed; "
                "pip install 'pruning-benchmark[parquet]' installs it"
            )
        try:
            frame = read(path)
        except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
            reason = " ".join(str(error).split())
            raise RequestError(f"tabular: {path} is damaged: {reason}") from None
    frame.columns = frame.columns.astype(str)
    if settings.target not in frame.columns:
        raise RequestError(
            f"tabular: the table has no column {settings.target!r}"
            f"{nearest(settings.target, frame.columns)}; --set target=COLUMN names it"
        )
    if len(frame) < LEAST_ROWS:
        raise RequestError(
            f"tabular: the table has too few rows, {len(frame)}; at least {LEAST_ROWS} are needed"
        )
    if missing := int(frame[settings.target].isna().sum()):
        raise RequestError(
            f"tabular: the column {settings.target!r} has {missing} rows without a value"
        )
    return frame


def _kind(frame: DataFrame, settings: TableSettings) -> Kind:
    """Return what is predicted.

    Raises:
        RequestError: the column cannot be predicted in that way.
    """
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    target = frame[settings.target]
    different = int(target.nunique())
    is_number = is_numeric_dtype(target) and not is_bool_dtype(target)
    kind: Kind = "class"
    if settings.predict == "number" or (
        settings.predict == "auto" and is_number and different > MOST_CLASSES
    ):
        kind = "number"
    if kind == "number" and not is_number:
        raise RequestError(
            f"tabular: predict=number: the column {settings.target!r} has other values than numbers"
        )
    if different < 2:
        raise RequestError(
            f"tabular: the column {settings.target!r} has one value only, "
            f"{target.iloc[0]}: there is nothing to predict"
        )
    if kind == "class" and 2 * different > len(frame):
        raise RequestError(
            f"tabular: the column {settings.target!r} has {different} classes in {len(frame)} "
            "rows: too many to learn"
        )
    return kind


def _inputs(column: Series, train: npt.NDArray[np.int64]) -> list[npt.NDArray[np.float64]]:
    """Return the inputs (rows,) that a column becomes; none for one that is constant."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if is_numeric_dtype(column) and not is_bool_dtype(column):
        values = column.to_numpy(np.float64, na_value=np.nan)
        known = values[train][np.isfinite(values[train])]
        if not len(known) or known.std() == 0:
            return []
        normalised = (values - known.mean()) / known.std()
        return [np.where(np.isfinite(normalised), normalised, 0.0)]
    counts = column.iloc[train].value_counts()
    if len(counts) < 2:
        return []
    frequent = sorted(counts.index, key=lambda value: (-counts[value], str(value)))
    return [
        (column == value).fillna(False).to_numpy(np.float64) for value in frequent[:MOST_CATEGORIES]
    ]


def _generated(rows: int) -> DataFrame:
    """Return a table of five numbers and a colour, of which three decide among three classes."""
    import pandas

    random = np.random.Generator(np.random.PCG64(0))
    numbers = random.standard_normal((rows, 5))
    colours = random.integers(0, 3, rows)
    score = numbers[:, 0] * numbers[:, 1] + numbers[:, 2] + 0.8 * (colours - 1)
    score += 0.2 * random.standard_normal(rows)
    classes = np.digitize(score, [-0.7, 0.7])
    columns: dict[str, Any] = {f"number_{place}": numbers[:, place] for place in range(5)}
    columns["colour"] = np.array(["red", "green", "blue"])[colours]
    columns["target"] = np.array(["low", "middle", "high"])[classes]
    return pandas.DataFrame(columns)
