"""The networks by library: small networks, small inputs, random weights."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo import timm_names, timm_transformers
from benchmarks.zoo.comparison import cut_by_peer, cut_in_several_ways
from benchmarks.zoo.transformers_names import ARCHITECTURES, WITHOUT_ATTENTION, Architecture
from benchmarks.zoo.trial import Network, Result, attempt

MOST_PARAMETERS = 70e6
"""Larger networks of torchvision are left out: their kinds have smaller members."""


@dataclass(frozen=True)
class Family:
    """A library's networks.

    Attributes:
        modules: the modules that processes import beforehand.
        names: returns the names of the networks.
        network: returns the one of a name.
    """

    modules: Sequence[str]
    names: Callable[[], list[str]]
    network: Callable[[str], Network]


def pictures(size: int, count: int = 2) -> list[Tensor]:
    """Return a batch of noise (count, 3, size, size)."""
    return [torch.randn(count, 3, size, size)]


# timm


def _timm(name: str) -> Network:
    return _timm_network(name, *timm_names.NETWORKS[name])


def _timm_transformer(name: str) -> Network:
    return _timm_network(name, *timm_transformers.NETWORKS[name])


def _timm_network(name: str, options: Mapping[str, Any], size: int) -> Network:
    def build() -> nn.Module:
        import timm

        model: nn.Module = timm.create_model(name, **options)
        return model

    return Network(build, lambda: pictures(size))


# transformers


def _transformers_names() -> list[str]:
    return [
        f"{name}-{attention}"
        for name, architecture in ARCHITECTURES.items()
        for attention in architecture.attentions
    ]


def _with_attention() -> list[str]:
    """Return the architectures with attention, each with the last implementation that it has."""
    return [
        f"{name}-{architecture.attentions[-1]}"
        for name, architecture in ARCHITECTURES.items()
        if name not in WITHOUT_ATTENTION
    ]


def _transformers(name: str) -> Network:
    architecture_name, _, attention = name.rpartition("-")
    architecture = ARCHITECTURES[architecture_name]

    def forward(model: Any, **inputs: Tensor) -> Any:
        # Caches of keys and values would be inputs and outputs at once.
        options = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
        return model(**inputs, **options)

    def call(model: nn.Module, *values: Tensor) -> Any:
        return forward(model, **dict(zip(architecture.inputs, values, strict=True)))

    return Network(
        lambda: _pretrained_free(architecture, architecture_name, attention),
        lambda: [_input(kind) for kind in architecture.inputs.values()],
        call,
    )


def _pretrained_free(architecture: Architecture, name: str, attention: str) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{name}Config")(**architecture.settings)
    kind = getattr(transformers, architecture.model or f"{name}Model")
    model: nn.Module = kind._from_config(config, attn_implementation=attention)
    return model


def _input(kind: str) -> Tensor:
    """Return an argument of a kind: ``tokens``, or ``noise 2x3x32x32``."""
    if kind == "tokens":
        return torch.randint(3, 50, (2, 12))
    return torch.randn(*map(int, kind.removeprefix("noise ").split("x")))


# torchvision


def _models(module: str) -> list[str]:
    from torchvision import models

    place = importlib.import_module(f"torchvision.models{module}")
    return [
        name
        for name in models.list_models(module=place)
        if _size(name) <= MOST_PARAMETERS and not name.startswith("quantized")
    ]


def _size(name: str) -> float:
    from torchvision import models

    weights = models.get_model_weights(name)
    return float(next(iter(weights)).meta["num_params"]) if len(weights) else 0.0


def _build_model(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    model: nn.Module = models.get_model(name, weights=None, **options)
    return model


def _classification(name: str) -> Network:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    size = {"inception_v3": 299, "vit_b_32": 224, "vit_b_16": 224, "maxvit_t": 224}.get(name, 64)
    return Network(functools.partial(_build_model, name, **options), lambda: pictures(size))


def _segmentation(name: str) -> Network:
    is_lite = name.startswith("lraspp")
    options = {} if is_lite else {"aux_loss": True}
    build = functools.partial(_build_model, name, weights_backbone=None, **options)

    def both_heads(model: Any, images: Tensor) -> Any:
        features = model.backbone(images)
        heads = {"out": model.classifier, "aux": model.aux_classifier}
        return {k: head(features[k]) for k, head in heads.items() if head is not None}

    return Network(build, lambda: pictures(64), _through if is_lite else both_heads)


def _through(model: nn.Module, *inputs: Any) -> Any:
    return model(*inputs)


def _detection(name: str) -> Network:
    """Return a detector whose heads are called at all positions, or on fixed boxes."""

    def heads(model: Any, images: Tensor) -> Any:
        features = model.backbone(images)
        maps = list(features.values())
        if not hasattr(model, "roi_heads"):
            return model.head(maps)
        proposals = model.rpn.head(maps)
        boxes = [torch.tensor([[4.0, 4.0, 40.0, 40.0]]).to(images) for _ in images]
        sizes = [(images.shape[2], images.shape[3])] * len(images)
        regions = model.roi_heads
        pooled = regions.box_head(regions.box_roi_pool(features, boxes, sizes))
        found = [proposals, regions.box_predictor(pooled)]
        for kind in ("mask", "keypoint"):
            if getattr(regions, f"{kind}_head", None) is not None:
                pooled = getattr(regions, f"{kind}_roi_pool")(features, boxes, sizes)
                hidden = getattr(regions, f"{kind}_head")(pooled)
                found.append(getattr(regions, f"{kind}_predictor")(hidden))
        return found

    build = functools.partial(_build_model, name, weights_backbone=None)
    size = 300 if name.startswith("ssd") else 128
    return Network(build, lambda: pictures(size), heads)


def _video(name: str) -> Network:
    is_large = name.startswith("mvit") or name == "s3d"
    shape = (1, 3, 16, 224, 224) if is_large else (2, 3, 8, 64, 64)
    return Network(functools.partial(_build_model, name), lambda: [torch.randn(*shape)])


def _flow(name: str) -> Network:
    def call(model: Any, first: Tensor, second: Tensor) -> Any:
        return model(first, second, num_flow_updates=2)

    build = functools.partial(_build_model, name)
    return Network(build, lambda: pictures(128) + pictures(128), call, torch.float)


def _torchvision(module: str, network: Callable[[str], Network]) -> Family:
    return Family(["torchvision"], functools.partial(_models, module), network)


FAMILIES: Mapping[str, Family] = {
    "timm": Family(["timm"], lambda: list(timm_names.NETWORKS), _timm),
    "transformers": Family(["transformers"], _transformers_names, _transformers),
    "classification": _torchvision("", _classification),
    "segmentation": _torchvision(".segmentation", _segmentation),
    "detection": _torchvision(".detection", _detection),
    "video": _torchvision(".video", _video),
    "flow": _torchvision(".optical_flow", _flow),
}

TRANSFORMERS: Mapping[str, Family] = {
    "timm": Family(["timm"], lambda: list(timm_transformers.NETWORKS), _timm_transformer),
    "transformers": Family(["transformers"], _with_attention, _transformers),
}
"""Networks with attention, one of each kind."""


def versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed."""
    found = {}
    for name in ("torch", "torchvision", "timm", "transformers", "torch-pruning"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def try_one(family: str, name: str) -> Result:
    """Return the result of a network."""
    torch.set_num_threads(1)
    return attempt(FAMILIES[family].network(name))


def cut_transformer(family: str, name: str) -> Result:
    """Return the result of cutting a transformer in several ways."""
    torch.set_num_threads(1)
    return cut_in_several_ways(TRANSFORMERS[family].network(name))


def cut_transformer_by_peer(family: str, name: str) -> Result:
    """Return the result of cutting a transformer with torch-pruning."""
    torch.set_num_threads(1)
    return cut_by_peer(TRANSFORMERS[family].network(name))
