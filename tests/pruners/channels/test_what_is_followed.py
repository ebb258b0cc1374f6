"""Networks that are easily misread: they are followed correctly, pinned, or refused."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from harness.errors import RequestError
from pruners.channels import shrink, trace_channels, verify_shrink
from tests.pruners.channels.cutting import Between

IMAGE = (2, 3, 6, 6)


def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(IMAGE, dtype=torch.float64)


def assert_right(
    model: Any, *inputs: Any, forward: Callable[..., Any] | None = None
) -> dict[str, int]:
    """Remove every second channel, compare with the masked network, and return the groups."""
    torch.manual_seed(1)
    model = model.double().eval()
    graph = trace_channels(model, inputs, forward=forward)
    keep = {group.name: range(1, group.size, 2) or [0] for group in graph.groups}
    small = copy.deepcopy(model)
    again = shrink(small, graph, keep)
    verify_shrink(model, graph, keep, small, inputs, forward=forward, tolerance=1e-10)
    assert_it_learns(small, *inputs, forward=forward)
    assert again.sizes() == {name: len(kept) for name, kept in keep.items()}
    return graph.sizes()


def assert_it_learns(model: Any, *inputs: Any, forward: Callable[..., Any] | None = None) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    output = forward(model, *inputs) if forward else model(*inputs)
    while not isinstance(output, Tensor):
        output = output[0]
    output.square().sum().backward()
    optimizer.step()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def reason(between: Callable[..., Any], outgoing: int | None = None) -> str:
    """Return why the channels between two convolutions are pinned."""
    after = Between(lambda x: x)
    after.first = nn.Conv2d(2, 8, 1)
    network = nn.Sequential(Between(between, outgoing=outgoing), after)
    graph = trace_channels(network.double(), images())
    assert graph.sizes() == {"0.last": 2, "1.first": 8}
    return graph.pinned["0.first.weight:0"]


# Computed weights


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Any:
        flat = self.weight.reshape(self.weight.shape[0], -1)
        flat = flat - flat.detach().sum(1, keepdim=True)
        return F.conv2d(x, flat.reshape_as(self.weight), self.bias)


def test_a_weight_that_is_flattened_and_given_its_shape_back_is_cut_on_both_axes() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), Standardised(8, 12, 3), nn.Conv2d(12, 2, 1))
    assert assert_right(network, images()) == {"0": 8, "1": 12}


def test_kernels_that_are_mixed_from_a_bank_are_cut_in_the_bank() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.choice = nn.Conv2d(3, 8, 1), nn.Linear(8, 4)
            self.bank, self.last = nn.Parameter(torch.randn(4, 6, 8, 3, 3)), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            batch, channels, *size = x.shape
            kernels = self.choice(x.mean((2, 3))) @ self.bank.flatten(1)
            kernels = kernels.view(-1, channels, 3, 3)
            x = F.conv2d(x.reshape(1, -1, *size), kernels, padding=1, groups=batch)
            return self.last(x.view(batch, -1, *size))

    assert sorted(assert_right(Mixed(), images()).values()) == [4, 6, 8]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "normalise",
    [parametrizations.weight_norm, nn.utils.weight_norm, parametrizations.spectral_norm],
)
def test_depthwise_convolutions_with_normalised_weights_follow(normalise: Any) -> None:
    torch.manual_seed(0)
    depthwise = normalise(nn.Conv2d(8, 8, 3, groups=8))
    network = nn.Sequential(nn.Conv2d(3, 8, 1), depthwise, nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    graph = trace_channels(network, images().float())
    assert graph.sizes() == {"0": 8}
    shrink(network, graph, {"0": [1, 3, 6]})
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (3, 3, 3)
    assert_it_learns(network, images().float())


def test_spectral_normalisation_lets_the_layer_before_be_cut() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), parametrizations.spectral_norm(nn.Conv2d(8, 6, 3)), nn.Conv2d(6, 2, 1)
    )
    assert sorted(assert_right(network, images()).values()) == [6, 8]


# Numbers of groups


def test_a_number_of_groups_written_in_the_code_pins() -> None:
    kernel = torch.ones(8, 1, 3, 3).double()
    assert "written in the code" in reason(lambda x: F.conv2d(x, kernel, groups=8))


@pytest.mark.parametrize("groups", [lambda self, x: x.shape[1], lambda self, x: self.width])
def test_a_group_for_each_channel_follows_the_channels(groups: Any) -> None:
    class Blurred(Between):
        def __init__(self) -> None:
            super().__init__(None)
            self.kernel: Tensor
            self.register_buffer("kernel", torch.ones(8, 1, 3, 3))

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            x = F.conv2d(x, self.kernel, groups=groups(self, x))
            return self.last(F.group_norm(x, groups(self, x)))

    assert assert_right(Blurred(), images()) == {"first": 8}


def test_groups_of_two_channels_are_removed_as_a_whole() -> None:
    class Pairs(Between):
        def __init__(self) -> None:
            super().__init__(None)
            self.kernel = nn.Parameter(torch.randn(8, 2, 1, 1))

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            return self.last(F.conv2d(x, self.kernel, groups=x.shape[1] // 2))

    assert assert_right(Pairs(), images()) == {"first": 4}


def test_normalising_a_number_of_groups_written_in_the_code_pins() -> None:
    class Normalised(Between):
        def __init__(self) -> None:
            super().__init__(None)
            self.scale = nn.Parameter(torch.ones(8))

        def forward(self, x: Tensor) -> Any:
            return self.last(F.group_norm(self.first(x), 8, self.scale))

    network = nn.Sequential(nn.Conv2d(3, 3, 1), Normalised())
    graph = trace_channels(network, images().float())
    assert "written in the code" in graph.pinned["1.first.weight:0"]


def test_groups_of_several_channels_whose_number_a_module_keeps_stay_as_many() -> None:
    class Grouped(Between):
        def __init__(self) -> None:
            super().__init__(None)
            self.groups, self.kernel = 2, nn.Parameter(torch.randn(6, 4, 1, 1))
            self.scale, self.last = nn.Parameter(torch.randn(6)), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Any:
            x = F.conv2d(self.first(x), self.kernel, groups=self.groups)
            return self.last(F.group_norm(x, self.groups, self.scale))

    assert assert_right(Grouped(), images()) == {"first": 4, "last": 3}


# Attention


@pytest.mark.parametrize("key_heads", [1, 2])
def test_query_heads_follow_the_key_head_that_they_share(key_heads: int) -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = nn.Linear(6, 32), nn.Linear(6, 8 * key_heads)
            self.v, self.out = nn.Linear(6, 8 * key_heads), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Any:
            q, k, v = (f(x).view(2, 5, -1, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            return self.out(y.transpose(1, 2).flatten(2))

    sizes = assert_right(Grouped(), torch.randn(2, 5, 6).double())
    assert sizes == {"q": 2} if key_heads == 2 else {"q": 4}


# Numbers in the code


def test_a_size_that_is_compared_with_a_number_stays() -> None:
    def asserted(x: Tensor) -> Any:
        assert x.shape[1] == 8
        return x

    assert "compared with a number" in reason(asserted)
    assert "compared with a number" in reason(lambda x: x if x.shape == (2, 8, 6, 6) else -x)
    assert "compared with a number" in reason(lambda x: x if x.shape[1] > 4 else -x)
    assert "compared with a number" in reason(lambda x: x * {8: 2.0}.get(x.shape[1], 1.0))


def test_comparisons_with_a_certain_result_do_not_pin() -> None:
    def compared(x: Tensor) -> Any:
        assert x.shape[1] > 0
        assert x.shape[1] <= 8
        assert x.shape[1] != 9
        return x

    assert assert_right(Between(compared), images()) == {"first": 8}


def test_sizes_that_must_be_equal_are_the_same_channels() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
            self.a, self.b = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Any:
            left, right = self.left(x), self.right(x)
            assert left.shape == right.shape
            return self.a(left) + self.b(right)

    assert assert_right(Joined(), images()) == {"left": 8}


@pytest.mark.parametrize(
    "made",
    [
        lambda: torch.linspace(0, 1, 8),
        lambda: torch.logspace(0, 1, 8),
        lambda: torch.randint(1, 3, (8,)),
        lambda: torch.randperm(8),
        lambda: torch.hann_window(8),
        lambda: torch.empty_strided((8,), (1,)).fill_(1),
        lambda: F.one_hot(torch.tensor(3), 8),
        lambda: torch.ops.aten.zeros([8]),
        lambda: torch.normal(0.0, 1.0, (8,)),
    ],
)
def test_new_tensors_of_a_written_size_pin(made: Any) -> None:
    assert "outside" in reason(lambda x: x * made()[:, None, None])


def scripted_offset(x: Tensor) -> Any:
    return x + torch.zeros([8, 1, 1], dtype=x.dtype)


def scripted_view(x: Tensor) -> Any:
    return x.view(2, 8, 36).view(2, 8, 6, 6)


def scripted_split(x: Tensor) -> Any:
    return torch.cat(x.split(4, 1), 1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_numbers_in_compiled_functions_count_as_written_in_the_code() -> None:
    assert "outside" in reason(torch.jit.script(scripted_offset))
    assert "written in the code" in reason(torch.jit.script(scripted_view))
    assert "written in the code" in reason(torch.jit.script(scripted_split))


def test_operations_called_by_their_aten_names_are_read_as_their_functions() -> None:
    def by_hand(x: Tensor) -> Any:
        return torch.ops.aten.view(x, [2, x.shape[1], 36]).unflatten(2, (6, 6))

    assert assert_right(Between(by_hand), images()) == {"first": 8}
    assert "written" in reason(lambda x: torch.ops.aten.view(x, [2, 8, 36]).unflatten(2, (6, 6)))


@pytest.mark.parametrize(
    "positions",
    [
        lambda width: torch.arange(width),
        lambda width: torch.arange(0, 2 * width, 2),
        lambda width: torch.linspace(0, 1, width),
        lambda width: torch.arange(width // 2).repeat(2),
        lambda width: (torch.arange(width) < 4).double(),
        lambda width: torch.hann_window(width),
    ],
)
def test_values_that_depend_on_the_position_of_a_channel_pin_it(positions: Any) -> None:
    assert "position" in reason(lambda x: x + positions(x.shape[1])[:, None, None])


def test_widths_that_agree_by_chance_are_found_on_trial() -> None:
    """One layer is twice as wide as another by chance, which no rule can see."""

    class Chance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow, self.wide = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 16, 1)
            self.a, self.b = nn.Conv2d(8, 4, 1), nn.Conv2d(16, 4, 1)
            self.last = nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Any:
            narrow = self.narrow(x)
            zeros = x.new_zeros(2 * narrow.shape[1], 1, 1)
            return self.last(self.a(narrow) + self.b(self.wide(x) + zeros))

    graph = trace_channels(Chance(), images().float())
    assert graph.sizes() == {"a": 4}
    for layer in ("narrow", "wide"):
        assert "add does not follow a removal (" in graph.pinned[f"{layer}.weight:0"]


def test_a_choice_that_depends_on_parity_is_found_on_trial() -> None:
    def padded(x: Tensor) -> Any:
        return F.pad(x, (0, 0, 0, 0, 0, 1)) if x.shape[1] % 4 else x

    graph = trace_channels(nn.Sequential(nn.Conv2d(3, 3, 1), Between(padded)), images().float())
    assert graph.sizes() == {"0": 3}
    assert "does not follow a removal (it is" in graph.pinned["1.first.weight:0"]


def test_axes_that_a_kernel_slides_over_stay() -> None:
    class Slid(Between):
        def __init__(self) -> None:
            super().__init__(None)
            self.over = nn.Conv3d(1, 1, (3, 1, 1), padding=(1, 0, 0))

        def forward(self, x: Tensor) -> Any:
            return self.last(self.over(self.first(x)[:, None]).squeeze(1))

    graph = trace_channels(nn.Sequential(nn.Conv2d(3, 3, 1), Slid()), images().float())
    assert graph.sizes() == {"0": 3}
    assert "slides over" in graph.pinned["1.first.weight:0"]


def test_the_position_of_the_largest_channel_may_not_be_used() -> None:
    class Largest(Between):
        def __init__(self, use: Any) -> None:
            super().__init__(None)
            self.use = use

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            value, place = x.max(1, keepdim=True)
            return self.last(x * value + (place if self.use else 0))

    assert assert_right(nn.Sequential(Largest(False)), images() + 5) == {"0.first": 8}
    graph = trace_channels(nn.Sequential(nn.Conv2d(3, 3, 1), Largest(True)), images().float())
    assert "position of a channel" in graph.pinned["1.first.weight:0"]


# Outputs


@dataclass
class Features:
    hidden: Tensor


class Holder:
    def __init__(self, hidden: Tensor) -> None:
        self.inner = {"deep": [Features(hidden)]}


class Returning(nn.Module):
    def __init__(self, pack: Any) -> None:
        super().__init__()
        self.before, self.pack = nn.Linear(4, 5), pack
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        hidden = self.first(self.before(x))
        return self.last(hidden), self.pack(hidden)


@pytest.mark.parametrize(
    "pack", [Features, Holder, lambda hidden: torch.distributions.Normal(hidden, 1.0)]
)
def test_outputs_in_objects_stay_and_are_compared(pack: Any) -> None:
    torch.manual_seed(0)
    model, x = Returning(pack).double(), torch.randn(3, 4).double()
    graph = trace_channels(model, x)
    assert graph.sizes() == {"before": 5}
    assert "output" in graph.pinned["first.weight:0"]
    other: Any = copy.deepcopy(model)
    with torch.no_grad():
        other.first.bias += 1
        other.last.bias -= other.last.weight.sum(1)
    assert torch.allclose(other(x)[0], model(x)[0])
    with pytest.raises(Exception, match="differs"):
        verify_shrink(model, graph, {}, other, x)


def test_an_output_that_can_be_read_only_once_is_refused() -> None:
    with pytest.raises(RequestError, match="returns a generator, whose tensors cannot be seen"):
        trace_channels(Returning(lambda hidden: (h for h in [hidden])), torch.zeros(3, 4))


# Nothing about the model changes


class Cached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
        self.cache: Tensor | None = None
        self.calls, self.tables = 0, {"seen": list[torch.Size]()}

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        self.calls += 1
        self.tables["seen"].append(x.shape)
        if self.cache is None:
            self.cache = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
        return self.last(x + self.cache)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_attributes_that_a_pass_sets_are_restored(device: str) -> None:
    model: Any = Cached()
    graph = trace_channels(model, torch.zeros(3, 4, device=device))
    assert (model.cache, model.calls, model.tables) == (None, 0, {"seen": []})
    shrink(model, graph, {"first": [0, 1]})
    assert model(torch.zeros(3, 4)).shape == (3, 2)


class Clipped(nn.Module):
    """Weights, buffers and tables that the pass changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first = nn.Embedding(10, 6, max_norm=0.1), nn.Linear(6, 8)
        self.last, self.history = nn.Linear(8, 2), torch.zeros(3)
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Any:
        self.first.weight.clamp_(-0.01, 0.01)
        self.last.weight.data = self.last.weight.data.sign()
        self.history[0] += 1
        np.random.rand()
        torch.rand(3, generator=self.generator)
        return self.last(self.first(self.table(x)))


def random_state() -> Any:
    state: Any = np.random.get_state()
    return state[1].tolist()


def test_weights_that_the_pass_changes_in_place_are_restored() -> None:
    model: Any = Clipped()
    before = copy.deepcopy(model)
    state = random_state()
    graph = trace_channels(model, torch.arange(10)[None])
    assert graph.sizes() == {"table": 6, "first": 8}
    for name, tensor in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert model.history.tolist() == [0, 0, 0]
    assert torch.equal(model.generator.get_state(), before.generator.get_state())
    assert random_state() == state


@functools.lru_cache
def heads_and_width(shape: Any) -> Any:
    return 2, shape[-1] // 2


def test_earlier_results_of_a_cached_function_are_ignored() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            x = x.view(*x.shape[:2], *heads_and_width(x.shape)).transpose(1, 2)
            return self.last(x.transpose(1, 2).flatten(2))

    model: Any = Heads()
    heads_and_width.cache_clear()
    assert trace_channels(model, torch.zeros(2, 5, 6)).sizes() == {"first": 4}
    assert heads_and_width.cache_info().currsize == 0
    model(torch.zeros(2, 7, 6))
    assert trace_channels(model, torch.zeros(2, 7, 6)).sizes() == {"first": 4}
    assert heads_and_width.cache_info().currsize == 1


def test_a_size_that_outlives_its_pass_is_a_plain_number() -> None:
    kept = []

    def keep(model: Any, x: Tensor) -> Any:
        x = model[0](x)
        kept.append(x.shape[1])
        return model[1](x)

    model: Any = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
    assert trace_channels(model, torch.zeros(2, 3), forward=keep).sizes() == {"0": 8}
    with pytest.raises(RequestError, match="written in the code"):
        trace_channels(
            model,
            torch.zeros(2, 3),
            forward=lambda model, x: model[1](model[0](x).view(2, kept[0])),
        )


def test_a_size_that_outlives_a_pass_that_fails_is_a_plain_number() -> None:
    kept = []

    def fail(model: Any, x: Tensor) -> Any:
        kept.extend([model[0](x).shape[1], model[1].width])
        raise ValueError("no data")

    model: Any = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
    model[1].width = 8
    with pytest.raises(RequestError, match="no data"):
        trace_channels(model, torch.zeros(2, 3), forward=fail)
    for size in kept:
        with pytest.raises(RequestError, match="written in the code"):
            trace_channels(
                model,
                torch.zeros(2, 3),
                forward=lambda model, x, size=size: model[1](model[0](x).view(2, size)),
            )


class Bare(Tensor):
    """A subclass with nothing of its own."""


def test_a_subclass_as_example_input_changes_nothing() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)
    )
    plain = trace_channels(network, images().float())
    assert trace_channels(network, images().float().as_subclass(Bare)).to_json() == plain.to_json()


def test_a_tensor_of_another_class_made_in_the_pass_is_refused() -> None:
    with pytest.raises(RequestError, match="a Bare is made in last: tensors of other classes"):
        trace_channels(Between(lambda x: x.as_subclass(Bare)), images().float())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_network_that_is_cut_inside_inference_can_be_trained(mode: Any) -> None:
    model: Any = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(3, 4)
    with mode():
        graph = trace_channels(model, torch.randn(3, 4))
        shrink(model, graph, {"0": [0, 1, 5]})
    assert_it_learns(model, x)


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has none")
def test_matrices_of_experts_stay_because_their_kernel_allows_few_widths() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.up = nn.Linear(4, 16), nn.Parameter(torch.randn(2, 16, 8))
            self.last = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Any:
            ends = torch.tensor([3, 5], dtype=torch.int32)
            return self.last(torch._grouped_mm(self.first(x), self.up, offs=ends))

    with pytest.raises(RequestError, match=r"first.weight:0: a kernel that takes multiples of 16"):
        trace_channels(Experts(), torch.randn(5, 4))


# Operations that must not be refused


def test_parameters_that_are_never_used_stay_whole() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
            self.token = nn.Parameter(torch.zeros(1, 8))

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
            x = self.first(x)
            return self.last(x if mask is None else torch.where(mask, self.token, x))

    assert assert_right(Masked(), torch.randn(3, 4).double()) == {"first": 8}
    assert trace_channels(Masked(), torch.zeros(3, 4)).pinned["token:1"] == (
        "the traced pass never uses it"
    )


@pytest.mark.parametrize(
    "add",
    [
        lambda x, rows, new: x.index_add(0, rows, new),
        lambda x, rows, new: x.index_copy(0, rows, new),
        lambda x, rows, new: x.index_put((rows,), new, accumulate=True),
        lambda x, rows, new: x.scatter_add(0, rows[:, None].expand_as(new), new),
        lambda x, rows, new: torch.where(x > 0, x, 0) + new,
    ],
)
def test_messages_are_added_row_by_row(add: Any) -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.message = nn.Linear(4, 8), nn.Linear(8, 8)
            self.last = nn.Linear(8, 2)

        def forward(self, x: Tensor, source: Tensor, target: Tensor) -> Any:
            x = self.first(x)
            return self.last(add(torch.zeros_like(x), target, self.message(x[source])))

    edges = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 0])
    assert assert_right(Graph(), torch.randn(4, 4).double(), *edges).get("first") == 8


def test_setting_masked_values_to_a_number_pins_nothing() -> None:
    def without_negatives(x: Tensor) -> Any:
        x = x.clone()
        x[x < 0] = 0
        return x

    assert assert_right(Between(without_negatives), images()) == {"first": 8}


ALONG_OTHER_AXES = {
    "fft": lambda x: torch.fft.rfft2(x).abs(),
    "complex": lambda x: torch.complex(x, x).abs(),
    "polar": lambda x: torch.polar(x, x).real,
    "view_as_complex": lambda x: torch.view_as_complex(x.unflatten(3, (-1, 2))).abs(),
    "rot90": lambda x: x.rot90(1, (2, 3)),
    "diagonal": lambda x: x.diagonal(0, 2, 3)[..., None],
    "aminmax": lambda x: torch.stack(torch.aminmax(x, dim=3), 3),
    "kthvalue": lambda x: x.kthvalue(2, 3, keepdim=True)[0],
    "sort": lambda x: x.sort(3)[0],
    "argsort": lambda x: x * x.argsort(2),
    "topk": lambda x: x.topk(2, 3)[0],
    "triu": lambda x: x.triu(),
    "quantile": lambda x: x.quantile(0.5, 3, keepdim=True),
    "median": lambda x: x.median(3, keepdim=True)[0],
    "cummax": lambda x: x.cummax(3)[0],
    "matrix_exp": lambda x: torch.matrix_exp(x),
    "cross": lambda x: torch.linalg.cross(x[..., :3], x[..., 3:]),
    "rrelu": F.rrelu,
    "bucketize": lambda x: torch.bucketize(x, torch.arange(4.0)).double(),
    "count_nonzero": lambda x: x.count_nonzero((2, 3))[..., None, None] * x,
    "diag_embed": lambda x: x.mean((2, 3)).diag_embed()[..., None].sum(2, keepdim=True),
    "mse_loss": lambda x: F.mse_loss(x, x.flip(3), reduction="none"),
    "var_mean": lambda x: torch.cat(torch.var_mean(x, (2, 3), keepdim=True), 3),
    "out": lambda x: torch.mul(x.detach(), 2, out=torch.empty_like(x)) + x,
    "normal": lambda x: x + 0 * torch.normal(0.0, 1.0, (x.shape[1], 1, 1)),
    "unfold": lambda x: x.unfold(-2, 2, 2).sum(-1),
    "index_fill": lambda x: x.index_fill(2, torch.tensor([0]), 0.0),
    "repeat": lambda x: x + x.new_ones(1, 1, 1, 1).repeat(1, x.shape[1], 1, 1),
}


@pytest.mark.parametrize("name", ALONG_OTHER_AXES)
def test_operations_along_other_axes_let_channels_pass(name: str) -> None:
    assert assert_right(Between(ALONG_OTHER_AXES[name]), images()) == {"first": 8}


def test_regions_and_deformed_kernels_are_followed() -> None:
    ops = pytest.importorskip("torchvision.ops")

    class Regions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.offset = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 18, 3, padding=1)
            self.deformed = ops.DeformConv2d(8, 6, 3, padding=1)
            self.last = nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            x = self.deformed(x, self.offset(x))
            boxes = torch.tensor([[0, 0.0, 0.0, 3.0, 3.0]], dtype=x.dtype)
            return self.last(ops.roi_align(x, boxes, 2))

    assert assert_right(Regions(), images()) == {"first": 8, "deformed": 6}


def test_a_loss_inside_the_network_keeps_its_classes() -> None:
    class Learning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Any:
            return F.cross_entropy(self.last(self.first(x)), torch.tensor([0, 4, 2]))

    model = Learning()
    graph = trace_channels(model, torch.randn(3, 4))
    assert graph.sizes() == {"first": 8}
    assert "classes" in graph.pinned["last.weight:0"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_compiled_and_exported_modules_are_refused_in_one_line() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 8), torch.jit.script(nn.ReLU()), nn.Linear(8, 2))
    with pytest.raises(RequestError, match=r"^1 is compiled by torch\.jit: only Python modules"):
        trace_channels(model, torch.randn(3, 4))
    whole = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    exported = torch.export.export(whole, (torch.randn(3, 4),)).module()
    with pytest.raises(RequestError, match="is an exported program: only Python modules"):
        trace_channels(exported, torch.randn(3, 4))
