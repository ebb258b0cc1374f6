"""Networks that are easily misread: they are followed correctly, pinned, or refused."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from harness.errors import RequestError
from pruners.channels import shrink, trace_channels, verify_shrink
from tests.helpers.cutting import Between, assert_it_learns, assert_right, images, reason

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


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_compiled_and_exported_modules_are_refused_in_one_line() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 8), torch.jit.script(nn.ReLU()), nn.Linear(8, 2))
    with pytest.raises(RequestError, match=r"^1 is compiled by torch\.jit: only Python modules"):
        trace_channels(model, torch.randn(3, 4))
    whole = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    exported = torch.export.export(whole, (torch.randn(3, 4),)).module()
    with pytest.raises(RequestError, match="is an exported program: only Python modules"):
        trace_channels(exported, torch.randn(3, 4))
