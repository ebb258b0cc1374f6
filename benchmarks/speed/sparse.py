"""Masked networks on sparse kernels, beside the same networks executed densely, on one thread.

The layers that `harness.sparse_kernels` chooses for the batch are sparse. LeNet-300-100 and PSMM
have 98 % of each layer's weights removed at random, which costs what any other choice of the same
number costs. ResNet18 has the 99 % removed that CroP removes before training, few of them from its
first layers. A training step is that of a run with ``kernels=sparse``, masks applied. Its dense
side is the step of a network that was never pruned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.embedded import CPU, embedded, embedded_task, embedded_trainer
from benchmarks.measurement import Comparison, in_new_process, least_processor_time
from harness.costs.meter import CostMeter
from harness.engine.kernel_choice import kernels_of, measured_kernels
from harness.pruning.event import PruningEvents
from harness.pruning.scoring_cost import ScoringCost
from harness.settings import Recipe
from harness.sparse_kernels import SparseExecution, choose_kernels
from harness.task import Task
from harness.training.kernels import Execution
from harness.training.optimization import build_optimiser
from harness.training.precision import FLOAT32
from harness.training.trainer import update
from pruners.criteria import crop
from pruners.distributions import per_layer, whole_network
from pruners.weights import Weights
from tasks.ptb.model import PSMM

BATCHES = (1, 8, 64)
GOAL_BATCH = 64
SECONDS = 2.0
"""How long to measure a pair, about."""
SHORTEST_BLOCK = 5e-3
"""Seconds for which a call is repeated each time it is its turn."""

Lines = list[Comparison]


def measure() -> Lines:
    """Measure each network in a process of its own."""
    measurements = (lenet, lenet_step, resnet18, psmm, psmm_embedded)
    return [line for each in measurements for line in in_new_process(_on_one_thread, each.__name__)]


def _on_one_thread(name: str) -> Lines:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    lines: Lines = globals()[name]()
    return lines


def lenet() -> Lines:
    """Inference of LeNet-300-100; a quarter of the dense time is asked for."""
    model = _lenet()
    masks = _pruned(model, 0.98).masks()
    lines = []
    for batch in BATCHES:
        images = torch.randn(batch, 784)
        limit = 1 / 4 if batch == GOAL_BATCH else None
        lines += _inference("LeNet-300-100", model, masks, batch, model, images, limit)
    return lines


def lenet_step() -> Lines:
    """A training step of LeNet-300-100; 0.6 of the dense time is asked for."""
    optimisers: tuple[Literal["adam", "sgd"], ...] = ("adam", "sgd")
    return [_lenet_step(name, batch) for name in optimisers for batch in BATCHES]


class _Digits:
    """What a step needs of a task: images are classified."""

    device = CPU

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(model(images), labels)


def _lenet_step(optimiser: Literal["adam", "sgd"], size: int) -> Comparison:
    task = cast(Task, _Digits())
    recipe = Recipe(
        epochs=1,
        batch_size=size,
        optimiser=optimiser,
        learning_rate=1e-3,
        weight_decay=0.0,
        clip=0.0,
    )
    batch = torch.randn(size, 784), torch.randint(10, (size,))
    dense, sparse = _lenet(), _lenet()
    units = _pruned(sparse, 0.98)
    kernels = kernels_of(
        measured_kernels(task, sparse, units.masks(), batch, recipe, FLOAT32, seconds=0.5)
    )
    execution = Execution(kernels, sparse, units.masks())
    dense_optimizer, sparse_optimizer = (
        build_optimiser(model.parameters(), recipe) for model in (dense, sparse)
    )

    def dense_step() -> None:
        update(task, dense, dense_optimizer, (), batch, recipe.clip)

    def sparse_step() -> None:
        update(task, sparse, sparse_optimizer, (units,), batch, recipe.clip, execution=execution)

    ours, theirs = _times(sparse_step, dense_step, contextlib.nullcontext())
    limit = 0.6 if size == GOAL_BATCH and optimiser == "adam" else None
    how = f"{len(kernels.layers)}/3 sparse, {'sparse' if kernels.steps else 'dense'} optimizer step"
    title = f"LeNet-300-100 step, {optimiser}, batch {size} ({how})"
    return Comparison(title, 1e3 * ours, 1e3 * theirs, "ms", limit)


def resnet18() -> Lines:
    """Inference of the network of ``digits`` at 99 %; 1 / 1.5 of the dense time is asked for."""
    task = embedded_task("digits")
    lines = []
    for scope, name in ((whole_network, "ResNet18"), (per_layer, "ResNet18, all layers alike")):
        trainer = embedded_trainer(task)
        weights = Weights(trainer.model, task.forward)
        trainer.units["weights"] = weights
        conditions = embedded("digits").conditions
        meter = CostMeter(task.device, measure_energy=False)
        events = PruningEvents(
            trainer,
            task.scoring_batches(0),
            conditions,
            meter.instrument,
            ScoringCost(meter, task),
        )
        events.prune(weights, crop, [0.99], scope, seed=0)
        model = trainer.model.eval()
        for batch in BATCHES:
            images = torch.randn(batch, 1, 8, 8)
            limit = 1 / 1.5 if batch == GOAL_BATCH and scope is whole_network else None
            lines += _inference(name, model, weights.masks(), batch, model, images, limit)
    return lines


def psmm() -> Lines:
    """PSMM of the paper's size; a quarter of the dense time is asked for."""
    return _psmm("PSMM", 10_000, 300, 1 / 4)


def psmm_embedded() -> Lines:
    """PSMM of the embedded profile's size."""
    return _psmm("embedded PSMM", 1_716, 96, None)


def _psmm(name: str, words: int, hidden: int, limit: float | None) -> Lines:
    """Compare evaluation, which asks for the words that came, and the prediction of all words."""
    model = PSMM(words, hidden).eval()
    masks = _pruned(model, 0.98).masks()
    lines = []
    for batch in BATCHES:
        tokens = torch.randint(words, (batch, 79))
        asked = limit if batch == GOAL_BATCH else None

        def evaluate(tokens: Tensor) -> object:
            return model.target_log_probabilities(tokens, tokens)

        lines += _inference(f"{name}, evaluation", model, masks, batch, evaluate, tokens, asked)
        lines += _inference(f"{name}, all words", model, masks, batch, model, tokens, asked)
    return lines


def _inference(
    name: str,
    model: nn.Module,
    masks: dict[str, Tensor],
    batch: int,
    run: Callable[[Tensor], object],
    inputs: Tensor,
    limit: float | None,
) -> Lines:
    """Compare an inference as chosen; where all layers stay dense, as if all were sparse."""

    def call() -> None:
        with torch.no_grad():
            run(inputs)

    choice = choose_kernels(model, masks, call)
    layers = f"{len(choice.layers)}/{len(choice.kernels)} sparse"
    chosen = choice.layers
    if not chosen:
        layers, chosen = "stays dense; if sparse", tuple(choice.ratios)
    ours, theirs = _times(call, call, SparseExecution(model, masks, chosen, choice.contiguous))
    return [Comparison(f"{name}, batch {batch} ({layers})", 1e3 * ours, 1e3 * theirs, "ms", limit)]


def _times(
    sparse: Callable[[], None],
    dense: Callable[[], None],
    execution: contextlib.AbstractContextManager[object],
) -> tuple[float, float]:
    """Return the least processor time of both, in seconds for one call."""

    def repeat(call: Callable[[], None], times: int) -> None:
        for _ in range(times):
            call()

    def sparsely(times: int) -> None:
        with execution:
            repeat(sparse, times)

    first, second = least_processor_time(3, lambda: sparsely(1), lambda: repeat(dense, 1))
    times = max(1, round(SHORTEST_BLOCK / max(first, second)))
    rounds = max(12, round(SECONDS / times / (first + second)))
    first, second = least_processor_time(
        rounds, lambda: sparsely(times), lambda: repeat(dense, times)
    )
    return first / times, second / times


def _lenet() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def _pruned(model: nn.Module, sparsity: float) -> Weights:
    """Remove a share of each layer's weights at random."""
    weights = Weights(model)
    scores = {name: torch.rand(v.shape) for name, v in weights.variables(model).items()}
    weights.apply(model, None, (), weights.select(scores, sparsity, per_layer))
    return weights
