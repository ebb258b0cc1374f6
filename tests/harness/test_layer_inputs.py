"""Second moments of layers' inputs, against explicit products and numbers on paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from harness.errors import Skip
from harness.layer_inputs import LayerInputs
from harness.prunable import prunable_weights
from harness.weight_matrices import WeightMatrix


def inputs_of(model: nn.Module, *batches: Tensor) -> LayerInputs:
    return LayerInputs(model.eval(), [partial(model, batch) for batch in batches])


def products_of(inputs: LayerInputs, name: str) -> Tensor:
    ((own, products),) = inputs.products([name])
    assert own == name
    return products


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def require_consistent(inputs: LayerInputs, model: nn.Module) -> None:
    """Check that the squares are the diagonals of the products."""
    for name, weight in prunable_weights(model).items():
        products, matrix = products_of(inputs, name), inputs.matrices[name]
        rows = matrix.unfolded(weight).flatten(2)
        diagonal = products.diagonal(dim1=1, dim2=2).unsqueeze(1).expand(rows.shape)
        squares = inputs.squares()[name]
        torch.testing.assert_close(squares, matrix.folded(diagonal, tuple(weight.shape)))


def test_a_linear_layer_on_paper() -> None:
    model = nn.Linear(2, 3)
    inputs = inputs_of(model, torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert inputs.squares()["weight"].tolist() == [[10, 5]] * 3
    assert products_of(inputs, "weight").tolist() == [[[10, 2], [2, 5]]]


def test_further_dimensions_are_further_rows() -> None:
    model, x = nn.Linear(4, 3), drawn(5, 6, 4)
    products = products_of(inputs_of(model, x), "weight")
    torch.testing.assert_close(products[0], x.flatten(0, 1).T @ x.flatten(0, 1))
    require_consistent(inputs_of(model, x), model)


def test_a_convolution_on_paper() -> None:
    model = nn.Conv1d(1, 1, 2, padding=1)
    inputs = inputs_of(model, torch.tensor([[[1.0, 2.0, 3.0]]]))
    # The kernel reads (0, 1), (1, 2), (2, 3) and (3, 0).
    assert inputs.squares()["weight"].tolist() == [[[14, 14]]]
    assert products_of(inputs, "weight").tolist() == [[[14, 8], [8, 14]]]


CONVOLUTIONS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv1d(3, 2, 3, stride=2, padding=1, dilation=2), (2, 3, 9)),
    (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 3, 6, 5)),
    (nn.Conv2d(4, 6, 3, padding="same", dilation=2, groups=2), (2, 4, 6, 5)),
    (nn.Conv2d(4, 4, 2, groups=4, padding="valid"), (2, 4, 5, 5)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 5, 5)),
    (nn.Conv3d(2, 3, 2, stride=2), (2, 2, 4, 5, 4)),
    (nn.ConvTranspose1d(3, 2, 3, stride=2, padding=1, output_padding=1), (2, 3, 5)),
    (nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 3), groups=2, dilation=(1, 2)), (2, 4, 4, 3)),
    (nn.ConvTranspose2d(2, 3, 2, stride=3, padding=1), (2, 2, 4, 4)),
    (nn.ConvTranspose3d(2, 3, 3, stride=2, padding=1), (1, 2, 3, 3, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=lambda each: str(each))
def test_products_of_patches_give_the_squared_norm_of_the_output(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    # For outputs y = W x without a bias, sum |y|^2 = sum over outputs of w X X^T w.
    x, weight = drawn(*shape), prunable_weights(layer)["weight"]
    assert isinstance(layer.bias, nn.Parameter)
    nn.init.zeros_(layer.bias)
    inputs = inputs_of(layer, x)
    rows = inputs.matrices["weight"].unfolded(weight).flatten(2)
    energy = (rows @ products_of(inputs, "weight") * rows).sum()
    torch.testing.assert_close(energy, layer(x).square().sum())
    require_consistent(inputs, layer)


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=lambda each: str(each))
def test_a_weight_alone_gives_the_norm_of_what_it_is_multiplied_by(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    weight = prunable_weights(layer)["weight"]
    squares = inputs_of(layer, x := drawn(*shape)).squares()["weight"]
    nn.init.zeros_(layer.get_parameter("bias"))
    for place in (0, 7, weight.numel() - 1):
        nn.init.zeros_(weight)
        weight.data.view(-1)[place] = 1
        torch.testing.assert_close(layer(x).square().sum(), squares.flatten()[place])


def test_patches_are_made_a_few_samples_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Conv2d(2, 3, 2), drawn(5, 2, 4, 4)
    whole = products_of(inputs_of(layer, x), "weight")
    monkeypatch.setattr("harness.layer_inputs._PATCHES_AT_ONCE", 2 * 2 * 9 * 4)
    torch.testing.assert_close(products_of(inputs_of(layer, x), "weight"), whole)


def test_the_products_of_many_weights_take_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    passes, x = [], drawn(6, 4)
    inputs = LayerInputs(model, [lambda: passes.append(model(x))])
    names = [*prunable_weights(model)]
    whole = dict(inputs.products(names))
    assert len(passes) == 1
    monkeypatch.setattr("harness.layer_inputs._PRODUCTS_AT_ONCE", 2 * 4 * 4)
    parts = dict(inputs.products(names))
    assert len(passes) == 1 + 3, "two weights, two, and one"
    assert all(torch.equal(parts[name], whole[name]) for name in names)


def test_an_embedding_counts_its_words() -> None:
    model = nn.Embedding(4, 2)
    inputs = inputs_of(model, torch.tensor([[0, 1], [1, 3]]))
    assert inputs.squares()["weight"].tolist() == [[1, 1], [2, 2], [0, 0], [1, 1]]
    assert products_of(inputs, "weight")[0].tolist() == torch.tensor([1.0, 2, 0, 1]).diag().tolist()


class Tied(nn.Module):
    """Words in, scores of words out, by the same weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.decoder = nn.Linear(3, 4, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        scores: Tensor = self.decoder(self.embedding(words))
        return scores


def test_uses_of_a_tied_weight_are_summed() -> None:
    model, words = Tied(), torch.tensor([0, 1, 1])
    inputs = inputs_of(model, words)
    read = model.embedding(words).detach().square().sum(0)
    counts = torch.tensor([1.0, 2, 0, 0]).unsqueeze(1)
    torch.testing.assert_close(inputs.squares()["embedding.weight"], counts + read)


def test_a_tied_word_is_read_feature_by_feature_besides() -> None:
    """Three words of four are read, so that each of the four counts 3/4 times."""
    model, words = Tied(), torch.tensor([0, 1, 1])
    rows = model.embedding(words).detach()
    products = products_of(inputs_of(model, words), "embedding.weight")
    torch.testing.assert_close(products[0], rows.T @ rows + 0.75 * torch.eye(3))


def test_layers_of_two_kinds_do_not_share_their_products() -> None:
    inputs = inputs_of(Tied(), torch.tensor([0, 1]))
    inputs.matrices["embedding.weight"] = WeightMatrix(inputs_first=True)
    with pytest.raises(Skip, match="observed: layers of two kinds share it"):
        products_of(inputs, "embedding.weight")


def test_a_layer_used_twice_has_the_inputs_of_both() -> None:
    layer, x = nn.Linear(3, 3), drawn(4, 3)
    inputs = inputs_of(nn.Sequential(layer, layer), x)
    rows = torch.cat([x, layer(x).detach()])
    torch.testing.assert_close(products_of(inputs, "0.weight")[0], rows.T @ rows)


@pytest.mark.parametrize("cell", [nn.LSTMCell(3, 2), nn.GRUCell(3, 2), nn.RNNCell(3, 2)], ids=str)
def test_a_cell_reads_its_input_and_its_state(cell: nn.RNNCellBase) -> None:
    x, h = drawn(4, 3), drawn(4, 2, 1).squeeze(-1)
    state = (h, h) if isinstance(cell, nn.LSTMCell) else h
    inputs = LayerInputs(cell, [lambda: cell(x, state)])
    torch.testing.assert_close(products_of(inputs, "weight_ih")[0], x.T @ x)
    torch.testing.assert_close(products_of(inputs, "weight_hh")[0], h.T @ h)


def unrolled(layer: nn.RNNBase, sequences: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return ``X X^T`` of each weight, one sequence and one cell after the other."""
    cells: dict[str, Callable[..., Any]] = {
        "LSTM": torch.lstm_cell,
        "GRU": torch.gru_cell,
        "RNN_TANH": torch.rnn_tanh_cell,
        "RNN_RELU": torch.rnn_relu_cell,
    }
    found: dict[str, Tensor] = {}
    for sequence in sequences:
        steps = list(sequence)
        for level in range(layer.num_layers):
            outputs = []
            for suffix in ("", "_reverse")[: 2 if layer.bidirectional else 1]:
                names = [f"{kind}_l{level}{suffix}" for kind in ("weight_ih", "weight_hh")]
                biases = [f"{kind}_l{level}{suffix}" for kind in ("bias_ih", "bias_hh")]
                own = [layer.get_parameter(name) for name in (*names, *biases)]
                h = c = torch.zeros(1, layer.hidden_size)
                through = []
                for x in reversed(steps) if suffix else steps:
                    for name, read in zip(names, (x.unsqueeze(0), h), strict=True):
                        found[name] = found.get(name, torch.tensor(0.0)) + read.T @ read
                    if layer.mode == "LSTM":
                        h, c = cells[layer.mode](x.unsqueeze(0), (h, c), *own)
                    else:
                        h = cells[layer.mode](x.unsqueeze(0), h, *own)
                    through.append(h[0])
                outputs.append(through[::-1] if suffix else through)
            steps = [torch.cat(parts) for parts in zip(*outputs, strict=True)]
    return found


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(3, 2, num_layers=2, bidirectional=True, dropout=0.5),
        nn.LSTM(3, 2, batch_first=True),
        nn.GRU(3, 2, num_layers=2),
        nn.RNN(3, 2, bidirectional=True),
        nn.RNN(3, 2, nonlinearity="relu"),
    ],
    ids=str,
)
def test_recurrent_layers_read_inputs_and_hidden_states_of_every_step(layer: nn.RNNBase) -> None:
    sequences = [drawn(4, 3), drawn(4, 3).flip(0), drawn(4, 3).neg()]
    with torch.no_grad():
        expected = unrolled(layer, sequences)
    inputs = inputs_of(layer, torch.stack(sequences, dim=0 if layer.batch_first else 1))
    for name, products in expected.items():
        torch.testing.assert_close(products_of(inputs, name)[0], products)
    require_consistent(inputs, layer)


def test_packed_sequences_end_at_their_own_steps() -> None:
    layer = nn.LSTM(3, 2, num_layers=2, bidirectional=True).eval()
    sequences = [drawn(4, 3), drawn(4, 3)[:1], drawn(4, 3)[1:3]]
    padded = nn.utils.rnn.pad_sequence(sequences)
    packed = pack_padded_sequence(padded, torch.tensor([4, 1, 2]), enforce_sorted=False)
    inputs = LayerInputs(layer, [lambda: layer(packed)])
    with torch.no_grad():
        expected = unrolled(layer, sequences)
    for name, products in expected.items():
        torch.testing.assert_close(products_of(inputs, name)[0], products)


def test_the_output_projection_of_attention_reads_what_is_attended_to() -> None:
    layer = nn.MultiheadAttention(4, 2)
    nn.init.zeros_(layer.out_proj.bias)
    inputs = LayerInputs(layer.eval(), [lambda: layer(x, x, x)])
    x = drawn(5, 3, 4)
    products = products_of(inputs, "out_proj.weight")
    weight = layer.out_proj.weight
    torch.testing.assert_close(
        (weight @ products[0] * weight).sum(), layer(x, x, x)[0].square().sum()
    )


class Unusual(nn.Module):
    """Uses the weight of a layer without the layer."""

    def __init__(self, use: Callable[[nn.Linear, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.layer, x)


def test_a_weight_is_recognised_without_its_layer() -> None:
    model, x = (
        Unusual(lambda layer, x: F.linear(input=x, weight=layer.weight.detach())),
        drawn(4, 3),
    )
    torch.testing.assert_close(products_of(inputs_of(model, x), "layer.weight")[0], x.T @ x)


@pytest.mark.parametrize(
    ("use", "why"),
    [
        (lambda layer, x: x @ layer.weight.T, r"the network multiplies by it with torch\.\w+$"),
        (lambda layer, x: F.linear(x, layer.weight.T), "by a part of it, or by its transpose"),
        (lambda layer, x: F.linear(x, layer.weight[:2]), "by a part of it, or by its transpose"),
        (lambda layer, x: x, "no layer reads it in the scoring batches"),
    ],
)
def test_an_input_that_cannot_be_observed_is_a_reason_to_skip(
    use: Callable[[nn.Linear, Tensor], Tensor], why: str
) -> None:
    inputs = inputs_of(Unusual(use), drawn(4, 3))
    with pytest.raises(Skip, match=rf"the input of layer\.weight cannot be observed: .*{why}"):
        inputs.squares()
