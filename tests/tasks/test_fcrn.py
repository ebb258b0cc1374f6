"""The depth network: its published size, and its up-projections."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from harness.errors import RequestError
from pruners.channels.tracing import trace_channels
from tasks.nyu.model import ENCODERS, FCRN, UP_PROJECTIONS, Interleaved, Unpooled, residual_encoder


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def up_projection(incoming: int, outgoing: int) -> int:
    """Two 5x5 convolutions, a 3x3 one, three norms."""
    return 2 * 25 * incoming * outgoing + 9 * outgoing**2 + 3 * 2 * outgoing


@pytest.mark.parametrize("up", ["fast", "unpool"])
def test_the_published_network_has_63_564_033_parameters_and_128x160_depths(up: str) -> None:
    with torch.device("meta"):
        model = FCRN("resnet50", 64, up)
        assert model(torch.empty(1, 3, 228, 304)).shape == (1, 1, 128, 160)
    trunk = 25_557_032 - (2048 * 1000 + 1000)  # torchvision's without its classes
    bridge = 2048 * 1024 + 1024 + 2 * 1024
    decoder = sum(up_projection(1024 >> n, 512 >> n) for n in range(4))
    assert parameters(model) == trunk + bridge + decoder + 9 * 64 + 1 == 63_564_033


@pytest.mark.parametrize("up", ["deconvolution", "pixel_shuffle"])
def test_the_other_up_projections_double_the_resolution_too(up: str) -> None:
    with torch.device("meta"):
        model = FCRN("resnet50", 64, up)
        assert model(torch.empty(1, 3, 228, 304)).shape == (1, 1, 128, 160)


@pytest.mark.parametrize(("name", "theirs"), [("resnet18", resnet18), ("resnet50", resnet50)])
def test_the_encoder_is_torchvisions(name: str, theirs: type[nn.Module]) -> None:
    torch.manual_seed(0)
    reference = theirs().eval()
    ours = residual_encoder(*ENCODERS[name], width=64).eval()
    state = {k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")}
    ours.load_state_dict(state)
    reference.avgpool = reference.fc = nn.Identity()
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours(images).flatten(), reference(images).flatten())


def five_by_five(model: Interleaved) -> Tensor:
    """Put the four kernels together, weight by weight."""
    convolutions = [c for c in model.convolutions if isinstance(c, nn.Conv2d)]
    top_left, top_right, bottom_left, bottom_right = (c.weight for c in convolutions)
    kernel = torch.zeros(*top_left.shape[:2], 5, 5, dtype=top_left.dtype)
    for row in range(5):
        for column in range(5):
            source = [[top_left, top_right], [bottom_left, bottom_right]][row % 2][column % 2]
            kernel[:, :, row, column] = source[:, :, row // 2, column // 2]
    return kernel


def test_the_fast_form_is_unpooling_and_a_5x5_convolution() -> None:
    torch.manual_seed(0)
    fast, plain = Interleaved(3, 4).double(), Unpooled(3, 4).double()
    with torch.no_grad():
        plain.convolution.weight.copy_(five_by_five(fast))
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(fast(x), plain(x), rtol=1e-12, atol=1e-12)
    (by_fast,) = torch.autograd.grad(fast(x).square().sum(), x)
    (by_plain,) = torch.autograd.grad(plain(x).square().sum(), x)
    torch.testing.assert_close(by_fast, by_plain, rtol=1e-10, atol=1e-10)


def test_unpooling_puts_values_at_the_top_left_of_zeros() -> None:
    model = Unpooled(1, 1).eval()
    with torch.no_grad():
        model.convolution.weight.zero_()
        model.convolution.weight[0, 0, 2, 2] = 1  # the identity
    larger = model(torch.tensor([[[[1.0, 2.0]]]]))
    torch.testing.assert_close(larger[0, 0], torch.tensor([[1.0, 0, 2, 0], [0, 0, 0, 0]]))


@pytest.mark.parametrize("up", UP_PROJECTIONS)
def test_all_channels_but_the_depth_can_be_removed(up: str) -> None:
    """The tracer pins the image's channels and the depth, and nothing else."""
    with torch.device("meta"):
        model = FCRN("resnet18", 4, up)
        graph = trace_channels(model, (torch.empty(1, 3, 57, 76),))
    channels = {
        (name, position)
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for position in range(module.num_features)
    }
    free = {
        (member.tensor.removesuffix(".weight"), position)
        for group in graph.groups
        for member in group.members
        for position in member.index.flatten().tolist()
        if (member.tensor.removesuffix(".weight"), 0) in channels
    }
    assert free == channels


def test_published_widths_have_as_many_groups_as_coupled_convolutions() -> None:
    """49 convolutions in the encoder, of which 4 stages share one group each."""
    with torch.device("meta"):
        graph = trace_channels(FCRN("resnet50", 64), (torch.empty(1, 3, 64, 64),))
    stem, stages, inside, bridge, ups = 1, 4, 2 * 16, 1, 2 * 4
    assert len(graph.groups) == stem + stages + inside + bridge + ups


@pytest.mark.parametrize(("encoder", "least"), [("resnet18", 4), ("resnet50", 1)])
def test_a_network_that_is_halved_to_nothing_is_refused(encoder: str, least: int) -> None:
    FCRN(encoder, least)
    with pytest.raises(RequestError, match=f"width={least - 1} is .*; the least is {least}"):
        FCRN(encoder, least - 1)
