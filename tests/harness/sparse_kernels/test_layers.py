"""Sparse layers compute what dense layers compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.sparse_kernels import SparseExecution, operators
from tests.harness.sparse_kernels.networks import assert_alike, outcome, pruned


def perceptron() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(20, 30),
        nn.ReLU(inplace=True),
        nn.Linear(30, 7, bias=False),
        nn.BatchNorm1d(7),
        nn.ReLU(inplace=True),
        nn.Linear(7, 3),
    )


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, 2, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 4, (3, 2), 1, (2, 1), dilation=(1, 2), groups=2),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 5, 1),
        nn.AvgPool2d(2),
        nn.Flatten(),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "perceptron": (perceptron, (20,)),
    "linear layer on sequences": (lambda: nn.Linear(5, 4), (2, 5)),
    "convolutional network": (convolutional, (4, 9, 7)),
    "circular padding": (
        lambda: nn.Conv2d(4, 6, (5, 3), padding="same", padding_mode="circular"),
        (4, 9, 7),
    ),
    "the same padding": (lambda: nn.Conv2d(4, 6, (5, 3), padding="same"), (4, 9, 7)),
    "one dimension": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)), (4, 9)),
    "three dimensions": (
        lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), nn.ReLU()),
        (2, 3, 4, 5),
    ),
    "LSTM cell": (lambda: nn.LSTMCell(5, 6), (5,)),
    "LSTM cell without biases": (lambda: nn.LSTMCell(5, 6, bias=False), (5,)),
    "LSTM": (lambda: nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True), (4, 5)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("samples", [1, 3, 64])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_are_those_of_dense_execution(
    name: str, samples: int, dtype: torch.dtype
) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(3)
    model = build().to(dtype)
    if name in ("perceptron", "convolutional network") and samples == 1:
        model.eval()
    masks = pruned(model, 0.3)
    inputs = torch.randn(samples, *shape, dtype=dtype)
    dense = outcome(model, masks, inputs, sparse=False)
    assert_alike(dense, outcome(model, masks, inputs, sparse=True))
    assert_alike(dense, outcome(model, masks, inputs, sparse=True, contiguous=True))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_an_lstm_may_project_its_hidden_state() -> None:
    model = nn.LSTM(5, 6, proj_size=4).double()
    masks = pruned(model, 0.3)
    inputs = torch.randn(7, 3, 5, dtype=torch.double)
    dense, sparse = (outcome(model, masks, inputs, sparse=sparse) for sparse in (False, True))
    assert_alike(dense, sparse)


@pytest.mark.parametrize("density", [0.0, 1.0])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_layer_may_be_empty_or_full(name: str, density: float) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = build().double()
    masks = pruned(model, density)
    inputs = torch.randn(3, *shape, dtype=torch.double)
    dense, sparse = (outcome(model, masks, inputs, sparse=sparse) for sparse in (False, True))
    assert_alike(dense, sparse)


@pytest.mark.parametrize("name", ["perceptron", "convolutional network", "LSTM"])
def test_many_samples_go_through_in_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "SAMPLES_AT_ONCE", 4)
    build, shape = NETWORKS[name]
    model = build().double()
    masks = pruned(model, 0.3)
    inputs = torch.randn(11, *shape, dtype=torch.double)
    dense, sparse = (outcome(model, masks, inputs, sparse=sparse) for sparse in (False, True))
    assert_alike(dense, sparse)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_kernel_for_machines_without_mkl_computes_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.sparse_kernels.matrix.MKL", False)
    build, shape = NETWORKS[name]
    model = build().double()
    masks = pruned(model, 0.3)
    inputs = torch.randn(5, *shape, dtype=torch.double)
    dense, sparse = (outcome(model, masks, inputs, sparse=sparse) for sparse in (False, True))
    assert_alike(dense, sparse)


@settings(max_examples=60)
@given(data=st.data())
def test_convolutions_of_any_geometry_are_those_of_torch(data: st.DataObject) -> None:
    dimensions = data.draw(st.integers(1, 3))
    groups = data.draw(st.integers(1, 2))

    def sizes(lowest: int, highest: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(lowest, highest)) for _ in range(dimensions))

    kernel, stride, padding, dilation = sizes(1, 3), sizes(1, 3), sizes(0, 2), sizes(1, 2)
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1](
        groups * data.draw(st.integers(1, 2)),
        groups * data.draw(st.integers(1, 2)),
        kernel,  # type: ignore[arg-type]
        stride,  # type: ignore[arg-type]
        padding,  # type: ignore[arg-type]
        dilation,  # type: ignore[arg-type]
        groups,
    ).double()
    masks = pruned(convolution, data.draw(st.sampled_from([0.0, 0.2, 0.6, 1.0])))
    size = [
        data.draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 7))
        for k, p, d in zip(kernel, padding, dilation, strict=True)
    ]
    images = torch.randn(
        data.draw(st.integers(1, 3)), convolution.in_channels, *size, dtype=torch.double
    )
    dense, sparse = (outcome(convolution, masks, images, sparse=s) for s in (False, True))
    assert_alike(dense, sparse)


@settings(max_examples=40)
@given(
    samples=st.integers(0, 70),
    outputs=st.integers(1, 9),
    inputs=st.integers(1, 9),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_linear_layers_of_any_size_are_those_of_torch(
    samples: int, outputs: int, inputs: int, density: float
) -> None:
    model = nn.Linear(inputs, outputs).double()
    masks = pruned(model, density)
    rows = torch.randn(samples, inputs, dtype=torch.double)
    dense, sparse = (outcome(model, masks, rows, sparse=s) for s in (False, True))
    assert_alike(dense, sparse)


def test_removed_weights_take_no_part_whatever_their_value() -> None:
    model = nn.Linear(3, 2, bias=False)
    model.weight.data = torch.tensor([[1.0, 7.0, 2.0], [9.0, 3.0, 8.0]])
    mask = torch.tensor([[True, False, True], [False, True, False]])
    with torch.no_grad(), SparseExecution(model, {"weight": mask}):
        assert model(torch.ones(1, 3)).tolist() == [[3, 3]]


@pytest.mark.parametrize("name", ["perceptron", "convolutional network", "LSTM cell"])
def test_second_derivatives_are_those_of_dense_execution(name: str) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = build().double()
    masks = pruned(model, 0.3)
    inputs = torch.randn(4, *shape, dtype=torch.double)

    def second(weights: dict[str, Tensor]) -> list[Tensor]:
        masked = {name: weight * masks[name] for name, weight in weights.items()}
        outputs = torch.func.functional_call(model, masked if dense else weights, inputs)
        output = outputs if isinstance(outputs, Tensor) else outputs[0]
        variables = list(weights.values())
        gradients = torch.autograd.grad(output.pow(2).sum(), variables, create_graph=True)
        products = [gradient.pow(2).sum() for gradient in gradients]
        return [*gradients, *torch.autograd.grad(torch.stack(products).sum(), variables)]

    weights: dict[str, Tensor] = {mask: model.get_parameter(mask) for mask in masks}
    dense = True
    expected = second(weights)
    dense = False
    with SparseExecution(model, masks):
        found = second(weights)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one)


def test_autocast_computes_densely() -> None:
    model = nn.Linear(8, 8)
    masks = pruned(model, 0.3)
    with SparseExecution(model, masks), torch.autocast("cpu", torch.bfloat16):
        output = model(torch.randn(4, 8))
    assert output.dtype == torch.bfloat16


def test_a_network_may_be_used_in_inference_mode_first_and_trained_then() -> None:
    model = nn.Linear(8, 8)
    masks = pruned(model, 0.3)
    rows = torch.randn(4, 8)
    with SparseExecution(model, masks):
        with torch.inference_mode():
            expected = model(rows)
        model(rows).sum().backward()
        with torch.no_grad():
            model.weight.mul_(2)
            model.bias.mul_(2)
        torch.testing.assert_close(model(rows), 2 * expected)
