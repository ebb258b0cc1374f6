"""Which channels are coupled, which are pinned, and which models are refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_pruning
from torch import Tensor, nn

from harness.errors import RequestError
from pruners.channels.groups import ChannelGraph
from pruners.channels.labelling import UnknownOperation
from pruners.channels.tracing import trace_channels
from tests.helpers.cutting import reason, sizes
from tests.helpers.networks import CASES, Case


def traced(case: Case, model: Any = None) -> Any:
    return trace_channels(model or case.model(), case.inputs(), forward=case.forward)


def coupled(graph: ChannelGraph) -> set[frozenset[tuple[str, int]]]:
    """Return for each group the set of its axes."""
    return {frozenset((m.tensor, m.dim) for m in group.members) for group in graph.groups}


def out_of(*modules: str) -> list[tuple[str, int]]:
    """Name the output axes of convolutions and batch normalisations."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return [(f"{module}.{part}", 0) for module in modules for part in parts]


def own(model: nn.Module, axes: Any) -> frozenset[tuple[str, int]]:
    names = {n for n, t in [*model.named_parameters(), *model.named_buffers()]}
    return frozenset((name, dim) for name, dim in axes if name in names)


@pytest.mark.parametrize("name", CASES)
def test_the_number_of_groups(name: str) -> None:
    graph = traced(CASES[name])
    assert len(graph.groups) == CASES[name].groups
    assert len({group.name for group in graph.groups}) == len(graph.groups)


@pytest.mark.parametrize("name", CASES)
def test_no_position_is_in_two_groups(name: str) -> None:
    seen = set()
    for group in traced(CASES[name]).groups:
        for member in group.members:
            assert len(member.index) == group.size
            for position in member.index.flatten().tolist():
                assert (member.tensor, member.dim, position) not in seen
                seen.add((member.tensor, member.dim, position))


# Groups written by hand


def test_the_groups_of_resnet18() -> None:
    model = CASES["resnet18"].model()
    stem, blocks, classifier = ("0", "1"), range(3, 11), "13.weight"
    expected, stage = [], [*out_of(*stem)]
    for number in blocks:
        conv1, bn1, conv2, bn2 = (f"{number}.{part}" for part in ("conv1", "bn1", "conv2", "bn2"))
        expected.append([*out_of(conv1, bn1), (f"{conv2}.weight", 1)])
        stage.append((f"{conv1}.weight", 1))
        if model[number].downsample is not None:
            stage.append((f"{number}.downsample.0.weight", 1))
            expected.append(stage)
            stage = out_of(f"{number}.downsample.0", f"{number}.downsample.1")
        stage += out_of(conv2, bn2)
    expected.append([*stage, (classifier, 1)])
    assert coupled(traced(CASES["resnet18"])) == {own(model, axes) for axes in expected}


@pytest.mark.parametrize("tied", [False, True])
def test_the_groups_of_the_pointer_sentinel_mixture(tied: bool) -> None:
    case = CASES["psmm_tied" if tied else "psmm_untied"]
    words = {("embedding.weight", 1), ("lstm.weight_ih", 1)}
    hidden = {(f"lstm.{name}", 0) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    hidden |= {("lstm.weight_hh", 1), ("sentinel", 0), ("query.weight", 0), ("query.weight", 1)}
    hidden |= {("query.bias", 0)} if tied else {("query.bias", 0), ("vocabulary.weight", 1)}
    graph = traced(case)
    assert coupled(graph) == (
        {frozenset(words | hidden)} if tied else {*map(frozenset, (words, hidden))}
    )
    gates = next(m for g in graph.groups for m in g.members if m.tensor == "lstm.weight_hh")
    assert gates.index[1].tolist() == [1, 7, 13, 19]


def test_a_flattened_feature_map_gives_each_channel_several_columns() -> None:
    graph = traced(CASES["vgg16_flattened"])
    columns = [m for g in graph.groups for m in g.members if m.dim == 1 and m.index.shape[1] > 1]
    assert [member.index[3].tolist() for member in columns] == [[12, 13, 14, 15]]


def test_grouped_convolutions_lose_the_same_offset_in_every_group() -> None:
    grouped = [
        m for g in traced(CASES["resnext"]).groups for m in g.members if m.index.shape[1] > 1
    ]
    assert {tuple(member.index[0].tolist()) for member in grouped} == {(0, 5, 10, 15)}


def test_a_depthwise_multiplier_couples_neighbours() -> None:
    graph = traced(CASES["depthwise_multiplier"])
    consumer = next(m for g in graph.groups for m in g.members if m.tensor == "2.0.weight")
    assert consumer.index[:2].tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "densely_connected", "fcrn_fast"])
def test_the_groups_agree_with_torch_pruning(name: str) -> None:
    model = CASES[name].model().float()
    inputs = tuple(tensor.float() for tensor in CASES[name].inputs())
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=inputs)
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    theirs = set()
    for group in graph.get_all_groups(root_module_types=list(kinds)):
        weights = {
            f"{name}.weight"
            for dependency, _ in group
            for name, module in model.named_modules()
            if module is dependency.target.module
            and isinstance(module, kinds)
            and "out_channels" in dependency.handler.__name__
        }
        theirs.add(frozenset(weights))
    ours = {
        frozenset(
            member.tensor
            for member in group.members
            if member.dim == 0
            and isinstance(_owner(model, member.tensor), kinds)
            and member.tensor.endswith("weight")
        )
        for group in trace_channels(model, inputs).groups
    }
    assert ours <= theirs
    assert len(theirs - ours) <= 1  # theirs has the outputs of the network too


def _owner(model: Any, tensor: str) -> Any:
    return model.get_submodule(tensor.rpartition(".")[0])


# Axes that are united with channels but are not channels


class Chosen(nn.Module):
    """Two branches, added in a proportion that depends on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(3, 8) for _ in range(2))
        self.proportion, self.last = nn.Linear(3, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        outputs = torch.stack([branch(x) for branch in self.branches], 1)
        return self.last((outputs * self.proportion(x).unsqueeze(2)).sum(1))


class TokenMixing(nn.Module):
    """A residual layer over the positions of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.last = nn.Conv2d(3, 6, 2, 2), nn.Linear(6, 2)
        self.mix, self.mixed = nn.Linear(16, 5), nn.Linear(5, 16)

    def forward(self, x: Tensor) -> Any:
        x = self.patches(x).flatten(2)
        return self.last((x + self.mixed(torch.relu(self.mix(x)))).mT)


class HeadScales(nn.Module):
    """A factor for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.scale, self.last = nn.Linear(3, 8), nn.Linear(3, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        return self.last((self.value(x).view(len(x), 2, -1) * self.scale(x)[..., None]).flatten(1))


@pytest.mark.parametrize(
    ("network", "shape", "stays", "groups"),
    [
        (Chosen, (4, 3), "proportion", {"branches.0": 8}),
        (TokenMixing, (2, 3, 8, 8), "mixed", {"patches": 6, "mix": 5}),
        (HeadScales, (4, 3), "scale", {"value": 4}),
    ],
)
def test_the_number_of_branches_positions_and_heads_stays(
    network: Any, shape: Any, stays: str, groups: Any
) -> None:
    graph = trace_channels(network(), torch.zeros(shape))
    assert graph.sizes() == groups
    assert "outside" in graph.pinned[f"{stays}.weight:0"]


def test_padding_keeps_its_number_of_channels() -> None:
    """The shortcut of a ResNet without weights: channels that are added to zeros must stay."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(8, 2, 1)
            self.branch = nn.Conv2d(4, 8, 1)

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            return self.last(self.branch(x) + F.pad(x, (0, 0, 0, 0, 2, 2)))

    graph = trace_channels(Padded(), torch.zeros(1, 3, 4, 4))
    assert [group.size for group in graph.groups] == [4]
    member = next(m for m in graph.groups[0].members if m.tensor == "last.weight")
    assert member.index.flatten().tolist() == [2, 3, 4, 5]
    assert "outside" in graph.pinned["branch.weight:0"]


def test_indexing_by_a_tensor_is_pinned() -> None:
    assert "by a tensor" in reason(lambda x: x[:, torch.arange(8).flip(0)])
    assert "by its number" in reason(lambda x: x + x[:, 3].unsqueeze(1))


def test_rolling_and_summing_in_order_pin_their_axis_only() -> None:
    assert sizes(lambda x: x.roll(1, 2).cumsum(3)) == [8]
    assert "rolled" in reason(lambda x: x.roll(2, 1))
    assert "in the order" in reason(lambda x: x.cumsum(1))
    assert "position" in reason(lambda x: x.topk(8, 1).values)


def test_attention_to_others_couples_each_width_with_its_projection() -> None:
    class CrossAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.here, self.there = nn.Linear(3, 8), nn.Linear(3, 6)
            self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, add_bias_kv=True)
            self.out = nn.Linear(8, 2)

        def forward(self, x: Tensor, y: Tensor) -> Any:
            y = self.there(y)
            return self.out(self.attention(self.here(x), y, y)[0])

    graph = trace_channels(CrossAttention(), (torch.zeros(4, 2, 3), torch.zeros(5, 2, 3)))
    assert graph.sizes() == {"here": 4, "there": 6, "attention.out_proj": 8}
    heads = {(m.tensor, m.dim) for m in graph["here"].members}
    assert {("attention.q_proj_weight", 0), ("attention.k_proj_weight", 0)} <= heads
    assert {("attention.bias_k", 2), ("attention.out_proj.weight", 1)} <= heads


def test_halves_that_are_multiplied_are_tied() -> None:
    assert sizes(lambda x: F.glu(x, 1), outgoing=4) == [4]
    assert sizes(lambda x: x.chunk(2, 1)[0], outgoing=4) == [4]


def test_normalising_groups_of_channels_ties_their_offsets() -> None:
    assert sizes(nn.GroupNorm(2, 8)) == [4]
    assert sizes(nn.GroupNorm(8, 8)) == [8]
    assert sizes(nn.InstanceNorm2d(8, affine=True)) == [8]


def test_inputs_written_next_to_channels_stay() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(8)
            self.last = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Any:
            features = self.first(x)
            both = x.new_zeros(2, 3 + features.shape[1], 4, 4)
            both[:, :3] = x
            both[:, -features.shape[1] :] = features
            return self.last(self.norm(both))

    graph = trace_channels(Beside(), torch.zeros(2, 3, 4, 4))
    assert graph.sizes() == {"first": 5}


def test_writing_channels_through_a_reshaped_view_is_refused() -> None:
    class Assigned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            parts = torch.zeros(2, 16, 4)
            parts.view(2, 4, 4, 4).copy_(x[:, :4])
            return self.last(x[:, :4])

    with pytest.raises(UnknownOperation, match="reshaped view"):
        trace_channels(Assigned(), torch.zeros(2, 3, 4, 4))


# What stays unchanged


def test_inputs_outputs_and_kernels_are_never_in_a_group() -> None:
    graph = traced(CASES["vgg16"])
    axes = set().union(*coupled(graph))
    assert not axes & {("0.weight", 1), ("50.weight", 0), ("0.weight", 2)}
    assert "outside" in graph.pinned["0.weight:1"]
    assert "kernel" in graph.pinned["0.weight:2"]


def test_channels_can_be_pinned() -> None:
    model = CASES["vgg16"].model()
    inputs = CASES["vgg16"].inputs()
    whole = trace_channels(model, inputs)
    graph = trace_channels(model, inputs, pin=["0", "3.weight:0"])
    assert len(graph.groups) == len(whole.groups) - 2
    assert graph.pinned["0.bias:0"] == "asked for"
    with pytest.raises(RequestError, match=r"pin: no module or parameter '0.wight'; did you mean"):
        trace_channels(model, inputs, pin=["0.wight"])


def test_tracing_leaves_no_trace() -> None:
    case = CASES["resnet18"]
    model = case.model()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model)
    inputs = case.inputs()
    state = torch.get_rng_state()
    trace_channels(model, inputs, forward=lambda model, x: model(x + torch.randn_like(x)))
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for name, tensor in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert not model[0].weight.requires_grad


@pytest.mark.parametrize(
    "name", ["resnet18", "resnext", "psmnet_assigned", "psmm_tied", "attention"]
)
def test_nothing_is_computed_on_meta(name: str) -> None:
    case = CASES[name]
    model = case.model()
    inputs = case.inputs()
    empty = [tensor.to("meta") for tensor in inputs]
    on_meta = trace_channels(model, empty, forward=case.forward)
    assert on_meta.to_json() == trace_channels(model, inputs, forward=case.forward).to_json()
    assert not next(model.parameters()).is_meta


def test_a_graph_survives_json() -> None:
    graph = traced(CASES["psmm_untied"])
    again = ChannelGraph.from_json(graph.to_json())
    assert again.to_json() == graph.to_json()
    assert again["lstm"].members[0].index.dtype == torch.long


def test_a_graph_can_be_read() -> None:
    graph = trace_channels(nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 2)), torch.zeros(2, 3))
    assert str(graph) == "0: 6 feed-forward neurons on 0.weight:0, 0.bias:0, 1.weight:1"
    assert len(repr(graph)) < 500


def test_parameters_that_only_training_uses_are_found() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.main, self.auxiliary = nn.Linear(3, 6), nn.Linear(6, 2), nn.Linear(6, 2)
            self.norm = nn.BatchNorm1d(6)

        def forward(self, x: Tensor) -> Any:
            x = self.norm(self.body(x))
            return (self.main(x), self.auxiliary(x)) if self.training else self.main(x)

    model: Any = Auxiliary()
    (group,) = trace_channels(model, torch.ones(2, 3)).groups
    assert ("auxiliary.weight", 1) in {(m.tensor, m.dim) for m in group.members}
    assert model.norm.running_mean.tolist() == [0] * 6
    assert model.norm.num_batches_tracked == 0


# Refusals


class Accumulating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Any:
        return self.last(torch.renorm(self.first(x), 2, 0, 1.0))


def test_an_unknown_operation_is_named_and_can_be_taught() -> None:
    model: Any = nn.Sequential(Accumulating())
    with pytest.raises(
        UnknownOperation,
        match=r'aten::renorm on \(2, 6\), with channels of 0.first.weight, in 0: .*"renorm": rule',
    ):
        trace_channels(model, torch.zeros(2, 3))

    def renorm(trace: Any, out: Any, x: Tensor, p: Any, dim: Any, maxnorm: Any) -> Any:
        return trace[x]

    graph = trace_channels(model, torch.zeros(2, 3), extra_rules={"renorm": renorm})
    assert graph.sizes() == {"0.first": 6}


def test_a_forward_that_fails_names_the_module_and_the_tensor() -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            return self.last(x if x.mean().item() > 0 else -x)

    model: Any = nn.Sequential(Looking())
    with pytest.raises(RequestError, match=r"in 0, at aten::_local_scalar_dense on \(\): .*meta"):
        trace_channels(model, torch.zeros(2, 3, device="meta"))
    with pytest.raises(RequestError, match=r"in 0\.first, at aten::\w+ on .*\(2, 4\).* shapes"):
        trace_channels(model, torch.zeros(2, 4))


def test_transformers_are_followed_and_not_their_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    model: Any = nn.Sequential(
        nn.Linear(3, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=True), nn.Linear(8, 2)
    )

    def forward(model: Any, x: Tensor) -> Any:
        padded = torch.tensor([[False, False], [False, True]])
        return model[2](model[1](model[0](x), src_key_padding_mask=padded))

    graph = trace_channels(model, torch.zeros(2, 2, 3), forward=forward)
    assert graph.sizes() == {"0": 4, "1.layers.0.linear1": 12, "1.layers.1.linear1": 12}
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_network_without_hidden_channels_is_refused() -> None:
    reason = r"Linear has no channel that can be removed \(weight:0: it reaches the model's output"
    with pytest.raises(RequestError, match=reason):
        trace_channels(nn.Linear(3, 4), torch.zeros(2, 3))


def test_a_forward_without_a_result_is_refused() -> None:
    with pytest.raises(RequestError, match="returns no tensor"):
        trace_channels(nn.Linear(3, 4), torch.zeros(2, 3), forward=lambda model, x: None)
