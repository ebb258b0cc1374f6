"""Architectures of transformers, each by the settings of a small configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT = {"input_ids": "tokens"}
EAGER, BOTH = ("eager",), ("eager", "sdpa")

_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 50,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SEQUENCES: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 50,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
_IMAGES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
_STAGES: dict[str, Any] = {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2}


@dataclass(frozen=True)
class Architecture:
    """A small configuration.

    Attributes:
        settings: of the configuration.
        inputs: kinds of the arguments, by name.
        model: the class; the architecture's ``Model`` if it is empty.
        attentions: implementations of attention that there are.
    """

    settings: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=lambda: TEXT)
    model: str = ""
    attentions: tuple[str, ...] = BOTH


def _text(*, sdpa: bool = True, **changes: Any) -> Architecture:
    return Architecture({**_SMALL, **changes}, attentions=BOTH if sdpa else EAGER)


def _decoder(name: str, *, sdpa: bool = True, **changes: Any) -> Architecture:
    """Return a decoder whose queries share keys, two by two."""
    settings = {**_SMALL, "num_key_value_heads": 2, **changes}
    return Architecture(settings, model=f"{name}ForCausalLM", attentions=BOTH if sdpa else EAGER)


def _translator(**changes: Any) -> Architecture:
    inputs = {"input_ids": "tokens", "decoder_input_ids": "tokens"}
    return Architecture({**_SEQUENCES, **changes}, inputs)


def _pictures(size: int = 32, model: str = "", **settings: Any) -> Architecture:
    return Architecture(settings, {"pixel_values": f"noise 2x3x{size}x{size}"}, model)


def _convolutional(size: int = 64, **settings: Any) -> Architecture:
    inputs = {"pixel_values": f"noise 2x3x{size}x{size}"}
    return Architecture(settings, inputs, attentions=EAGER)


def _sound(**settings: Any) -> Architecture:
    convolutions = {
        "conv_dim": (16, 16),
        "conv_kernel": (8, 4),
        "conv_stride": (4, 4),
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "mask_time_prob": 0.0,
    }
    return Architecture({**_SMALL, **convolutions, **settings}, {"input_values": "noise 2x400"})


WITHOUT_ATTENTION = frozenset(
    {"FNet", "Mamba", "ConvNext", "ConvNextV2", "ResNet", "RegNet", "PoolFormer", "MobileNetV2"}
)

ARCHITECTURES: dict[str, Architecture] = {
    # encoders of text
    "Bert": _text(),
    "Roberta": _text(),
    "XLMRoberta": _text(),
    "Albert": _text(embedding_size=16),
    "Electra": _text(embedding_size=16),
    "MobileBert": _text(
        embedding_size=16, true_hidden_size=16, intra_bottleneck_size=16, num_feedforward_networks=2
    ),
    "DistilBert": Architecture(
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 50}
    ),
    "DebertaV2": _text(
        sdpa=False,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
    ),
    "MPNet": _text(sdpa=False),
    "ConvBert": _text(sdpa=False, embedding_size=32, head_ratio=2, conv_kernel_size=3),
    "RoFormer": _text(sdpa=False, embedding_size=32),
    "FNet": _text(sdpa=False, use_tpu_fourier_optimizations=False),
    "SqueezeBert": _text(sdpa=False, embedding_size=32),
    "ModernBert": _text(reference_compile=False),
    # decoders
    "GPT2": Architecture(
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 64},
        model="GPT2LMHeadModel",
    ),
    "GPTNeo": Architecture(
        {
            "hidden_size": 32,
            "num_layers": 2,
            "attention_types": [[["global", "local"], 1]],
            "num_heads": 4,
            "vocab_size": 50,
            "max_position_embeddings": 64,
        },
        model="GPTNeoForCausalLM",
        attentions=EAGER,
    ),
    "GPTNeoX": Architecture(_SMALL, model="GPTNeoXForCausalLM"),
    "GPTJ": Architecture(
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "rotary_dim": 4,
            "vocab_size": 50,
            "n_positions": 64,
        },
        model="GPTJForCausalLM",
    ),
    "OPT": Architecture(
        {**_SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32}, model="OPTForCausalLM"
    ),
    "Bloom": Architecture(
        {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50},
        model="BloomForCausalLM",
        attentions=EAGER,
    ),
    "Mpt": Architecture(
        {
            "d_model": 32,
            "n_layers": 2,
            "n_heads": 4,
            "expansion_ratio": 2,
            "vocab_size": 50,
            "max_seq_len": 64,
        },
        model="MptForCausalLM",
        attentions=EAGER,
    ),
    "Falcon": Architecture(_SMALL, model="FalconForCausalLM"),
    "Llama": _decoder("Llama"),
    "Mistral": _decoder("Mistral"),
    "Mixtral": _decoder("Mixtral", num_local_experts=4),
    "Qwen2": _decoder("Qwen2"),
    "Qwen3": _decoder("Qwen3", head_dim=8),
    "Gemma": _decoder("Gemma", head_dim=8),
    "Gemma2": _decoder("Gemma2", sdpa=False, head_dim=8),
    "Phi": _decoder("Phi"),
    "Phi3": _decoder("Phi3"),
    "StableLm": _decoder("StableLm"),
    "Starcoder2": _decoder("Starcoder2"),
    "Olmo": _decoder("Olmo"),
    "Olmo2": _decoder("Olmo2"),
    "Cohere": _decoder("Cohere"),
    "Granite": _decoder("Granite"),
    "Mamba": Architecture(
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 50},
        model="MambaForCausalLM",
        attentions=EAGER,
    ),
    # from one sequence to another
    "T5": Architecture(
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "vocab_size": 50,
            "decoder_start_token_id": 0,
        },
        {"input_ids": "tokens", "decoder_input_ids": "tokens"},
        attentions=EAGER,
    ),
    "Bart": _translator(),
    "Marian": _translator(),
    "Pegasus": _translator(),
    "Whisper": Architecture(
        {
            **_SEQUENCES,
            "num_mel_bins": 8,
            "max_source_positions": 20,
            "max_target_positions": 40,
        },
        {"input_features": "noise 2x8x40", "decoder_input_ids": "tokens"},
    ),
    # pictures
    "ViT": _pictures(**_IMAGES),
    "DeiT": _pictures(**_IMAGES),
    "Beit": _pictures(**_IMAGES),
    "Dinov2": _pictures(**_IMAGES),
    "CLIPVision": Architecture(
        _IMAGES, {"pixel_values": "noise 2x3x32x32"}, model="CLIPVisionModel"
    ),
    "SiglipVision": Architecture(
        _IMAGES, {"pixel_values": "noise 2x3x32x32"}, model="SiglipVisionModel"
    ),
    "DPT": _pictures(
        model="DPTForDepthEstimation",
        **{**_IMAGES, "num_hidden_layers": 4},
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 16, 16, 16],
        fusion_hidden_size=16,
        head_in_index=-1,
    ),
    "Swin": _convolutional(
        64,
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 4],
        window_size=4,
    ),
    "Swinv2": _convolutional(
        64,
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 4],
        window_size=4,
    ),
    "Segformer": _convolutional(
        64,
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[4, 2],
        hidden_sizes=[16, 32],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[2, 4],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
    ),
    "Pvt": _convolutional(
        64,
        image_size=64,
        num_encoder_blocks=2,
        depths=[1, 1],
        sequence_reduction_ratios=[2, 1],
        hidden_sizes=[16, 32],
        patch_sizes=[4, 2],
        strides=[4, 2],
        num_attention_heads=[2, 4],
        mlp_ratios=[2, 2],
    ),
    "ConvNext": _convolutional(64, **_STAGES),
    "ConvNextV2": _convolutional(64, **_STAGES),
    "ResNet": _convolutional(
        64, embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic"
    ),
    "RegNet": _convolutional(
        64, embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], groups_width=8
    ),
    "PoolFormer": _convolutional(
        64,
        hidden_sizes=[16, 32],
        depths=[1, 1],
        num_encoder_blocks=2,
        patch_sizes=[7, 3],
        strides=[4, 2],
        padding=[2, 1],
    ),
    "MobileNetV2": _convolutional(64, depth_multiplier=0.35),
    "Levit": _convolutional(
        64,
        image_size=64,
        hidden_sizes=[16, 32, 48],
        num_attention_heads=[2, 2, 2],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    # sound and series
    "Wav2Vec2": _sound(),
    "Hubert": _sound(),
    "PatchTST": Architecture(
        {
            "num_input_channels": 2,
            "context_length": 32,
            "patch_length": 8,
            "patch_stride": 8,
            "d_model": 32,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "ffn_dim": 48,
        },
        {"past_values": "noise 2x32x2"},
    ),
}
