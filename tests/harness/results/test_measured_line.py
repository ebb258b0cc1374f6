"""A measurement in one line."""

from __future__ import annotations

import pytest

from harness.results.summary import measured_line

COST = {
    "step_ms": 20.0,
    "inference_ms": 5.0,
    "by_batch_size": {"1": {"inference_ms": 0.45}},
}


@pytest.mark.parametrize(
    ("further", "end"),
    [
        ({"disturbed": {}}, ""),
        (
            {"disturbed": {"step_ms": 0.3}},
            " (disturbed: waited for a processor during 30 % of the training step)",
        ),
        (
            {"disturbed": {"step_ms": 0.001}, "load": {"step_ms": {"during": 0.2}}},
            " (disturbed: other programs kept 0.2 processors busy)",
        ),
    ],
)
def test_times_are_followed_by_what_disturbed_them(further: dict[str, object], end: str) -> None:
    line = measured_line({**COST, **further}, on_gpu=False)
    assert line == f"step 20 ms, inference 5 ms, single-sample inference 0.45 ms{end}"
