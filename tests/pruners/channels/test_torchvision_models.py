"""Every classification model of torchvision can be traced, cut in half, and run."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torchvision import models

from pruners.channels.gating import verify_shrink
from pruners.channels.labelling import UnknownOperation
from pruners.channels.shrinking import shrink
from pruners.channels.tracing import trace_channels
from tests.helpers.networks import Case

WITHOUT_RULE: dict[str, str] = {}
"""Models with an operation that has no rule, and the name of the operation."""

TOO_LARGE = {"regnet_y_128gf"}
"""Models of 640 million parameters that need their values while they are built."""

NAMES = [name for name in models.list_models(module=models) if name not in TOO_LARGE]
EVERYDAY = ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "vit_b_32"]


def built(name: str, device: str) -> Any:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device(device):
        return models.get_model(name, weights=None, **options)


def assert_can_be_cut(name: str) -> None:
    model = built(name, "cpu" if "regnet" in name else "meta")
    inputs = torch.empty(2, 3, *[299 if name == "inception_v3" else 224] * 2, device="meta")
    if name in WITHOUT_RULE:
        with pytest.raises(UnknownOperation, match=f"no rule for aten::{WITHOUT_RULE[name]} "):
            trace_channels(model, inputs)
        return
    graph = trace_channels(model, inputs)
    keep = {group.name: torch.arange(0, group.size, 2) for group in graph.groups}
    smaller = shrink(model, graph, keep)
    assert model.to("meta").eval()(inputs).shape == (2, 1000)
    assert trace_channels(model, inputs).sizes() == smaller.sizes()


@pytest.mark.parametrize("name", EVERYDAY)
def test_a_sample_can_be_cut(name: str) -> None:
    assert_can_be_cut(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_can_be_cut(name: str) -> None:
    assert_can_be_cut(name)


SMALL = [
    "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2",
    "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet50", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "squeezenet1_0", "vgg11_bn", "vit_b_32",
]  # fmt: skip
"""One of each kind, except those whose attention is scaled by the width of its heads."""


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_shrunk_equals_masked(name: str, training: bool) -> None:
    size = 224 if name == "vit_b_32" else 64
    case = Case(lambda: built(name, "cpu"), lambda: (torch.randn(2, 3, size, size).double(),), 0)
    model, inputs = case.model(), case.inputs()
    for module in model.modules():
        if hasattr(module, "p"):  # dropout and stochastic depth
            module.p = 0.0
    graph = trace_channels(model, inputs)
    keep = {group.name: torch.arange(0, group.size, 3) for group in graph.groups}
    smaller = copy.deepcopy(model)
    shrink(smaller, graph, keep)
    model.train(training)
    smaller.train(training)
    verify_shrink(model, graph, keep, smaller, inputs, tolerance=1e-9)
