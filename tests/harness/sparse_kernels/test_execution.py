"""The context in which layers compute sparsely."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.sparse_kernels import SPARSE_CSR, SparseExecution
from tests.harness.sparse_kernels.networks import pruned
from tests.harness.sparse_kernels.test_layers import convolutional, perceptron

ROWS = torch.randn(6, 20, generator=torch.Generator().manual_seed(0))


def test_within_the_context_layers_are_sparse_and_afterwards_dense() -> None:
    model = perceptron()
    masks = pruned(model, 0.3)
    with SparseExecution(model, masks) as execution:
        assert execution.kernels == dict.fromkeys(("0", "2", "5"), SPARSE_CSR)
        assert model[0](ROWS).stride() == (1, 6)
    assert model[0](ROWS).stride() == (30, 1)
    assert not any("forward" in vars(module) for module in model.modules())


def test_an_error_within_the_context_leaves_layers_dense() -> None:
    model = perceptron()
    with pytest.raises(RuntimeError), SparseExecution(model, pruned(model, 0.3)):
        model(torch.randn(6, 21))
    assert not any("forward" in vars(module) for module in model.modules())


def test_only_chosen_layers_are_sparse() -> None:
    model = perceptron()
    execution = SparseExecution(model, pruned(model, 0.3), ["2"])
    assert execution.kernels == {"2": SPARSE_CSR}
    assert execution.dense == {"0": "not chosen", "5": "not chosen"}


def test_outputs_are_laid_out_as_by_dense_layers_where_that_is_asked_for() -> None:
    model = perceptron()
    with SparseExecution(model, pruned(model, 0.3), contiguous=True):
        assert model[0](ROWS).is_contiguous()


def test_state_and_parameters_are_those_of_the_dense_model() -> None:
    model = perceptron()
    before = list(model.parameters()), list(model.state_dict())
    with SparseExecution(model, pruned(model, 0.3)):
        model(ROWS)
        assert (list(model.parameters()), list(model.state_dict())) == before


def test_a_changed_weight_is_seen() -> None:
    model = nn.Linear(20, 4)
    masks = pruned(model, 0.3)
    with torch.no_grad(), SparseExecution(model, masks):
        before = model(ROWS) - model.bias
        model.weight.mul_(3)
        torch.testing.assert_close(model(ROWS) - model.bias, 3 * before)
        model.weight.data = model.weight.data * 2
        torch.testing.assert_close(model(ROWS) - model.bias, 6 * before)
        model.load_state_dict({"weight": torch.zeros(4, 20), "bias": torch.zeros(4)})
        assert not model(ROWS).any()


def test_training_goes_as_it_does_densely_also_after_a_further_pruning() -> None:
    dense, sparse = perceptron().double(), perceptron().double()
    sparse.load_state_dict(dense.state_dict())
    rows, labels = ROWS.double(), torch.tensor([0, 1, 2, 0, 1, 2])
    first, second = (pruned(perceptron(), 0.6, seed) for seed in (0, 1))
    masks = first, {name: mask & first[name] for name, mask in second.items()}
    execution = SparseExecution(sparse, masks[0])
    for model in (dense, sparse):
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        with execution if model is sparse else torch.enable_grad():
            for present in masks:
                if model is sparse:
                    execution.update(present)
                zero(model, present)
                for _ in range(3):
                    optimizer.zero_grad()
                    F.cross_entropy(model(rows), labels).backward()
                    for name, mask in present.items():
                        gradient = model.get_parameter(name).grad
                        assert gradient is not None
                        gradient.mul_(mask)
                    optimizer.step()
                    zero(model, present)
    for one, other in zip(dense.parameters(), sparse.parameters(), strict=True):
        torch.testing.assert_close(other, one)


def zero(model: nn.Module, masks: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)


def test_gradients_accumulate() -> None:
    model = nn.Linear(20, 4)
    masks = pruned(model, 0.3)
    with SparseExecution(model, masks):
        model(ROWS).sum().backward()
        assert model.weight.grad is not None
        once = model.weight.grad.clone()
        for _ in range(2):
            model(ROWS).sum().backward()
    torch.testing.assert_close(model.weight.grad, 3 * once)


def test_a_gradient_that_somebody_keeps_is_not_overwritten() -> None:
    model = nn.Linear(20, 4)
    with SparseExecution(model, pruned(model, 0.3)):
        model(ROWS).sum().backward()
        kept = model.weight.grad
        assert kept is not None
        before = kept.clone()
        model.zero_grad()
        model(2 * ROWS).sum().backward()
    assert torch.equal(kept, before)


def test_copies_compute_densely_with_their_own_weights() -> None:
    model = perceptron().eval()
    masks = pruned(model, 0.3)
    with SparseExecution(model, masks):
        copied, unpickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        for other in (copied, unpickled):
            torch.testing.assert_close(other(ROWS), model(ROWS))
            nn.init.zeros_(other.get_parameter("5.weight"))
            nn.init.zeros_(other.get_parameter("5.bias"))
            assert not other(ROWS).any()
            assert other[0](ROWS).is_contiguous()
        assert model(ROWS).any()


def test_tied_weights_are_sparse_in_each_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert set(SparseExecution(model, pruned(model, 0.3)).kernels) == {"0", "1"}


def test_layers_without_a_sparse_kernel_stay_dense_for_a_reason() -> None:
    model = nn.ModuleDict(
        {
            "words": nn.Embedding(5, 4),
            "turned": nn.ConvTranspose2d(2, 2, 2),
            "gated": nn.GRUCell(3, 3),
            "normed": nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
            "low": nn.Linear(3, 3).half(),
        }
    )
    assert SparseExecution(model, pruned(model, 0.3)).dense == {
        "words": "a look-up reads one row, whatever that holds",
        "turned": "ConvTranspose2d has no sparse kernel",
        "gated": "GRUCell has no sparse kernel",
        "normed.parametrizations.weight": "ParametrizationList has no sparse kernel",
        "low": "no sparse kernel for torch.float16",
    }


def test_too_large_a_matrix_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.sparse_kernels.layers.MOST_ENTRIES", 10)
    model = convolutional()
    with SparseExecution(model, pruned(model, 0.5)):
        assert model[0](torch.randn(2, 4, 9, 7)).is_contiguous()


def test_masks_and_layers_have_to_fit_the_model() -> None:
    model = perceptron()
    masks = pruned(model, 0.3)
    with pytest.raises(ValueError, match=r"no weight 'x\.weight' for a mask"):
        SparseExecution(model, {"x.weight": masks["0.weight"]})
    with pytest.raises(
        ValueError, match=r"'0.weight' has the shape \(7, 30\), the weight \(30, 20"
    ):
        SparseExecution(model, {"0.weight": masks["2.weight"]})
    with pytest.raises(ValueError, match="no sparse kernel: 1: no masked layer"):
        SparseExecution(model, masks, ["0", "1"])
