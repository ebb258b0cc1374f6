"""Multiply-accumulate operations, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.costs.operations import Operations, count_operations, operations_by_weight

Mode = Callable[[], AbstractContextManager[None]]
"""A context in which torch records gradients, or does not."""


def dense_macs(model: nn.Module, *inputs: Tensor, masks: Mapping[str, Tensor] | None = None) -> int:
    return count_operations(model, lambda: model(*inputs), masks or {}).dense_macs


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Linear(10, 4), (3, 10), 3 * 10 * 4),
        (nn.Linear(10, 4), (3, 5, 10), 3 * 5 * 10 * 4),
        (nn.Conv1d(2, 3, 5), (1, 2, 9), 5 * 3 * 2 * 5),
        (nn.Conv2d(4, 6, 3), (2, 4, 8, 8), 2 * 6 * 6 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, padding=1), (1, 4, 8, 8), 8 * 8 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (1, 4, 8, 8), 4 * 4 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, dilation=2), (1, 4, 8, 8), 4 * 4 * 6 * 4 * 9),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), (1, 4, 8, 8), 8 * 8 * 6 * 2 * 9),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (1, 8, 8, 8), 8 * 8 * 8 * 9),
        (nn.Conv3d(2, 3, 3, padding=1), (1, 2, 4, 5, 6), 4 * 5 * 6 * 3 * 2 * 27),
        # Each position of the input meets the whole kernel.
        (nn.ConvTranspose2d(4, 6, 3, stride=2), (1, 4, 5, 5), 5 * 5 * 4 * 6 * 9),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (1, 4, 5, 5), 5 * 5 * 4 * 3 * 9),
        (nn.ConvTranspose3d(2, 2, 2, stride=2), (1, 2, 3, 3, 3), 27 * 2 * 2 * 8),
        (nn.BatchNorm2d(4), (2, 4, 3, 3), 0),
        (nn.LSTM(5, 7), (6, 2, 5), 6 * 2 * 4 * 7 * (5 + 7)),
        (
            nn.LSTM(5, 7, num_layers=2, bidirectional=True),
            (6, 2, 5),
            6 * 2 * 4 * 7 * 2 * ((5 + 7) + (14 + 7)),
        ),
        (nn.LSTMCell(5, 7), (2, 5), 2 * 4 * 7 * (5 + 7)),
        (nn.GRU(5, 7), (6, 2, 5), 6 * 2 * 3 * 7 * (5 + 7)),
    ],
    ids=str,
)
@pytest.mark.parametrize("grad", [True, False])
def test_the_operations_of_a_layer(
    layer: nn.Module, shape: tuple[int, ...], macs: int, grad: bool
) -> None:
    with torch.set_grad_enabled(grad):
        assert dense_macs(layer.eval(), torch.randn(shape)) == macs


def test_an_embedding_multiplies_nothing() -> None:
    assert dense_macs(nn.Embedding(100, 8), torch.arange(5)) == 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_attention_is_counted_in_every_mode_of_evaluation(
    mode: Mode,
) -> None:
    batch, length, width, hidden = 2, 10, 64, 128
    projections = batch * length * 4 * width * width
    attention = 2 * batch * length * length * width
    feed_forward = batch * length * 2 * width * hidden
    tokens = torch.randn(batch, length, width)
    with mode():
        attend = nn.MultiheadAttention(width, 4, batch_first=True).eval()
        assert dense_macs(attend, tokens, tokens, tokens) == projections + attention
        layer = nn.TransformerEncoderLayer(width, 4, hidden, batch_first=True).eval()
        assert dense_macs(layer, tokens) == projections + attention + feed_forward


def test_the_operations_of_functional_products() -> None:
    def macs(run: Callable[[], object]) -> int:
        return count_operations(nn.Module(), run, {}).dense_macs

    queries = torch.randn(2, 4, 32, 64)
    attend = F.scaled_dot_product_attention
    assert macs(lambda: attend(queries, queries, queries)) == 2_097_152 // 2
    assert macs(lambda: torch.bmm(torch.ones(3, 4, 5), torch.ones(3, 5, 6))) == 3 * 4 * 5 * 6
    assert macs(lambda: torch.ones(4, 5) @ torch.ones(5)) == 20
    assert macs(lambda: torch.addmv(torch.ones(4), torch.ones(4, 5), torch.ones(5))) == 20
    assert macs(lambda: torch.ones(5) @ torch.ones(5)) == 5


def test_the_switches_of_torch_are_restored() -> None:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ZeroDivisionError):
        count_operations(nn.Module(), lambda: 1 / 0, {})
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    assert torch.backends.mkldnn.enabled
    assert torch.backends.cuda.flash_sdp_enabled()


def half(weight: Tensor) -> Tensor:
    return (torch.arange(weight.numel()) % 2 == 0).reshape(weight.shape)


def test_removed_weights_count_in_the_dense_number_alone() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 8, bias=False))
    convolution, linear = 2 * 2 * 4 * 2 * 9, 16 * 8
    inputs = torch.randn(1, 2, 4, 4)
    masks = {"2.weight": torch.zeros(8, 16, dtype=torch.bool)}
    masks["2.weight"].view(-1)[:13] = True
    count = count_operations(model, lambda: model(inputs), masks)
    assert count == Operations(convolution + linear, convolution + 13)
    masks["0.weight"] = half(next(model.parameters()))
    count = count_operations(model, lambda: model(inputs), masks)
    assert count == Operations(convolution + linear, convolution // 2 + 13)


@pytest.mark.parametrize(
    "model", [nn.LSTM(6, 8), nn.LSTMCell(6, 8), nn.ConvTranspose1d(6, 8, 2)], ids=str
)
def test_every_use_of_a_masked_weight_is_recognised(model: nn.Module) -> None:
    inputs = {"LSTM": (3, 2, 6), "LSTMCell": (2, 6), "ConvTranspose1d": (2, 6, 5)}
    sample = torch.randn(inputs[type(model).__name__])
    weights = {name: each for name, each in model.named_parameters() if "weight" in name}
    masks = {name: half(each) for name, each in weights.items()}
    count = count_operations(model, lambda: model(sample), masks)
    assert 2 * count.effective_macs == count.dense_macs > 0


def test_tied_views_and_transposes_are_recognised() -> None:
    embedding = nn.Embedding(20, 6)
    hidden = torch.randn(3, 6)
    masks = {"weight": half(embedding.weight)}
    for run in (
        lambda: F.linear(hidden, embedding.weight),
        lambda: hidden @ embedding.weight.T,
        lambda: hidden @ embedding.weight[10:].T,
    ):
        count = count_operations(embedding, run, masks)
        assert 2 * count.effective_macs == count.dense_macs > 0


def test_a_model_that_is_not_on_the_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="CPU"):
        count_operations(nn.Linear(2, 2, device="meta"), lambda: None, {})


def test_operations_are_counted_for_each_weight() -> None:
    tied = nn.Linear(3, 3)
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(2), nn.Linear(4, 3), tied, tied)
    found = operations_by_weight(model, lambda: model(torch.zeros(1, 1, 2, 2)))
    assert found == {"0.weight": 4 * 3, "2.weight": 3 * 12, "3.weight": 2 * 3 * 9}
