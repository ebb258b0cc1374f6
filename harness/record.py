"""The record of a run: its one type, from which it is checked, read, written and documented.

A record is a JSON object. In Python it is the same object, a dictionary with the types below, so
keys that this version does not know are kept: those of a later version, further metrics of a task,
events of custom operations. The annotations give the meaning and the unit of a key, and whether it
depends on the device; `fields` returns them. Lists of costs are derived from them.

`decode` refuses a record that does not have this type, so its readers need no further checks.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypedDict,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from harness.errors import DamagedFile, RequestError

SCHEMA = 1
"""Version of the record's layout. New keys do not raise it; see CHANGELOG.md."""

OLDEST_SCHEMA = 1
"""The oldest version that can be read."""

FIRST_ENGINE = 1
"""The engine of records that do not name theirs."""


@dataclass(frozen=True)
class Field:
    """What a key of a record means.

    Attributes:
        meaning: in a few words.
        unit: of a number, if it has one.
        by_device: whether the value depends on the device that the run was carried out on, and is
            compared only between runs of the same device.
        of: what a cost belongs to, the whole run or the final network.
        always: whether every record of a run with a result has the key.
    """

    meaning: str
    unit: str = ""
    by_device: bool = False
    of: Literal["run", "network"] = "run"
    always: bool = False


@dataclass(frozen=True)
class Quantity(Field):
    """A number by which runs are compared.

    Attributes:
        label: its name in tables and figures.
        main: whether it is shown where there is room for a few quantities only.
        counted: whether it is counted or computed, instead of measured by a clock or a meter.
    """

    always: bool = True
    label: str = ""
    main: bool = False
    counted: bool = False


Number = int | float
Measured = int | float | None
Text = str | None
Status = Literal["done", "collapsed", "diverged", "failed", "skipped", "missing"]
"""How a run ended.

``done``: the network was trained and tested. ``collapsed``: so it was, but its output no longer
depends on its input. ``diverged``: the loss, the outputs or the test metric were not finite.
``failed``: an error, or a limit of time or memory, ended the run. ``skipped``: the run is not
possible, because the method does not apply to the network or data are missing, for example.
``missing``: a matrix requests the run, and it has no result yet.
"""

WITH_RESULT = ("done", "collapsed", "diverged")
"""The statuses of runs that reached their end."""

DISTURBED = 0.05
"""A time is disturbed if its thread waited for a processor for more than this share of it; an
energy, if more than this share may belong to other programs."""

NOTHING_SCORED = "nothing is scored, except in training steps"
"""The reason for a cost of scoring that is null because there is none."""

SLOWER_THAN_DENSE = "slower than dense"
"""How the reason begins why there is no time with sparse kernels, where they take longer."""

TESTED = ("done", "collapsed")
"""The statuses of runs whose network was tested."""


class Spec(TypedDict):
    """What was requested."""

    task: Annotated[str, Field("name of the task")]
    pruner: Annotated[str, Field("name of the method")]
    sparsity: Annotated[
        Number, Field("fraction of the prunable weights to remove; 0 in a run with a budget")
    ]
    budget: NotRequired[
        Annotated[str, Field("what the network may cost, in place of a sparsity, as in macs=0.25")]
    ]
    seed: Annotated[int, Field("seed of all random draws")]
    profile: Annotated[str, Field("profile of the task: smoke, embedded or paper")]
    overrides: Annotated[dict[str, Any], Field("settings that differ from their defaults, by name")]
    plugins: NotRequired[Annotated[list[str], Field("names of the plug-in files")]]


class Task(TypedDict):
    """How the task describes itself."""

    title: Annotated[Text, Field("its title")]
    group: NotRequired[Annotated[Text, Field("the tasks that it belongs to")]]
    paper: NotRequired[Annotated[Text, Field("the paper that it comes from")]]
    version: Annotated[int | str, Field("version of its results; of a plug-in, a hash of its code")]
    references: NotRequired[
        Annotated[
            dict[str, str], Field("hashes of the code and files that settings name, by setting")
        ]
    ]


class Pruner(TypedDict):
    """How the method describes itself."""

    title: Annotated[Text, Field("its title")]
    group: Annotated[str, Field("dense, structured, unstructured or control")]
    paper: NotRequired[Annotated[Text, Field("the paper that it comes from")]]
    exceeds_budget: NotRequired[
        Annotated[bool | None, Field("whether it trains for longer than the other methods")]
    ]
    version: Annotated[int | str, Field("version of its results; of a plug-in, a hash of its code")]


class Data(TypedDict):
    """The data of the task; all null where they are not known."""

    source: Annotated[Text, Field("official, unofficial, real or synthetic")]
    name: Annotated[Text, Field("what they are")]
    sha256: Annotated[Text, Field("hash of their content")]
    stands_in_for: NotRequired[
        Annotated[Text, Field("the published data set that real data stand in for")]
    ]


class TrainedNetwork(TypedDict):
    """The network of another run, from which this run starts or learns."""

    run: Annotated[str, Field("name of the other run")]
    sha256: Annotated[str, Field("hash of its weights")]


class Quality(TypedDict):
    """How good the final network is; null where it was not tested."""

    metric: Annotated[str, Field("name of the main metric")]
    goal: Annotated[Literal["max", "min"], Field("whether a large or a small value is good")]
    validation: Annotated[Measured, Field("the metric on the validation data")]
    test: Annotated[Measured, Field("the metric on the test data, evaluated once")]
    baseline: Annotated[Measured, Field("the metric of the best predictor that ignores its input")]
    further: Annotated[dict[str, Measured], Field("further metrics on the test data, by name")]


class Layer(TypedDict):
    """A layer with prunable weights."""

    name: Annotated[str, Field("name of its weight tensor")]
    dense_shape: NotRequired[Annotated[list[int], Field("shape in the dense network")]]
    shape: Annotated[list[int], Field("shape in the final network")]
    weights: Annotated[int, Field("weights in the dense network")]
    kept: Annotated[int, Field("weights that remain")]


class Channels(TypedDict):
    """Channels that can only be removed from all layers at once."""

    name: Annotated[str, Field("name of the first of these layers")]
    kind: Annotated[
        str, Field("what they are to the network, such as attention heads or residual width")
    ]
    channels: Annotated[int, Field("how many there are in the dense network")]
    kept: Annotated[int, Field("how many remain")]


class Budget(TypedDict):
    """The budget of a run that has no sparsity."""

    kind: Annotated[str, Field("what it limits: macs, params, bytes or latency")]
    asked: Annotated[Number, Field("the budget as a fraction of the dense network's cost")]
    reached: Annotated[Number, Field("the cost of the final network as such a fraction")]
    dense: Annotated[
        Number,
        Field("the cost of the dense network: operations, parameters, bytes or seconds"),
    ]


class Sparsity(TypedDict, total=False):
    """What was removed, as fractions of the dense network."""

    requested: Annotated[Number, Field("fraction of the prunable weights to remove", always=True)]
    pattern: Annotated[
        str, Field("the pattern from which that fraction follows, as in 2:4; absent without one")
    ]
    weights: Annotated[
        Number, Quantity("fraction of the prunable weights removed", label="Weight sparsity")
    ]
    nodes: Annotated[
        Measured,
        Quantity(
            "fraction of the nodes (channels, neurons) removed; null of a method that removes none",
            always=False,
            label="Node sparsity",
        ),
    ]
    effective: Annotated[
        Number,
        Quantity(
            "fraction of the prunable weights that are removed or cut off from input or output",
            label="Weights without effect",
        ),
    ]
    budget: Annotated[Budget, Field("the budget, if the run has one")]
    sparse_kernels: Annotated[
        dict[str, int],
        Field(
            "layers on sparse kernels at the end of training, each with the number in events, from "
            "0, of the pruning since which (kernels=sparse)"
        ),
    ]
    emptied_layers: Annotated[list[str], Field("layers without any weights left", always=True)]
    per_layer: Annotated[
        list[Layer], Field("every layer with prunable weights, input first", always=True)
    ]
    per_group: Annotated[
        list[Channels],
        Field("every group of coupled channels; absent for methods that remove none"),
    ]


class Load(TypedDict, total=False):
    """How many processors other programs used, next to a measurement."""

    before: Annotated[Measured, Field("just before it", "processors")]
    during: Annotated[Measured, Field("while it was taken", "processors")]


class CostAtLength(TypedDict, total=False):
    """What the inference of sequences of one length costs."""

    inference_ms: Annotated[
        Measured,
        Field(
            "median time of the inference of a batch of this length",
            "ms",
            by_device=True,
            of="network",
        ),
    ]
    inference_ms_iqr: Annotated[
        Measured, Field("its interquartile range", "ms", by_device=True, of="network")
    ]
    inference_cpu_ms: Annotated[
        Measured, Field("its processor time", "ms", by_device=True, of="network")
    ]
    peak_inference_bytes: Annotated[
        Measured,
        Field("its peak memory, the network included", "bytes", by_device=True, of="network"),
    ]
    macs: Annotated[
        Measured,
        Field(
            "multiply-accumulates of the inference of one sample of this length",
            "operations",
            of="network",
        ),
    ]


class Cost(TypedDict, total=False):
    """What the run and its final network cost; less is better.

    Null where a cost could not be measured; ``reasons`` says why.
    """

    train_seconds: Annotated[
        Measured,
        Quantity(
            "wall-clock time of everything that the method requested, without evaluation",
            "s",
            by_device=True,
            label="Training time",
            main=True,
        ),
    ]
    train_cpu_seconds: Annotated[
        Measured, Field("processor time within train_seconds", "s", by_device=True)
    ]
    train_macs: Annotated[
        Measured,
        Quantity(
            "multiply-accumulates of all training steps, forward and backward, and of all scoring, "
            "without those of removed weights",
            "operations",
            always=False,
            label="Multiply-accumulates of training",
            counted=True,
        ),
    ]
    peak_run_bytes: Annotated[
        Measured,
        Quantity(
            "peak memory of the run, without instruments",
            "bytes",
            by_device=True,
            label="Peak memory of the run",
            main=True,
        ),
    ]
    scoring_seconds: Annotated[
        Measured,
        Quantity(
            "wall-clock time of scoring, a part of train_seconds",
            "s",
            by_device=True,
            always=False,
            label="Scoring time",
        ),
    ]
    scoring_passes: Annotated[
        Measured,
        Quantity(
            "passes over a scoring batch, forward and backward, that scoring took",
            always=False,
            label="Scoring passes",
            counted=True,
        ),
    ]
    peak_scoring_bytes: Annotated[
        Measured,
        Quantity(
            "peak memory of scoring, beyond what the run held when it began to score",
            "bytes",
            by_device=True,
            always=False,
            label="Peak memory of scoring",
        ),
    ]
    instrument_seconds: Annotated[
        Measured,
        Field(
            "time spent on evaluation and observation, which is not a cost of the method",
            "s",
            by_device=True,
        ),
    ]
    peak_run_bytes_with_instruments: Annotated[
        Measured, Field("peak memory of the run, instruments included", "bytes", by_device=True)
    ]
    load: Annotated[dict[str, Load], Field("processors that other programs used, by cost")]
    disturbed: Annotated[
        dict[str, Measured],
        Field(
            "costs whose measurement other programs disturbed, each with the share of the time in "
            "which the thread waited for a processor, or of the energy or GPU time of other "
            "programs; such a cost is not ranked"
        ),
    ]
    energy_kwh: Annotated[
        Measured, Quantity("energy of the run", "kWh", by_device=True, label="Energy")
    ]
    emissions_g: Annotated[
        Measured, Quantity("CO2 equivalent of that energy", "g", by_device=True, label="Emissions")
    ]
    energy_method: Annotated[Text, Field("how energy was measured or estimated")]
    energy_scope: Annotated[Text, Field("what energy_kwh covers, such as the GPU of the run")]
    carbon_intensity_g_per_kwh: Annotated[
        Measured, Field("carbon intensity of the grid, as assumed for emissions_g", "g/kWh")
    ]
    reasons: Annotated[
        dict[str, str], Field("why a cost could not be measured, by cost", always=True)
    ]
    epochs: Annotated[
        Number, Quantity("epochs of training spent, rewound ones included", label="Epochs")
    ]
    steps: Annotated[Number, Field("optimizer steps spent, rewound ones included", always=True)]
    step_ms: Annotated[
        Measured,
        Quantity(
            "median time of a training step of the final network",
            "ms",
            by_device=True,
            of="network",
            label="Training step",
            main=True,
        ),
    ]
    step_ms_iqr: Annotated[
        Measured, Field("interquartile range of step_ms", "ms", by_device=True, of="network")
    ]
    step_cpu_ms: Annotated[
        Measured, Field("processor time of a training step", "ms", by_device=True, of="network")
    ]
    step_sparse_ms: Annotated[
        Measured,
        Quantity(
            "median time of a training step with sparse kernels in the masked layers",
            "ms",
            by_device=True,
            of="network",
            always=False,
            label="Training step, sparse kernels",
        ),
    ]
    step_sparse_layers: Annotated[
        list[str] | None,
        Field("layers for which sparse kernels are faster in a training step", of="network"),
    ]
    inference_ms: Annotated[
        Measured,
        Quantity(
            "median time of the inference of a batch",
            "ms",
            by_device=True,
            of="network",
            label="Inference of a batch",
            main=True,
        ),
    ]
    inference_ms_iqr: Annotated[
        Measured, Field("interquartile range of inference_ms", "ms", by_device=True, of="network")
    ]
    inference_cpu_ms: Annotated[
        Measured,
        Field("processor time of the inference of a batch", "ms", by_device=True, of="network"),
    ]
    peak_step_bytes: Annotated[
        Measured,
        Quantity(
            "peak memory of a training step of the final network, the network included",
            "bytes",
            by_device=True,
            of="network",
            label="Peak memory of a step",
            main=True,
        ),
    ]
    peak_step_method: Annotated[
        Text, Field("how peak_step_bytes was measured: allocator or resident memory", of="network")
    ]
    peak_inference_bytes: Annotated[
        Measured,
        Quantity(
            "peak memory of the inference of a batch, the network included",
            "bytes",
            by_device=True,
            of="network",
            always=False,
            label="Peak memory of inference",
        ),
    ]
    inference_sparse_ms: Annotated[
        Measured,
        Quantity(
            "median time of the inference of a batch with sparse kernels in the masked layers",
            "ms",
            by_device=True,
            of="network",
            always=False,
            label="Inference, sparse kernels",
        ),
    ]
    sparse_layers: Annotated[
        list[str] | None,
        Field("layers for which sparse kernels are faster in inference", of="network"),
    ]
    disk_bytes: Annotated[
        Measured,
        Quantity(
            "size of the network's file", "bytes", of="network", label="Size on disk", main=True
        ),
    ]
    macs: Annotated[
        Measured,
        Quantity(
            "multiply-accumulates carried out in the inference of one sample",
            "operations",
            of="network",
            label="Multiply-accumulates carried out",
            counted=True,
        ),
    ]
    macs_effective: Annotated[
        Measured,
        Quantity(
            "multiply-accumulates with a weight that remains",
            "operations",
            of="network",
            label="Multiply-accumulates of weights left",
            counted=True,
        ),
    ]
    macs_dense: Annotated[
        Measured, Field("multiply-accumulates of the dense network", "operations", of="network")
    ]
    parameters: Annotated[
        Measured,
        Quantity(
            "parameters in memory, masked ones included",
            "parameters",
            of="network",
            label="Parameters in memory",
            counted=True,
        ),
    ]
    by_length: Annotated[
        dict[str, CostAtLength],
        Field(
            "the inference of input sequences that are cut to several lengths, by length; absent "
            "if the inputs of the task are no sequences",
            of="network",
        ),
    ]
    measured_in: Annotated[
        str, Field("the process in which the final network was measured, if it was")
    ]


class Epoch(TypedDict, total=False):
    """What was seen at the end of an epoch of training."""

    position: Annotated[int, Field("step in the schedule; rewinding takes it back")]
    spent: Required[Annotated[int, Field("steps taken so far; never taken back")]]
    loss: Required[Annotated[Measured, Field("mean training loss of the epoch")]]
    validation: Required[
        Annotated[dict[str, Measured], Field("metrics on the validation data, by name")]
    ]
    kernel: Annotated[Kernel, Field("the tangent kernel at the end of the epoch")]
    trigger: Annotated[Measured, Field("what the trigger read")]
    threshold: Annotated[Measured, Field("the value below which it fires")]
    observed: Annotated[
        dict[str, Measured], Field("what triggers read that are only observed, by name")
    ]


class Kernel(TypedDict, total=False):
    """The tangent kernel of the network, where it was observed (``kernel=on``)."""

    change: Annotated[
        Measured, Field("relative distance to the first kernel; of a pruning, to the one before it")
    ]
    alignment: Annotated[Measured, Field("cosine between the same two kernels")]
    epoch_change: Annotated[Measured, Field("relative distance that the kernel moved in the epoch")]
    drift: Annotated[Measured, Field("the same distance, relative to that of the first epoch")]
    matrix: Annotated[Any, Field("the kernel")]
    before: Annotated[Any, Field("the kernel before a pruning")]
    after: Annotated[Any, Field("the kernel after it")]


class GradientFlow(TypedDict):
    """Squared norm of the gradient of the loss."""

    before: Annotated[Measured, Field("before a pruning")]
    after: Annotated[Measured, Field("after it")]


class Receipt(TypedDict, total=False):
    """What a pruning removed and left."""

    asked: Required[
        Annotated[
            Number, Field("the sparsity aimed at, or the budget as a fraction of the dense cost")
        ]
    ]
    reached: Required[Annotated[Number, Field("the same quantity after the pruning")]]
    weights: Required[Annotated[list[int], Field("prunable weights before and after the pruning")]]
    macs: Required[
        Annotated[
            list[int] | None,
            Field("multiply-accumulates with these weights before and after", "operations"),
        ]
    ]
    whole: Annotated[
        dict[str, list[str]],
        Field("groups of channels, or layers, from which nothing is removed, by the reason"),
    ]
    pinned: Annotated[
        dict[str, list[str]], Field("layers whose outputs cannot be removed, by the reason")
    ]
    bottlenecks: Annotated[
        dict[str, list[int]],
        Field(
            "groups of which one channel remains, or less than 2 %: their channels after the "
            "pruning and in the dense network"
        ),
    ]
    kinds: Annotated[
        dict[str, list[int]],
        Field("channels of each kind after the pruning and in the dense network"),
    ]


class SparseKernels(TypedDict):
    """What is executed with sparse kernels after a pruning (``kernels=sparse``)."""

    layers: Annotated[list[str], Field("layers whose forward and backward passes are sparse")]
    dense: Annotated[dict[str, list[str]], Field("the other masked layers, by the reason")]
    passes: Annotated[
        Measured,
        Field(
            "measured time of both passes with these layers sparse, relative to dense; with all "
            "that could be if none is",
            by_device=True,
        ),
    ]
    contiguous: Annotated[bool, Field("whether their outputs are laid out as by dense layers")]
    steps: Annotated[bool, Field("whether optimizer steps are taken on surviving weights only")]
    step: Annotated[
        Measured, Field("measured time of such a step, relative to dense", by_device=True)
    ]


class Event(TypedDict, total=False):
    """What a method did: one call of a verb of `harness.run.Run`."""

    position: Annotated[int, Field("step in the schedule at its end")]
    spent: Required[Annotated[int, Field("steps taken until its end, rewound ones included")]]
    verb: Required[Annotated[str, Field("train, prune, exchange, release, snapshot or rewind")]]
    epochs: Annotated[list[Epoch], Field("train: its epochs")]
    ended_by: Annotated[str, Field("train: trigger, cap or plan")]
    dense_because: Annotated[
        str, Field("train: why its steps were dense, although kernels=sparse had sparse ones")
    ]
    units: Annotated[
        str, Field("prune, exchange, release: what it was about, such as weights or channels")
    ]
    target: Annotated[Number, Field("prune: the sparsity aimed at")]
    target_of: Annotated[
        str, Field("prune: what the target is a fraction of, if not of weights: a kind of budget")
    ]
    pattern: Annotated[
        str,
        Field("prune: the pattern from which the target follows, as in 2:4; absent without one"),
    ]
    sparsity: Annotated[Number, Field("prune, exchange, release: the weight sparsity reached")]
    measured: Annotated[bool, Field("prune: false if it has neither a gradient flow nor a receipt")]
    share: Annotated[
        Number, Field("exchange: the fraction of each tensor's remaining units to exchange")
    ]
    exchanged: Annotated[
        int, Field("exchange: how many units were removed, and how many others returned")
    ]
    weights: Annotated[str, Field("rewind: kept, if only schedule and data started again")]
    gradient_flow: Annotated[GradientFlow, Field("prune: gradient flow before and after")]
    kept_sha256: Annotated[str, Field("prune, exchange: hash of what was kept")]
    values_sha256: Annotated[
        str, Field("prune: hash of the values that a criterion gave to the weights that remain")
    ]
    scoring: Annotated[
        dict[str, Any],
        Field(
            "prune, exchange: how many batches the criterion saw, which statistics, and how many "
            "forward and backward passes over a batch it took"
        ),
    ]
    frozen: Annotated[list[str], Field("prune: weights that are not trained and were left whole")]
    kernel: Annotated[Kernel, Field("prune: the tangent kernel before and after")]
    receipt: Annotated[Receipt, Field("prune: what was removed, and what was left whole")]
    sparse_kernels: Annotated[
        SparseKernels, Field("prune: what is executed with sparse kernels from here on")
    ]


KEYS_OF_VERBS: Mapping[str, tuple[str, ...]] = {
    "train": ("ended_by", "epochs"),
    "prune": ("units", "target"),
    "exchange": ("units", "exchanged"),
    "release": ("units",),
    "rewind": ("position",),
}
"""The keys that every event of a verb has."""


class Git(TypedDict, total=False):
    """The project's commit."""

    commit: Required[Annotated[Text, Field("its hash; null outside a checkout")]]
    dirty: Annotated[bool | None, Field("whether files differed from it")]
    reason: Annotated[str, Field("why there is no commit")]


class Provenance(TypedDict, total=False):
    """Where, when and with what the run was carried out; no person, host or folder is named."""

    git: Annotated[Git, Field("commit of the project")]
    device: Annotated[str, Field("model of the processor or the GPU", always=True)]
    device_kind: Annotated[str, Field("cpu or cuda")]
    host: Annotated[Text, Field("a pseudonym of the host")]
    processors: Annotated[int | None, Field("logical processors of the host")]
    threads: Annotated[int, Field("threads that torch used", always=True)]
    denormals_flushed: Annotated[bool, Field("whether denormal numbers count as 0")]
    deterministic: Annotated[dict[str, Any] | None, Field("settings of torch on determinism")]
    settings: Annotated[dict[str, Any] | None, Field("what else decides how fast torch is")]
    system: Annotated[str, Field("operating system and architecture")]
    machine: Annotated[
        str, Field("a hash of the above, equal for runs whose times can be compared")
    ]
    versions: Annotated[dict[str, Text] | None, Field("of Python and of packages, by name")]
    runs_on_device: Annotated[int, Field("runs that shared the device")]
    command: Annotated[Text, Field("the command that asks for this run")]
    started: Annotated[str, Field("when the first attempt began, in UTC (ISO 8601)")]
    resumed: Annotated[
        list[dict[str, Any]], Field("the later attempts of a run that was interrupted", always=True)
    ]
    initial_weights_sha256: Annotated[str, Field("hash of the weights before training")]
    measured_on: Annotated[
        dict[str, Any],
        Field("the machine that measured the final network, if its run did not or not last"),
    ]


class Record(TypedDict):
    """Everything that is known about a run."""

    schema: Annotated[int, Field("version of this layout")]
    run_id: Annotated[str, Field("name of the run and of its folder")]
    status: Annotated[
        Status,
        Field(
            "how the run ended: done (trained and tested), collapsed (tested, but the output no "
            "longer depends on the input), diverged (loss, outputs or test metric not finite), "
            "failed (by an error or a limit of time or memory), skipped (not possible: the method "
            "does not apply, or data are missing), missing (requested, no result yet)"
        ),
    ]
    reason: Annotated[Text, Field("why; null for done and missing")]
    engine: NotRequired[Annotated[int, Field("version of the engine; 1 if absent")]]
    spec: Annotated[Spec, Field("the request")]
    task: Annotated[Task, Field("the task")]
    pruner: Annotated[Pruner, Field("the method")]
    data: Annotated[Data, Field("the data")]
    start: NotRequired[
        Annotated[
            TrainedNetwork | None, Field("the network that it starts from; null for a new one")
        ]
    ]
    teacher: NotRequired[
        Annotated[
            TrainedNetwork | None,
            Field("the network whose outputs it learns beside the data; null for none"),
        ]
    ]
    settings: Annotated[
        dict[str, Any], Field("settings of task, method and engine, defaults included, by name")
    ]
    quality: Annotated[Quality, Field("metrics of the final network")]
    sparsity: Annotated[Sparsity, Field("what was removed")]
    cost: Annotated[Cost, Field("what it cost")]
    events: Annotated[list[Event], Field("what the method did, in order")]
    provenance: Annotated[Provenance, Field("where and with what it was carried out")]


@functools.cache
def fields(part: Any) -> Mapping[str, Field]:
    """Return the keys of a type of this module with their meaning, in the order of the record."""
    return {name: field for name, (_, field) in typed_fields(part).items()}


def quantities(part: Any) -> Mapping[str, Quantity]:
    """Return the keys of a type of this module by which runs are compared."""
    return {name: each for name, each in fields(part).items() if isinstance(each, Quantity)}


@functools.cache
def typed_fields(part: Any) -> Mapping[str, tuple[Any, Field]]:
    """Return the keys of a type of this module, each with the type and the meaning of its value."""
    found = {}
    for name, hint in get_type_hints(part, include_extras=True).items():
        while get_origin(hint) in (Required, NotRequired):
            (hint,) = get_args(hint)
        kind, field = get_args(hint)
        found[name] = kind, field
    return found


COSTS = quantities(Cost)
"""The costs by which runs are compared, in the order of the record."""


def decode(content: bytes) -> Record:
    """Return the record that a file holds.

    Numbers that are not finite are null, as in a record that was written here.

    Raises:
        DamagedFile: it is no record; the message says what is wrong, if it is JSON.
        RequestError: its schema is newer or older than those that can be read.
    """
    try:
        found = _from_json(content)
        schema = int(found["schema"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedFile("") from None
    if schema > SCHEMA:
        raise RequestError(
            f"has schema {schema}, newer than {SCHEMA}, the newest known here; "
            "use the version of the project that wrote it"
        )
    if schema < OLDEST_SCHEMA:
        raise RequestError(
            f"has schema {schema}, older than {OLDEST_SCHEMA}, the oldest that can be read"
        )
    return check(found)


def _from_json(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        # Python's parser also takes what is no strict JSON: NaN, 1e999, half of a surrogate pair.
        return json.loads(content, parse_constant=lambda name: None, parse_float=_finite)


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def encode(record: Record) -> bytes:
    """Return a record as a file holds it.

    Raises:
        ValueError: a number is not finite.
    """
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def check(value: Any) -> Record:
    """Return a value that has the type of a record.

    Raises:
        DamagedFile: it has not; the message names the first place that is wrong, and how.
    """
    require(value, Record)
    record = cast(Record, value)
    if not _names_a_folder(record["run_id"]):
        raise DamagedFile("$.run_id: cannot be the name of a folder")
    if record["status"] in WITH_RESULT:
        _require_result(record)
    for number, event in enumerate(record["events"]):
        for key in KEYS_OF_VERBS.get(event["verb"], ()):
            if key not in event:
                raise DamagedFile(f"$.events[{number}]: lacks {key!r}")
    return record


def _require_result(record: Record) -> None:
    """Look for what only the record of a run with a result must have."""
    for name, kind in (("sparsity", Sparsity), ("cost", Cost), ("provenance", Provenance)):
        part = cast(Mapping[str, Mapping[str, Any]], record)[name]
        for key, field in fields(kind).items():
            if field.always and key not in part:
                raise DamagedFile(f"$.{name}: lacks {key!r}")
    data = record["data"]
    if None in (data["source"], data["name"], data["sha256"]):
        raise DamagedFile("$.data: source, name and sha256 are not all known")


_LONGEST_NAME = 255
"""Bytes of the name of a folder, on all common file systems."""


def _names_a_folder(name: str) -> bool:
    is_one_part = PurePath(name).name == name and name not in ("", "..")
    return is_one_part and "\0" not in name and len(os.fsencode(name)) <= _LONGEST_NAME


def require(value: Any, kind: Any) -> None:
    """Let a value from a JSON file pass if it has a type; keys that the type lacks do not matter.

    Raises:
        DamagedFile: it has not; the message names the first place that is wrong, and how.
    """
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise DamagedFile(_complaint(str(error))) from None


def _complaint(text: str) -> str:
    """Return a message of msgspec in plain words, the place first."""
    what, _, place = text.partition(" - at ")
    if what.startswith("Expected"):
        expected, got = (part.split("`")[1] for part in what.split(", got "))
        names = expected.replace("int | float", "float").split(" | ")
        accepted = " or ".join(_ARTICLES.get(name, name) for name in names)
        what = f"expected {accepted}, got {_ARTICLES.get(got, got)}"
    elif what.startswith("Object missing"):
        what = f"lacks {what.split('`')[1]!r}"
    elif what.startswith("Invalid enum value"):
        what = f"unknown value {what.removeprefix('Invalid enum value ')}"
    return f"{place.strip('`') or '$'}: {what}"


_ARTICLES: Mapping[str, str] = {
    "float": "a number",
    "int": "a whole number",
    "str": "a string",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
}
