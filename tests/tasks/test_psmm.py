from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from benchmarks.speed.psmm import published_formulation, published_loss
from harness.prunable import prunable_weights
from harness.sparse_kernels import SparseExecution
from tasks.ptb import model as module
from tasks.ptb.model import PSMM, MixtureLoss, Recurrence

WORDS, HIDDEN, BATCH, LENGTH = 11, 5, 3, 7


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate 4 of the 21 predictions at a time: six pieces, the last one smaller."""
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 4 * WORDS)
    monkeypatch.setattr(module, "EVALUATED_AT_ONCE", 4)


@pytest.fixture
def model() -> PSMM:
    torch.manual_seed(0)
    psmm = PSMM(WORDS, HIDDEN, dropout=0.3).double()
    for parameter in psmm.parameters():
        torch.nn.init.normal_(parameter)
    return psmm


@pytest.fixture
def tokens() -> Tensor:
    """A window in which words come back, so that there is something to point at."""
    return torch.randint(WORDS // 2, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def targets() -> Tensor:
    """Words of which about half occur in the window."""
    return torch.randint(WORDS, (BATCH, LENGTH), generator=torch.Generator().manual_seed(2))


def plain_loss(model: PSMM, tokens: Tensor, targets: Tensor) -> Tensor:
    return -model.target_log_probabilities(tokens, targets)[0].mean()


def all_words_loss(model: PSMM, tokens: Tensor, targets: Tensor) -> Tensor:
    log_p: Tensor = model(tokens)[0]
    return -log_p.gather(2, targets.unsqueeze(2)).mean()


def with_gradients(
    model: PSMM, loss: Callable[[PSMM, Tensor, Tensor], Tensor], tokens: Tensor, targets: Tensor
) -> dict[str, Tensor]:
    """The loss and the gradients of all parameters, from the same random state."""
    torch.manual_seed(3)
    value = loss(model, tokens, targets)
    gradients = torch.autograd.grad(value, list(model.parameters()))
    names = (name for name, _ in model.named_parameters())
    return {"loss": value.detach(), **dict(zip(names, gradients, strict=True))}


def test_the_paper_size_has_the_published_number_of_parameters() -> None:
    model = PSMM(10_000, 300)
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_823_000
    prunable = prunable_weights(model)
    assert {name: weight.numel() for name, weight in prunable.items()} == {
        "embedding.weight": 3_000_000,
        "lstm.weight_ih": 360_000,
        "lstm.weight_hh": 360_000,
        "query.weight": 90_000,
        "vocabulary.weight": 3_000_000,
    }


def test_two_words_by_hand() -> None:
    """With zero weights h = 0, so that attention and vocabulary are uniform."""
    model = PSMM(4, 2).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    log_p, (hidden, cell) = model(torch.tensor([[3, 1]]))
    first = [1 / 8, 1 / 8, 1 / 8, 1 / 2 + 1 / 8]  # one position and the sentinel
    second = [1 / 12, 1 / 3 + 1 / 12, 1 / 12, 1 / 3 + 1 / 12]  # two positions and the sentinel
    torch.testing.assert_close(log_p.exp(), torch.tensor([[first, second]]))
    assert hidden.tolist() == cell.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
class TestAgainstThePublishedFormulation:
    def test_log_probabilities_of_all_words(
        self, model: PSMM, tokens: Tensor, training: bool
    ) -> None:
        model.train(training)
        torch.manual_seed(3)
        ours, _ = model(tokens)
        torch.manual_seed(3)
        torch.testing.assert_close(ours, published_formulation(model, tokens), rtol=0, atol=1e-9)

    @pytest.mark.parametrize(
        "loss",
        [
            PSMM.loss,
            plain_loss,
            all_words_loss,
        ],
        ids=["loss", "target_log_probabilities", "forward"],
    )
    def test_loss_and_gradients(
        self,
        model: PSMM,
        tokens: Tensor,
        targets: Tensor,
        training: bool,
        loss: Callable[[PSMM, Tensor, Tensor], Tensor],
    ) -> None:
        model.train(training)
        ours = with_gradients(model, loss, tokens, targets)
        published = with_gradients(model, published_loss, tokens, targets)
        torch.testing.assert_close(ours, published, rtol=0, atol=1e-9)


def test_under_autocast_the_loss_is_nearly_the_same(
    model: PSMM, tokens: Tensor, targets: Tensor
) -> None:
    single = model.float().eval()
    exact = with_gradients(single, PSMM.loss, tokens, targets)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = with_gradients(single, PSMM.loss, tokens, targets)
    assert mixed["loss"].dtype == torch.float32
    assert float(mixed["loss"]) == pytest.approx(float(exact["loss"]), rel=0.02)
    assert not torch.equal(mixed["embedding.weight"], exact["embedding.weight"])


def test_dropout_draws_two_masks_a_window_and_none_in_evaluation(
    model: PSMM, tokens: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[torch.Size] = []

    def recorded(shape: torch.Size) -> Tensor:
        shapes.append(shape)
        return torch.zeros(shape, dtype=torch.bool)

    monkeypatch.setattr(model, "dropped", recorded)
    model.train().loss(tokens, targets)
    assert shapes == [torch.Size([LENGTH, BATCH, HIDDEN])] * 2
    model.eval().loss(tokens, targets)
    assert len(shapes) == 2


def test_dropout_drops_the_asked_fraction_and_keeps_the_mean() -> None:
    model = PSMM(2, 2, dropout=0.3)
    torch.manual_seed(0)
    features = model._drop(torch.ones(100, 100, 10))
    assert features.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert features.mean().item() == pytest.approx(1, abs=0.01)


def test_probabilities_sum_to_one(model: PSMM, tokens: Tensor) -> None:
    total = model(tokens)[0].exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


def test_the_prediction_at_a_position_has_seen_nothing_after_it(
    model: PSMM, tokens: Tensor
) -> None:
    model.eval()
    changed = tokens.clone()
    changed[:, 4:] = WORDS - 1
    before, after = model(tokens)[0], model(changed)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


def test_evaluation_in_pieces_equals_all_words_at_once(
    model: PSMM, tokens: Tensor, targets: Tensor
) -> None:
    model.eval()
    all_words, _ = model(tokens)
    with torch.no_grad():
        ours, _ = model.target_log_probabilities(tokens, targets)
    torch.testing.assert_close(ours, all_words.gather(2, targets.unsqueeze(2)).squeeze(2))


def test_predictions_are_the_same_without_a_graph(model: PSMM, tokens: Tensor) -> None:
    model.eval()
    expected, state = model(tokens)
    with torch.no_grad():
        found, state_without = model(tokens)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(state_without, state)


@pytest.mark.parametrize("scale", [1, 1000])
def test_sparse_kernels_predict_the_same(
    model: PSMM, tokens: Tensor, targets: Tensor, scale: int
) -> None:
    model.eval()
    masks = {}
    for name, weight in prunable_weights(model).items():
        masks[name] = torch.rand(weight.shape) < 0.5
        weight.data *= masks[name] * (scale if name.startswith("vocabulary") else 1)
    with torch.no_grad():
        expected = model(tokens)[0], model.target_log_probabilities(tokens, targets)[0]
        with SparseExecution(model, masks) as execution:
            assert set(execution.kernels) == {"lstm", "query", "vocabulary"}
            found = model(tokens)[0], model.target_log_probabilities(tokens, targets)[0]
    torch.testing.assert_close(found, expected)


def test_state_carries_the_recurrence_into_the_next_window(model: PSMM, tokens: Tensor) -> None:
    model.eval()
    inputs = model.embedding(tokens.t())
    whole, end = model.recur(inputs)
    first, state = model.recur(inputs[:4])
    second, state = model.recur(inputs[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(state, end)
    log_p, (hidden, _) = model(tokens[:, 4:], model(tokens[:, :4])[1])
    torch.testing.assert_close(hidden, end[0])
    assert not torch.allclose(log_p, model(tokens[:, 4:])[0])


class TestExtremes:
    @pytest.mark.parametrize("training", [True, False])
    def test_where_the_published_log_is_minus_infinity_ours_is_finite(
        self, model: PSMM, tokens: Tensor, training: bool
    ) -> None:
        model.train(training)
        with torch.no_grad():
            model.vocabulary.bias[WORDS - 1] = 2000  # takes all the vocabulary's probability
        targets = torch.full_like(tokens, WORDS - 2)  # occurs nowhere
        assert published_formulation(model, tokens).min() == -math.inf
        losses = [with_gradients(model, loss, tokens, targets) for loss in (PSMM.loss, plain_loss)]
        for values in losses:
            assert all(value.isfinite().all() for value in values.values())
            assert 1900 < values["loss"] < 2100
        torch.testing.assert_close(*losses)
        log_p, _ = model(tokens)
        assert log_p.isfinite().all()
        assert log_p[..., -2].mean() < -1900

    def test_a_sentinel_that_takes_or_gives_everything(self, model: PSMM, tokens: Tensor) -> None:
        model.float()
        for size in (1e4, -1e4):
            torch.nn.init.constant_(model.sentinel, size)
            torch.nn.init.ones_(model.query.bias)
            for loss in (PSMM.loss, plain_loss):
                values = with_gradients(model, loss, tokens, tokens)
                assert all(value.isfinite().all() for value in values.values())


class TestSecondDerivatives:
    def test_double_backward_equals_finite_differences_of_the_gradient(
        self, model: PSMM, tokens: Tensor, targets: Tensor
    ) -> None:
        model.eval()
        parameters = list(model.parameters())
        direction = [torch.randn_like(parameter) for parameter in parameters]

        def gradients() -> tuple[Tensor, ...]:
            return torch.autograd.grad(
                plain_loss(model, tokens, targets), parameters, create_graph=True
            )

        exact = torch.autograd.grad(gradients(), parameters, direction)

        step = 1e-5

        def moved(by: float) -> tuple[Tensor, ...]:
            with torch.no_grad():
                for parameter, along in zip(parameters, direction, strict=True):
                    parameter.add_(along, alpha=by)
            return tuple(gradient.detach() for gradient in gradients())

        ahead, behind = moved(step), moved(-2 * step)
        for hessian_product, plus, minus in zip(exact, ahead, behind, strict=True):
            torch.testing.assert_close(
                hessian_product, (plus - minus) / (2 * step), rtol=1e-6, atol=1e-8
            )

    def test_all_words_can_be_differentiated_twice(self, model: PSMM, tokens: Tensor) -> None:
        model.eval()
        small = tokens[:2, :3]
        assert gradgradcheck(
            lambda weight: functional_call(model, {"query.weight": weight}, (small,))[0],
            (model.query.weight,),
        )

    @pytest.mark.parametrize("name", ["lstm.weight_hh", "vocabulary.weight", "query.weight"])
    def test_the_fast_loss_refuses_with_a_clear_error(
        self, model: PSMM, tokens: Tensor, targets: Tensor, name: str
    ) -> None:
        loss = model.loss(tokens, targets)
        with pytest.raises(RuntimeError, match="use -target_log_probabilities"):
            torch.autograd.grad(loss, model.get_parameter(name), create_graph=True)

    def test_so_does_the_recurrence_on_its_own(self) -> None:
        weight = torch.zeros(4, 1, requires_grad=True)
        hidden = Recurrence.apply(torch.zeros(2, 1, 1), torch.zeros(4, 1), weight, torch.zeros(4))
        with pytest.raises(RuntimeError, match="differentiated only once"):
            torch.autograd.grad(hidden.sum(), weight, create_graph=True)


def test_torch_func_differentiates_each_sample(
    model: PSMM, tokens: Tensor, targets: Tensor
) -> None:
    model.eval()
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def log_p(parameters: dict[str, Tensor], tokens: Tensor) -> Tensor:
        all_words: Tensor = functional_call(model, parameters, (tokens.unsqueeze(0),))[0]
        return all_words[0, -1]

    per_sample = torch.func.vmap(torch.func.jacrev(log_p), in_dims=(None, 0))(parameters, tokens)
    expected = torch.autograd.functional.jacobian(
        lambda sentinel: log_p({**parameters, "sentinel": sentinel}, tokens[1]),
        parameters["sentinel"],
    )
    torch.testing.assert_close(per_sample["sentinel"][1], expected)


class TestRecurrence:
    def test_equals_an_lstm_cell(self) -> None:
        torch.manual_seed(0)
        cell = torch.nn.LSTMCell(2, 3).double()
        inputs = torch.randn(4, 2, 2, dtype=torch.float64)
        bias = cell.bias_ih + cell.bias_hh
        states = Recurrence.apply(inputs, cell.weight_ih, cell.weight_hh, bias)
        state = None
        for step, expected in zip(inputs, states, strict=True):
            state = cell(step, state)
            torch.testing.assert_close(state[0], expected)

    @pytest.mark.parametrize("length", [1, 3])
    def test_gradients(self, length: int) -> None:
        torch.manual_seed(0)
        shapes = [(length, 2, 2), (12, 2), (12, 3), (12,)]
        variables = [
            torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes
        ]
        assert gradcheck(Recurrence.apply, variables)


class TestMixtureLoss:
    def test_by_hand(self) -> None:
        """Half of the mass points at the target, half goes to a vocabulary of four words."""
        loss = MixtureLoss.apply(
            torch.zeros(1, 2),
            torch.zeros(4, 2),
            torch.zeros(4),
            torch.tensor([0.5]).log(),
            torch.tensor([0.5]).log(),
            torch.tensor([3]),
        )
        assert loss.item() == pytest.approx(-math.log(0.5 + 0.5 / 4))

    def test_a_probability_that_underflows(self) -> None:
        """exp(-200) is no number of float32, but its logarithm is; the pointer has nothing."""
        loss = MixtureLoss.apply(
            torch.zeros(2, 2),
            torch.zeros(2, 2),
            torch.tensor([0.0, -200.0]),
            torch.tensor([-1e4, -1e4]),
            torch.zeros(2),
            torch.tensor([1, 0]),
        )
        assert loss.item() == pytest.approx((200 + 0) / 2)

    @pytest.mark.parametrize("predictions", [3, 4, 9], ids=["less", "one piece", "three pieces"])
    def test_gradients(self, predictions: int) -> None:
        torch.manual_seed(0)
        shapes = ((predictions, 2), (WORDS, 2), (WORDS,), (predictions,), (predictions,))
        inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
        targets = torch.randint(WORDS, (predictions,))
        assert gradcheck(lambda *inputs: MixtureLoss.apply(*inputs, targets), inputs)

    def test_backward_can_be_repeated_and_scaled(self) -> None:
        torch.manual_seed(0)
        weight = torch.randn(WORDS, 2, requires_grad=True)
        rest = (torch.zeros(WORDS), torch.zeros(3), torch.zeros(3), torch.tensor([0, 1, 2]))
        loss = MixtureLoss.apply(torch.randn(3, 2), weight, *rest)
        (once,) = torch.autograd.grad(loss, weight, retain_graph=True)
        (twice,) = torch.autograd.grad(2 * loss, weight)
        torch.testing.assert_close(twice, 2 * once)


def test_the_model_works_after_hidden_units_and_embedding_features_were_cut(
    model: PSMM, tokens: Tensor, targets: Tensor
) -> None:
    """Cutting equals masking: hidden unit 1 and embedding feature 0 are gone."""
    units, features = torch.tensor([0, 2, 3, 4]), torch.tensor([1, 2, 3, 4])
    gates = torch.cat([units + HIDDEN * gate for gate in range(4)])
    index: dict[str, list[Tensor | None]] = {
        "embedding.weight": [None, features],
        "lstm.weight_ih": [gates, features],
        "lstm.weight_hh": [gates, units],
        "lstm.bias_ih": [gates],
        "lstm.bias_hh": [gates],
        "query.weight": [units, units],
        "query.bias": [units],
        "vocabulary.weight": [None, units],
        "sentinel": [units],
    }
    model.eval()
    masked, cut = {}, {}
    for name, dimensions in index.items():
        parameter = model.get_parameter(name)
        mask, kept = torch.ones_like(parameter), parameter.detach()
        for dimension, chosen in enumerate(dimensions):
            if chosen is not None:
                gone = torch.ones(parameter.shape[dimension], dtype=torch.bool)
                gone[chosen] = False
                mask.index_fill_(dimension, gone.nonzero().squeeze(1), 0)
                kept = kept.index_select(dimension, chosen)
        masked[name], cut[name] = parameter.detach() * mask, kept
    expected, _ = functional_call(model, masked, (tokens,))
    for name, kept in cut.items():
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, torch.nn.Parameter(kept))
    model.lstm.input_size = len(features)
    torch.testing.assert_close(model(tokens)[0], expected)
    torch.testing.assert_close(
        model.loss(tokens, targets), -expected.gather(2, targets.unsqueeze(2)).mean()
    )
    model.train().loss(tokens, targets).backward()


def test_learns_to_copy() -> None:
    """Windows that repeat one random word: only the pointer can know it."""
    torch.manual_seed(0)
    model = PSMM(50, 16, dropout=0.1)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        window = torch.randint(25, (16, 1)).expand(16, 6)
        optimiser.zero_grad()
        model.loss(window, window).backward()
        optimiser.step()
    unseen = torch.arange(25, 50).unsqueeze(1).expand(25, 6)
    log_p, _ = model.eval().target_log_probabilities(unseen, unseen)
    assert log_p[:, 1:].exp().mean() > 0.5
