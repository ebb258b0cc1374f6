"""What people read of a record."""

from __future__ import annotations

from typing import Any

import pytest

from harness.record import NOTHING_SCORED
from harness.results.summary import summarise, summarise_events, task_title
from harness.text import WIDTH, columns, count, number, percent, several, size, table
from tests.helpers.records import RECORD, record


def test_a_run_in_a_few_lines() -> None:
    assert summarise(RECORD) == "\n".join(
        [
            "digits-earlycrop_u-0.98-seed0-0123456789ab: done",
            "  accuracy         97.25 test, 96.5 validation; higher is better, "
            "a constant prediction scores 10.01",
            "  data             real: scikit-learn digits",
            "  weights removed  98 % of 2,000, 98 % requested; 98.5 % removed or disconnected",
            "  pruned           to 98 % after 1 epoch, when the trigger fired; "
            "gradient flow 2 -> 1.25",
            "  training         4 epochs, 40 steps in 12.5 s, peak memory 50 MB",
            "  scoring          25 passes over a batch in 0.75 s, peak memory 5 MB more",
            "  energy           1.5 Wh, 0.5 g CO2e; measured nvml, the run's GPU",
            "  training step    20 ms, peak memory 25 MB",
            "  inference        5 ms per batch",
            "  at length 20     1.5 ms per batch, peak memory 4 MB, "
            "30,864 multiply-accumulates per sample",
            "  network          2,010 parameters, 8.5 kB on disk",
            "  operations       123,456 multiply-accumulates per sample, "
            "1,234 without masked weights",
            "                   (theoretical; not a speed-up); 98,765,432 in training",
            "  measured on      Abacus 1, 2 threads",
        ]
    )


@pytest.mark.parametrize(
    ("title", "overrides", "shown"),
    [
        ("Digits, ResNet18", {}, "Digits, ResNet18"),
        ("Digits, ResNet18", {"epochs": 3}, "Digits, ResNet18"),
        ("Digits, ResNet18", {"model": "vit"}, "Digits"),
        ("Digits", {"model": "vit"}, "Digits"),
        (None, {}, "digits"),
    ],
)
def test_a_title_names_no_network_that_a_setting_replaces(
    title: str | None, overrides: dict[str, Any], shown: str
) -> None:
    assert task_title(record(task__title=title, spec__overrides=overrides)) == shown


def test_its_course_epoch_by_epoch() -> None:
    assert summarise_events(RECORD) == "\n".join(
        [
            "  epoch  step  loss  validation accuracy  trigger",
            "      1    10   1.5                   80    0.015",
            "           10  the trigger fired",
            "           10  pruned weights to 98 %",
            "      2    20   0.5                   90",
            "      3    30   0.5                   95",
            "      4    40   0.5                 96.5",
        ]
    )


def test_a_course_without_a_trigger_has_no_column_for_it() -> None:
    assert "trigger" not in summarise_events(record(events=RECORD["events"][2:]))


def test_a_course_that_goes_back_counts_what_was_spent() -> None:
    events = [
        {"verb": "snapshot", "position": 10, "spent": 10},
        {"verb": "rewind", "position": 10, "spent": 40},
        {
            "verb": "train",
            "position": 20,
            "spent": 50,
            "ended_by": "cap",
            "epochs": [
                {"position": 20, "spent": 50, "loss": 0.25, "validation": {"accuracy": 97.0}}
            ],
        },
    ]
    assert summarise_events(record(events=events)).splitlines()[1:] == [
        "           10  took a snapshot",
        "           40  rewound to step 10",
        "      5    50  0.25                   97",
        "           50  the cap was reached",
    ]


def test_pruning_before_training_is_called_that() -> None:
    prune = {**RECORD["events"][1], "position": 0, "spent": 0}
    assert "to 98 % before training; gradient" in summarise(record(events=[prune]))


def test_a_run_that_diverged_at_once_is_told() -> None:
    text = summarise(
        record(
            status="diverged",
            reason="the training loss became nan before step 1",
            quality__test=None,
            quality__validation=None,
            cost__steps=0,
            cost__epochs=0.0,
            events=[{**RECORD["events"][1], "position": 0, "spent": 0}],
        )
    )
    assert ": diverged\n  because          the training loss became nan" in text
    assert "accuracy         not tested" in text
    assert "0 epochs, 0 steps" in text


def test_what_is_unusual_is_told() -> None:
    text = summarise(
        record(
            spec__overrides={"width": 8, "masks": "shuffled"},
            sparsity__emptied_layers=["second.weight"],
            provenance__resumed=[{}],
            provenance__threads=1,
            data__source="synthetic",
        )
    )
    assert "settings         width=8, masks=shuffled" in text
    assert "empty layers: second.weight" in " ".join(text.split())
    assert "interrupted      1 time; costs cover all attempts" in text
    assert text.endswith("Abacus 1, 1 thread")
    assert "data             SYNTHETIC: " in text


def test_what_was_not_measured_has_a_dash_and_a_reason() -> None:
    killed = "the measuring process was killed"
    text = summarise(
        record(
            cost__energy_kwh=None,
            cost__emissions_g=None,
            cost__step_ms=None,
            cost__macs=None,
            cost__reasons={
                "energy_kwh": "no counter",
                "emissions_g": "no counter",
                "step_ms": killed,
                "macs": killed,
            },
        )
    )
    assert "training step    -, peak memory 25 MB" in text
    assert "not measured     energy, emissions: no counter" in text
    assert f"not measured     training step, multiply-accumulates carried out: {killed}" in text


def test_figures_that_were_disturbed_are_named() -> None:
    text = summarise(
        record(
            cost__disturbed={"step_ms": 0.314, "energy_kwh": 0.67, "train_seconds": 0.06},
            cost__load={
                "step_ms": {"before": 0.1, "during": 3.25},
                "train_seconds": {"before": None, "during": None},
            },
        )
    )
    assert (
        "disturbed waited for a processor during 31 % of the training step; "
        "waited for a processor during 6 % of the training time; "
        "other programs kept 3.25 processors busy; "
        "67 % of the energy may belong to other programs"
    ) in " ".join(text.split())


def test_other_programs_that_left_enough_processors_are_named_without_a_share() -> None:
    text = summarise(
        record(
            cost__disturbed={"step_ms": 0.001, "inference_ms": 0.02},
            cost__load={"step_ms": {"during": 0.2}, "inference_ms": {"during": 0.5}},
        )
    )
    assert "  disturbed        other programs kept 0.5 processors busy\n" in text
    assert "waited" not in text


def test_what_disturbed_the_inference_of_shorter_sequences_is_said() -> None:
    text = summarise(record(cost__disturbed={"by_length": 0.12}))
    assert "waited for a processor during 12 % of the inference of shorter sequences" in " ".join(
        text.split()
    )


def test_a_length_says_what_is_known_of_it() -> None:
    refused = "no inference of sequences of length 5: 5 words have no middle"
    text = summarise(
        record(
            cost__by_length={"3": {"macs": 1200}, "10": {"inference_ms": 2.5}},
            cost__reasons={"by_length": refused},
        )
    )
    assert "  at length 3      1,200 multiply-accumulates per sample\n" in text
    assert "  at length 10     2.5 ms per batch\n" in text
    assert f"not measured inference of shorter sequences: {refused}" in " ".join(text.split())


def test_a_record_without_lengths_says_nothing_of_them() -> None:
    cost = {key: value for key, value in RECORD["cost"].items() if key != "by_length"}
    assert "length" not in summarise(record(cost=cost))


def test_other_programs_on_a_gpu_are_told_from_those_on_the_processor() -> None:
    again = {**RECORD["provenance"], "device_kind": "cuda"}
    text = summarise(record(cost__disturbed={"step_ms": 0.8}, provenance__measured_on=again))
    assert "  disturbed        other programs used the GPU for 80 % of the time\n" in text


def test_nothing_is_said_of_figures_that_were_not_disturbed() -> None:
    assert "disturbed" not in summarise(record(cost__disturbed={}))
    assert "disturbed" not in summarise(RECORD)


def test_what_has_no_name_in_the_summary_is_not_said_to_be_missing() -> None:
    assert "not measured" not in summarise(record(cost__reasons={"step_cpu_ms": "on a GPU"}))


def test_no_line_is_longer_than_the_width() -> None:
    long = record(
        data__name="a text " * 30,
        sparsity__emptied_layers=[f"layers.{number}.weight" for number in range(20)],
        spec__overrides={f"setting_{number}": number for number in range(20)},
    )
    lines = f"{summarise(long)}\n{summarise_events(long)}".splitlines()
    assert max(map(len, lines)) <= WIDTH


class TestFigures:
    def test_numbers_have_four_digits(self) -> None:
        assert [number(x) for x in (None, 1 / 3, 12345.6, 0.0)] == ["-", "0.3333", "1.235e+04", "0"]

    def test_fractions_in_percent_are_as_long_as_they_need_to_be(self) -> None:
        assert [percent(x) for x in (0.98, 0.9799954, 0.0)] == ["98 %", "97.9995 %", "0 %"]

    def test_bytes_have_units(self) -> None:
        sizes = [size(x) for x in (None, 0, 999, 1000, 12_345_678, 5_000_000_000)]
        assert sizes == ["-", "0 B", "999 B", "1 kB", "12.3 MB", "5 GB"]

    def test_counts_have_separators(self) -> None:
        assert [count(x) for x in (None, 12, 1_234_567)] == ["-", "12", "1,234,567"]

    @pytest.mark.parametrize(
        ("amount", "text"), [(0, "0 epochs"), (1, "1 epoch"), (1.5, "1.5 epochs"), (2, "2 epochs")]
    )
    def test_one_is_singular(self, amount: float, text: str) -> None:
        assert several(amount, "epoch") == text


class TestTables:
    def test_columns_are_aligned_to_the_right_but_for_the_first(self) -> None:
        rows = [("", "A", "B"), ("name", "1", "22"), ("n", "333", "")]
        assert table(rows, left=1) == "          A   B\n  name    1  22\n  n     333"

    def test_a_short_row_ends_in_text(self) -> None:
        assert table([("a", "b", "c"), ("1", "some text")]) == "  a  b  c\n  1  some text"

    def test_the_last_of_columns_is_wrapped(self) -> None:
        text = columns([("a", "word " * 30), ("bcd", "word")])
        first, second, third = text.splitlines()
        assert first.startswith("  a    word word")
        assert second.startswith("       word")
        assert third == "  bcd  word"
        assert len(first) <= WIDTH


def test_a_network_that_was_cut_is_held_against_the_dense_one() -> None:
    cost = {**RECORD["cost"], "macs": 2_500, "macs_effective": 2_500, "macs_dense": 10_000}
    text = " ".join(summarise(record(cost=cost)).split())
    assert "operations 2,500 multiply-accumulates per sample, 25 % of the dense network's" in text
    assert "speed-up" not in text


def test_masked_weights_are_no_speed_up() -> None:
    cost = {**RECORD["cost"], "macs_dense": RECORD["cost"]["macs"]}
    text = " ".join(summarise(record(cost=cost)).split())
    assert "123,456 multiply-accumulates per sample, 1,234 without masked weights" in text


def test_what_was_reached_is_told_and_the_target_where_it_differs() -> None:
    prune = {
        "verb": "prune",
        "position": 0,
        "spent": 0,
        "units": "channels",
        "target": 0.5,
        "sparsity": 0.503055,
        "gradient_flow": {"before": 1.0, "after": 0.5},
    }
    text = summarise(record(events=[prune]))
    assert "to 50.3055 % (target: 50 %) before training; gradient" in text
    assert "pruned channels to 50.3055 % (target: 50 %)" in summarise_events(record(events=[prune]))
    by_operations = {**prune, "target_of": "multiply-accumulates", "sparsity": 0.84}
    text = " ".join(summarise(record(events=[by_operations])).split())
    assert "to 84 % of the weights, to remove 50 % of the multiply-accumulates before tr" in text


def test_a_method_of_which_no_sparsity_was_asked() -> None:
    text = summarise(record(sparsity={**RECORD["sparsity"], "requested": 0.0}))
    assert "no sparsity requested" in text
    from_pattern = {**RECORD["sparsity"], "requested": 0.98, "pattern": "1:50"}
    assert "98 % of 2,000, from the pattern 1:50; " in summarise(record(sparsity=from_pattern))


def test_a_budget_is_told_with_what_was_reached() -> None:
    budget = {"kind": "bytes", "asked": 0.25, "reached": 0.24, "dense": 2_000_000}
    text = summarise(
        record(
            spec={**RECORD["spec"], "sparsity": 0.0, "budget": "bytes=500kB"},
            sparsity={**RECORD["sparsity"], "requested": 0.0, "budget": budget},
        )
    )
    assert "bytes=500kB: 480kB, 24 % of the dense network's 2MB; 25 % permitted" in text
    assert "for 25 % of the dense network's bytes" in text
    assert "no sparsity requested" not in text


def test_the_receipt_of_a_pruning_is_among_the_events() -> None:
    prune = {
        "verb": "prune",
        "position": 0,
        "spent": 0,
        "units": "channels",
        "target": 0.5,
        "sparsity": 0.5,
        "receipt": {
            "asked": 0.5,
            "reached": 0.5,
            "weights": [2000, 1000],
            "macs": [40_000, 10_000],
            "whole": {"no score": [f"group{number}" for number in range(7)]},
            "pinned": {"it reaches the model's output": ["head"]},
            "bottlenecks": {"first": [1, 64]},
            "kinds": {"attention heads": [3, 8], "head width": [16, 32]},
        },
    }
    text = summarise_events(record(events=[prune]))
    assert "removed 1,000 of 2,000 weights and 30,000 of 40,000 multiply-accumulates" in text
    assert "group3, group4 and 2 more (no score); head (it reaches the model's output)" in text
    assert "bottlenecks: first (1 of 64)" in text
    assert "left: 3 of 8 attention heads, 16 of 32 head width" in text


def test_what_is_not_scored_is_not_called_unmeasured() -> None:
    names = ("scoring_seconds", "scoring_passes", "peak_scoring_bytes")
    nothing = {f"cost__{name}": None for name in names}
    text = summarise(record(**nothing, cost__reasons=dict.fromkeys(names, NOTHING_SCORED)))
    assert "scor" not in text.replace("scores 10.01", "")
    assert "not measured" not in text


KERNELS = {
    "layers": ["first"],
    "dense": {"sparse takes 3.00 times as long": ["second"]},
    "passes": 0.43,
    "contiguous": False,
    "steps": False,
    "step": 1.5,
}
SPARSE_EVENTS = [
    RECORD["events"][0],
    {**RECORD["events"][1], "sparse_kernels": KERNELS},
    RECORD["events"][2],
]
LINE = (
    "in 1 of 2 masked layers (first), both passes take 0.43 of the dense time, optimizer steps "
    "stay dense (sparse ones would take 1.5 of the time, slower than dense)"
)


def joined(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


def test_the_layers_on_sparse_kernels_are_told_with_the_pruning() -> None:
    assert f"sparse kernels: {LINE}" in summarise_events(record(events=SPARSE_EVENTS))


def test_a_run_with_sparse_kernels_says_which_are_used_at_the_end() -> None:
    text = summarise(
        record(
            events=SPARSE_EVENTS,
            sparsity__sparse_kernels={"first": 1},
            cost__step_sparse_ms=25.0,
            cost__inference_sparse_ms=2.0,
        )
    )
    assert (
        "sparse kernels in 1 of 2 masked layers at the end, since the pruning after 1 epoch"
        in joined(text)
    )
    assert "20 ms, 25 ms with sparse kernels (slower than dense), peak memory" in text
    assert "5 ms per batch, 2 ms with sparse kernels\n" in text


@pytest.mark.parametrize(
    ("kernels", "line"),
    [
        ({**KERNELS, "step": None}, "none, since no weights are masked"),
        (
            {**KERNELS, "layers": [], "passes": 0.97, "step": 0.4, "steps": True},
            "in 0 of 1 masked layer, both passes stay dense (sparse ones would take 0.97 of the "
            "time, hardly faster than dense), optimizer steps take 0.4 of the dense time",
        ),
    ],
)
def test_where_nothing_is_sparse_it_says_why(kernels: dict[str, object], line: str) -> None:
    events = [{**RECORD["events"][1], "sparse_kernels": kernels}]
    text = summarise(record(events=events, sparsity__sparse_kernels={}))
    assert f"sparse kernels {line}" in joined(text)
    assert f"sparse kernels: {line}" in summarise_events(record(events=events))


def test_without_a_pruning_nothing_is_sparse() -> None:
    text = summarise(record(events=[], sparsity__sparse_kernels={}))
    assert "sparse kernels   none, since nothing was pruned" in text
