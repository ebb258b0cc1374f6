"""The settings of tables. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from harness.settings import Interval, Recipe


@dataclass(frozen=True, kw_only=True)
class TableSettings(Recipe):
    """What can be set for a table."""

    table: Annotated[
        str, "generated (a table that is made here), or a file that ends in .csv or .parquet"
    ] = "generated"
    target: Annotated[str, "column that is predicted from the others"] = "target"
    predict: Annotated[
        Literal["auto", "class", "number"],
        "what the target is; auto: a number if its column has more than 20 different numbers",
    ] = "auto"
    split_seed: Annotated[int, "seed by which rows are divided among the three parts"] = 0
    hidden: Annotated[int, "units in each hidden layer"] = 64
    layers: Annotated[int, "hidden layers"] = 2
    dropout: Annotated[
        float, "probability of dropping a hidden unit in training", Interval("[0, 1)")
    ] = 0.0
    generated_rows: Annotated[int, "rows of table=generated"] = 2000


TABLE = TableSettings(
    epochs=30,
    batch_size=64,
    optimiser="adam",
    learning_rate=2e-3,
    weight_decay=1e-4,
    clip=10.0,
)

PROFILES = {
    "smoke": replace(TABLE, epochs=2, hidden=16, generated_rows=300),
    "embedded": TABLE,
}
