"""Transformers of the zoo: the reference that knows no channels, and the table beside the peer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo import comparison, table, trial
from benchmarks.zoo.comparison import cut_by_peer, cut_in_several_ways
from benchmarks.zoo.kept_only import InDouble, KeptOnly, entries_left, masked_copy
from benchmarks.zoo.trial import NOTHING_CUT, Network, Result
from pruners.channels import ChannelGraph, shrink, trace_channels


class Normalised(nn.Module):
    """Takes a mean of squares over channels, as root mean square norms of decoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 10), nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        scale = x.to(torch.float32).pow(2).mean(-1, keepdim=True).rsqrt()
        return self.last(x * scale)


NETWORK = Network(Normalised, lambda: [torch.randn(4, 5, 3)])


def test_entries_that_are_left_are_found_whatever_cuts_the_network() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    graph = trace_channels(model, torch.randn(1, 3).double())
    masks = entries_left(model, lambda model: shrink(model, graph, {"0": [0, 2]}))
    assert masks["0.weight"].tolist() == [[1] * 3, [0] * 3, [1] * 3, [0] * 3]
    assert masks["1.weight"].tolist() == [[1, 0, 1, 0]] * 2
    masked = masked_copy(model, masks)
    assert masked.get_parameter("0.bias")[1] == 0
    assert model.get_parameter("0.bias")[1] != 0


def test_statistics_leave_out_channels_that_are_zero_everywhere() -> None:
    x = torch.tensor([[1.0, 0.0, 3.0], [5.0, 0.0, 7.0]])
    scale, shift = torch.tensor([1.0, 9.0, 2.0]), torch.tensor([0.0, 9.0, 1.0])
    with KeptOnly():
        assert x.mean(-1).tolist() == [2, 6]
        assert torch.var(x, -1, unbiased=False).tolist() == [1, 1]
        normalised = F.layer_norm(x, (3,), scale, shift, 0.0)
        assert x.mean(0).tolist() == [3, 0, 5]
    assert normalised.tolist() == [[-1, 0, 3], [-1, 0, 3]]


def test_attention_is_scaled_by_the_width_that_is_kept() -> None:
    query, key = torch.zeros(1, 1, 4), torch.zeros(1, 2, 4)
    query[..., 0], key[:, 1, 0] = 2.0, 1.0
    value = torch.tensor([[[0.0], [1.0]]])
    with KeptOnly():
        found = F.scaled_dot_product_attention(query, key, value)
    assert found.item() == pytest.approx(torch.tensor(2.0).sigmoid().item())


def test_what_is_converted_to_single_precision_stays_in_double() -> None:
    x = torch.tensor([1 / 3], dtype=torch.double)
    with InDouble():
        for converted in (x.float(), x.to(torch.float32), x.softmax(0, dtype=torch.float32)):
            assert converted.dtype is torch.double


def test_a_mean_over_channels_is_no_difference_from_the_reference() -> None:
    result = cut_in_several_ways(NETWORK)
    assert (result.outcome, result.reason) == ("right", "")
    assert result.difference < 1e-10
    assert result.kinds == {"feed-forward neurons": 10}


def test_a_wrong_graph_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def mixed_up(*arguments: Any, **options: Any) -> ChannelGraph:
        graph = trace_channels(*arguments, **options)
        index = graph.groups[0].members[0].index
        index.copy_(index.flip(0))
        return graph

    monkeypatch.setattr(trial, "trace_channels", mixed_up)
    assert cut_in_several_ways(NETWORK).outcome == "wrong"


def test_the_peer_is_compared_with_the_same_reference() -> None:
    pytest.importorskip("torch_pruning")
    network = Network(
        lambda: nn.Sequential(nn.Linear(3, 10), nn.ReLU(), nn.Linear(10, 2)),
        lambda: [torch.randn(4, 3)],
    )
    result = cut_by_peer(network)
    assert (result.outcome, result.reason) == ("right", "")
    assert result.left == pytest.approx((5 * 4 + 2 * 6) / 62)


def test_at_least_one_channel_is_kept() -> None:
    assert [comparison.kept(size, 0.2) for size in (1, 4, 10)] == [1, 1, 2]


def test_the_table_has_kinds_and_what_the_peer_does() -> None:
    kinds = {"attention heads": 8, "head width": 16}
    rows: list[table.Row] = [
        ("own", "a", Result("right", groups=2, kinds=kinds, difference=2e-16)),
        ("own", "b", Result("right", groups=1, whole={"attention heads": "counted, in b"})),
        ("own", "c", Result("refused", "no rule for aten::d")),
    ]
    peers = {
        ("own", "a"): Result("wrong"),
        ("own", "b"): Result("refused", NOTHING_CUT),
        ("own", "c"): Result("refused", "RuntimeError: a shape"),
    }
    lines = table.comparison(rows, peers, {"torch": "2.14"}).splitlines()
    assert "| a | right | 2e-16 | 8 | 16 |  |  |  | silently wrong |" in lines
    assert (
        "| b | right | 0e+00 |  |  |  |  | attention heads: counted, in b | nothing cut |" in lines
    )
    assert "| c | refused |  |  |  |  |  | no rule for aten::d | fails |" in lines
    counted = (
        "3 networks: 2 right, 1 refused. torch-pruning: 1 silently wrong, 1 nothing cut, 1 fails."
    )
    assert counted in lines
