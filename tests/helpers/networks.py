"""Small networks of every kind, in double precision, for the tests of `pruners.channels`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.digits.task import STRIDES
from tasks.images.networks import resnet18
from tasks.ptb.model import PSMM


@dataclass(frozen=True)
class Case:
    """A network, its inputs, its number of groups, and how to call it."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    groups: int
    forward: Callable[..., Any] | None = None

    def model(self, seed: int = 0) -> Any:
        """Return the network with random statistics in place of zeros and ones."""
        torch.manual_seed(seed)
        model = self.build().double()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if isinstance(module, PSMM):
                module.dropout = 0.0
        return model

    def run(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the outputs as a tuple."""
        result = self.forward(model, *inputs) if self.forward else model(*inputs)
        return result if isinstance(result, tuple) else (result,)


def images(size: int = 8, batch: int = 3) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(batch, 3, size, size, dtype=torch.float64),)


# Plain, residual, grouped


def convolution(incoming: int, outgoing: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    options = {"padding": kernel // 2, "bias": False, **options}
    return nn.Sequential(
        nn.Conv2d(incoming, outgoing, kernel, **options), nn.BatchNorm2d(outgoing), nn.ReLU()
    )


def vgg16(width: int = 4, *, normalised: bool = True, pooled: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = []
    incoming = 3
    for stage, depth in enumerate((2, 2, 3, 3, 3)):
        for _ in range(depth):
            outgoing = width * min(2**stage, 8)
            layers.append(nn.Conv2d(incoming, outgoing, 3, padding=1))
            layers += [nn.BatchNorm2d(outgoing)] if normalised else []
            layers.append(nn.ReLU(inplace=True))
            incoming = outgoing
        if stage < 4:
            layers.append(nn.MaxPool2d(2))
    classifier = [
        nn.Linear(incoming * pooled**2, 3 * width),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(3 * width, 3 * width),
        nn.ReLU(inplace=True),
        nn.Linear(3 * width, 10),
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(pooled), nn.Flatten(), *classifier)


class Residual(nn.Module):
    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Any:
        return F.relu(self.branch(x) + self.shortcut(x))


def head(width: int, classes: int = 5) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)


def resnext(cardinality: int = 4, base: int = 8) -> nn.Sequential:
    def block(incoming: int, outgoing: int) -> Residual:
        branch = nn.Sequential(
            convolution(incoming, outgoing, 1),
            convolution(outgoing, outgoing, groups=cardinality),
            convolution(outgoing, outgoing, 1)[:2],
        )
        return Residual(
            branch, None if incoming == outgoing else convolution(incoming, outgoing, 1)
        )

    return nn.Sequential(
        convolution(3, base), block(base, 5 * cardinality), block(5 * cardinality, 5 * cardinality),
        *head(5 * cardinality),
    )  # fmt: skip


def depthwise(multiplier: int, width: int = 6) -> nn.Sequential:
    return nn.Sequential(
        convolution(3, width),
        convolution(width, multiplier * width, groups=width),
        convolution(multiplier * width, width, 1),
        *head(width),
    )


def transposed(groups: int, width: int = 8) -> nn.Sequential:
    return nn.Sequential(
        convolution(3, width),
        nn.ConvTranspose2d(width, 2 * width, 4, stride=2, padding=1, groups=groups),
        nn.ReLU(),
        convolution(2 * width, width),
        *head(width),
    )


class SqueezeAndExcitation(nn.Module):
    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Any:
        scale = self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(scale)


class ChannelShuffle(nn.Module):
    """Interleaves two groups, in the code of torchvision."""

    def forward(self, x: Tensor) -> Any:
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width)
        return x.transpose(1, 2).contiguous().view(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """Half of the channels pass unchanged, the other half are convolved."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = convolution(width // 2, width // 2)
        self.shuffle = ChannelShuffle()

    def forward(self, x: Tensor) -> Any:
        left, right = x.chunk(2, dim=1)
        return self.shuffle(torch.cat([left, self.branch(right)], dim=1))


class DenseUnit(nn.Module):
    def __init__(self, incoming: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(incoming)
        self.conv = nn.Conv2d(incoming, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Any:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], dim=1)


class UNet(nn.Module):
    """Features of the full size are concatenated with enlarged features of half the size."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.down, self.bottom = convolution(3, width), convolution(width, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.last = nn.Sequential(convolution(2 * width, width), nn.Conv2d(width, 2, 1))

    def forward(self, x: Tensor) -> Any:
        before = self.down(x)
        x = self.up(self.bottom(F.max_pool2d(before, 2)))
        return self.last(torch.cat([before[:, :, : x.shape[2], : x.shape[3]], x], dim=1))


class ActorCritic(nn.Module):
    def __init__(self, hidden: int = 12) -> None:
        super().__init__()
        self.first = nn.Linear(4, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.policy = nn.Linear(hidden, 2)
        self.value = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.second(torch.tanh(self.first(x))))
        return self.policy(x), self.value(x)


# Depth from one image (FCRN)


class ZeroInsertion(nn.Module):
    """Puts each value into the upper left corner of a 2x2 block of zeros."""

    def forward(self, x: Tensor) -> Any:
        batch, channels, height, width = x.shape
        spread = x.new_zeros(batch, channels, 2 * height, 2 * width)
        spread[:, :, ::2, ::2] = x
        return spread


class ConstantTransposition(nn.Module):
    """The same, by a depthwise transposed convolution with a constant kernel."""

    def forward(self, x: Tensor) -> Any:
        kernel = x.new_zeros(x.size(1), 1, 2, 2)
        kernel[:, :, 0, 0] = 1
        return F.conv_transpose2d(x, kernel, stride=2, groups=x.size(1))


def up_projection(unpool: type[nn.Module], incoming: int, outgoing: int) -> nn.Sequential:
    branch = nn.Sequential(convolution(incoming, outgoing, 5), convolution(outgoing, outgoing)[:2])
    return nn.Sequential(unpool(), Residual(branch, convolution(incoming, outgoing, 5)[:2]))


class Interleaved(nn.Module):
    """Four small convolutions with outputs that are interleaved to twice the size."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        kernels = ((3, 3), (2, 3), (3, 2), (2, 2))
        self.convolutions = nn.ModuleList(nn.Conv2d(incoming, outgoing, k) for k in kernels)
        self.norm = nn.BatchNorm2d(outgoing)

    def forward(self, x: Tensor) -> Any:
        margins = ((1, 1, 1, 1), (1, 1, 1, 0), (1, 0, 1, 1), (1, 0, 1, 0))
        maps = [
            conv(F.pad(x, margin)) for conv, margin in zip(self.convolutions, margins, strict=True)
        ]
        batch, channels, height, width = maps[0].shape
        rows = [
            torch.stack(pair, dim=-1).reshape(batch, channels, height, 2 * width)
            for pair in (maps[:2], maps[2:])
        ]
        return self.norm(torch.stack(rows, dim=-2).reshape(batch, channels, 2 * height, 2 * width))


class FastUpProjection(nn.Module):
    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.first = Interleaved(incoming, outgoing)
        self.second = convolution(outgoing, outgoing)[:2]
        self.shortcut = Interleaved(incoming, outgoing)

    def forward(self, x: Tensor) -> Any:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


UP_PROJECTIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "zero_insertion": lambda i, o: up_projection(ZeroInsertion, i, o),
    "constant_transposition": lambda i, o: up_projection(ConstantTransposition, i, o),
    "fast": FastUpProjection,
    "deconvolution": lambda i, o: nn.Sequential(
        nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()
    ),
    "pixel_shuffle": lambda i, o: nn.Sequential(
        nn.Conv2d(i, 4 * o, 3, padding=1), nn.PixelShuffle(2), nn.BatchNorm2d(o), nn.ReLU()
    ),
}


class FCRN(nn.Module):
    def __init__(self, up: str, width: int = 4) -> None:
        super().__init__()
        bottleneck = nn.Sequential(
            convolution(2 * width, width, 1), convolution(width, width),
            convolution(width, 4 * width, 1)[:2],
        )  # fmt: skip
        self.encoder = nn.Sequential(
            convolution(3, 2 * width, stride=2),
            Residual(bottleneck, convolution(2 * width, 4 * width, 1)[:2]),
            nn.MaxPool2d(2),
        )
        self.decoder = nn.Sequential(
            UP_PROJECTIONS[up](4 * width, 2 * width), UP_PROJECTIONS[up](2 * width, width)
        )
        self.depth = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        depth = self.depth(self.decoder(self.encoder(x)))
        return F.interpolate(depth, size=x.shape[2:], mode="bilinear", align_corners=True)


# Disparity from two images (PSMNet)


def convolution3d(incoming: int, outgoing: int, **options: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(incoming, outgoing, 3, padding=1, bias=False, **options),
        nn.BatchNorm3d(outgoing),
    )


def transposition3d(incoming: int, outgoing: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose3d(incoming, outgoing, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm3d(outgoing),
    )


class PyramidPooling(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, width, stride=2), convolution(width, width))
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AvgPool2d(size), convolution(width, width, 1)) for size in (2, 4)
        )
        self.last = nn.Sequential(
            convolution(3 * width, width), nn.Conv2d(width, width, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        pooled = [
            F.interpolate(branch(x), size=x.shape[2:], mode="bilinear", align_corners=False)
            for branch in self.branches
        ]
        return self.last(torch.cat([x, *pooled], dim=1))


class Hourglass(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = convolution3d(width, 2 * width, stride=2)
        self.middle = convolution3d(2 * width, 2 * width)
        self.bottom = convolution3d(2 * width, 2 * width, stride=2)
        self.up = transposition3d(2 * width, 2 * width)
        self.out = transposition3d(2 * width, width)

    def forward(
        self, x: Tensor, before: Tensor | None, after: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        before_now = self.middle(F.relu(self.down(x)))
        before_now = F.relu(before_now if after is None else before_now + after, inplace=True)
        after_now = self.up(F.relu(self.bottom(before_now)))
        after_now = F.relu(after_now + (before_now if before is None else before), inplace=True)
        return self.out(after_now), before_now, after_now


def assigned_cost_volume(left: Tensor, right: Tensor, disparities: int) -> Tensor:
    """Concatenate the features of both images by writing slices, as published."""
    batch, channels, height, width = left.shape
    cost = left.new_zeros(batch, 2 * channels, disparities, height, width)
    for d in range(disparities):
        cost[:, :channels, d, :, d:] = left[..., d:]
        cost[:, channels:, d, :, d:] = right[..., : width - d]
    return cost.contiguous()


def stacked_cost_volume(left: Tensor, right: Tensor, disparities: int) -> Tensor:
    width = left.shape[-1]
    pairs = [
        F.pad(torch.cat([left[..., d:], right[..., : width - d]], dim=1), (d, 0))
        for d in range(disparities)
    ]
    return torch.stack(pairs, dim=2)


class PSMNet(nn.Module):
    def __init__(self, cost_volume: Callable[..., Tensor], width: int = 4) -> None:
        super().__init__()
        self.cost_volume = cost_volume
        self.features = PyramidPooling(width)
        self.first = nn.Sequential(convolution3d(2 * width, width), nn.ReLU())
        self.hourglasses = nn.ModuleList(Hourglass(width) for _ in range(3))
        self.heads = nn.ModuleList(
            nn.Sequential(
                convolution3d(width, width),
                nn.ReLU(inplace=True),
                nn.Conv3d(width, 1, 3, padding=1, bias=False),
            )
            for _ in range(3)
        )

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, ...] | Tensor:
        cost = self.first(self.cost_volume(self.features(left), self.features(right), 4))
        before = after = None
        x, total, disparities = cost, None, []
        for number, (hourglass, head) in enumerate(zip(self.hourglasses, self.heads, strict=True)):
            x, now, after = hourglass(x, before, after)
            before = now if number == 0 else before
            x = x + cost
            total = head(x) if total is None else head(x) + total
            disparities.append(self.regress(total, left.shape[2:]))
        return tuple(disparities) if self.training else disparities[-1]

    def regress(self, cost: Tensor, size: torch.Size) -> Tensor:
        cost = F.interpolate(cost, size=(8, *size), mode="trilinear", align_corners=False)
        probability = F.softmax(cost.squeeze(1), dim=1)
        candidates = torch.arange(8, dtype=cost.dtype, device=cost.device).view(1, -1, 1, 1)
        return (probability * candidates).sum(1)


def stereo_pair() -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, 2, 3, 16, 16, dtype=torch.float64).unbind())


# Words


def psmm(*, tied: bool) -> PSMM:
    model = PSMM(20, 6)
    if tied:
        model.vocabulary.weight = model.embedding.weight
    return model


def windows() -> tuple[Tensor, ...]:
    return (torch.randint(0, 20, (3, 5)),)


def probabilities(model: nn.Module, tokens: Tensor) -> Any:
    """Return the output without the state, which would otherwise keep its size."""
    return model(tokens)[0]


class Tagger(nn.Module):
    """Recurrent layers of torch: both directions and all layers share one width."""

    def __init__(self, kind: Callable[..., nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 5)
        self.recurrent = kind(5, 6, batch_first=True, **options)
        self.out = nn.Linear(6 * (2 if options.get("bidirectional") else 1), 4)

    def forward(self, tokens: Tensor) -> Any:
        return self.out(self.recurrent(self.embedding(tokens))[0])


# Attention and normalisation over channels


class Attention(nn.Module):
    """Self-attention as it is often written by hand."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Any:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return self.out(x.transpose(1, 2).reshape(batch, length, width))


class EinsumAttention(nn.Module):
    """The same with a head axis in the weights."""

    def __init__(self, width: int = 8, heads: int = 2, features: int = 3) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(width, heads, features))
        self.key = nn.Parameter(torch.randn(width, heads, features))
        self.value = nn.Parameter(torch.randn(width, heads, features))
        self.out = nn.Parameter(torch.randn(heads, features, width))

    def forward(self, x: Tensor) -> Any:
        query, key, value = (
            torch.einsum("bsd,dhk->bshk", x, weight)
            for weight in (self.query, self.key, self.value)
        )
        attention = torch.einsum("bshk,bthk->bhst", query, key).softmax(-1)
        mixed = torch.einsum("bhst,bthk->bshk", attention, value)
        return torch.einsum("...hk,hkd->...d", mixed, self.out)


class Gathered(nn.Module):
    """Advanced indexing, windows, distances and a bilinear form around the channels."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(20, width)
        self.positions = nn.Parameter(torch.randn(9, width))
        self.left, self.right = nn.Linear(width, 5), nn.Linear(width, 4)
        self.form = nn.Bilinear(5, 4, 7)
        self.out = nn.Linear(7, 3)

    def forward(self, tokens: Tensor) -> Any:
        x = self.words(tokens.unfold(1, 3, 1).flatten(0, 1)).unflatten(0, (len(tokens), 3))
        x = x + self.positions[torch.arange(3)]
        near = torch.cdist(x, self.positions[[0, 4, 2]])
        x = torch.einsum("bst,btc->bsc", near, x[:, [2, 0, 1]])
        return self.out(F.relu(self.form(self.left(x), self.right(x))))


class Folded(nn.Module):
    """A convolution as a product with the positions under its kernel, and back."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first, self.mixed = convolution(3, width), nn.Linear(4 * width, 4 * 5)
        self.last = nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Any:
        places = F.unfold(self.first(x), 2, stride=2)
        return self.last(F.fold(self.mixed(places.mT).mT, x.shape[2:], 2, stride=2))


class TokenMixer(nn.Module):
    """Embedded words through one residual block."""

    def __init__(self, block: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, width)
        self.block = block
        self.hidden = nn.Linear(width, 10)
        self.out = nn.Linear(10, 4)

    def forward(self, tokens: Tensor) -> Any:
        x = self.embedding(tokens)
        return self.out(F.relu(self.hidden(x + self.block(x))))


CASES = {
    "vgg16": Case(vgg16, images(16), 15),
    "vgg16_flattened": Case(lambda: vgg16(normalised=False, pooled=2), images(32), 15),
    "resnet18": Case(lambda: resnet18(4, 10, strides=STRIDES), images(), 12),
    "resnext": Case(resnext, images(), 6),
    "depthwise": Case(lambda: depthwise(1), images(), 2),
    "depthwise_multiplier": Case(lambda: depthwise(2), images(), 2),
    "transposed": Case(lambda: transposed(1), images(), 3),
    "transposed_grouped": Case(lambda: transposed(2), images(), 3),
    "transposed_depthwise": Case(lambda: transposed(8), images(), 2),
    "squeeze_and_excitation": Case(
        lambda: nn.Sequential(convolution(3, 6), SqueezeAndExcitation(6, 3), *head(6)), images(), 2
    ),
    "channel_shuffle": Case(
        lambda: nn.Sequential(convolution(3, 8), ShuffleUnit(8), convolution(8, 6), *head(6)),
        images(),
        1,
    ),
    "densely_connected": Case(
        lambda: nn.Sequential(
            convolution(3, 4), DenseUnit(4, 3), DenseUnit(7, 3), nn.BatchNorm2d(10), *head(10)
        ),
        images(),
        3,
    ),
    "unet": Case(UNet, images(9), 4),
    "folded": Case(Folded, images(), 2),
    "gathered": Case(Gathered, windows, 4),
    "actor_critic": Case(ActorCritic, lambda: (torch.randn(5, 4, dtype=torch.float64),), 2),
    "fcrn_zero_insertion": Case(lambda: FCRN("zero_insertion"), images(16), 8),
    "fcrn_constant_transposition": Case(lambda: FCRN("constant_transposition"), images(16), 8),
    "fcrn_fast": Case(lambda: FCRN("fast"), images(16), 8),
    "fcrn_deconvolution": Case(lambda: FCRN("deconvolution"), images(16), 6),
    "fcrn_pixel_shuffle": Case(lambda: FCRN("pixel_shuffle"), images(16), 6),
    "psmnet_assigned": Case(lambda: PSMNet(assigned_cost_volume), stereo_pair, 17),
    "psmnet_stacked": Case(lambda: PSMNet(stacked_cost_volume), stereo_pair, 17),
    "psmm_untied": Case(lambda: psmm(tied=False), windows, 2, probabilities),
    "psmm_tied": Case(lambda: psmm(tied=True), windows, 1, probabilities),
    "lstm": Case(lambda: Tagger(nn.LSTM, num_layers=2), windows, 2),
    "lstm_bidirectional": Case(lambda: Tagger(nn.LSTM, bidirectional=True), windows, 2),
    "gru": Case(lambda: Tagger(nn.GRU), windows, 2),
    "group_norm": Case(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.GroupNorm(2, 8),
            nn.Conv2d(8, 6, 1),
            nn.GroupNorm(6, 6),
            nn.ReLU(),
            *head(6),
        ),
        images(),
        2,
    ),
    "layer_norm": Case(
        lambda: TokenMixer(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.RMSNorm(8))),
        windows,
        2,
    ),
    "attention": Case(lambda: TokenMixer(Attention()), windows, 2),
    "einsum_attention": Case(lambda: TokenMixer(EinsumAttention()), windows, 5),
}
