"""Transformers of timm, with few layers and small inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PLAIN: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2}
_FOUR: dict[str, Any] = {**_PLAIN, "num_heads": 4}
_WINDOWS: dict[str, Any] = {
    "img_size": 64,
    "patch_size": 4,
    "window_size": 4,
    "embed_dim": 16,
    "depths": (2, 2),
    "num_heads": (2, 4),
}

NETWORKS: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "vit_tiny_patch16_224": (_FOUR, 32),
    "vit_base_patch16_clip_224": (_FOUR, 32),
    "vit_base_patch16_siglip_224": (_FOUR, 32),
    "vit_small_patch14_dinov2": (_FOUR, 32),
    "vit_giant_patch14_dinov2": ({**_FOUR, "mlp_ratio": 2}, 32),
    "vit_small_patch14_reg4_dinov2": (_FOUR, 32),
    "vit_base_patch16_224_miil": (_FOUR, 32),
    "vit_medium_patch16_gap_240": (_FOUR, 32),
    "vit_relpos_small_patch16_224": (_FOUR, 32),
    "vit_srelpos_small_patch16_224": (_FOUR, 32),
    "vit_base_patch16_plus_240": (_FOUR, 32),
    "vit_small_patch16_rope_224": (_FOUR, 32),
    "deit_tiny_patch16_224": (_FOUR, 32),
    "deit_tiny_distilled_patch16_224": (_FOUR, 32),
    "deit3_small_patch16_224": (_FOUR, 32),
    "beit_base_patch16_224": (_FOUR, 32),
    "beitv2_base_patch16_224": (_FOUR, 32),
    "eva02_tiny_patch14_224": ({**_FOUR, "num_classes": 10}, 32),
    "eva_giant_patch14_224": (_FOUR, 32),
    "cait_xxs24_224": (_FOUR, 32),
    "xcit_nano_12_p8_224": ({**_FOUR, "img_size": 64}, 64),
    "convit_tiny": ({**_PLAIN, "num_heads": 4, "local_up_to_layer": 1}, 32),
    "swin_tiny_patch4_window7_224": (_WINDOWS, 64),
    "swinv2_tiny_window8_256": (_WINDOWS, 64),
    "swinv2_cr_tiny_224": (_WINDOWS, 64),
    "volo_d1_224": ({"img_size": 64}, 64),
    "twins_svt_small": (
        {"embed_dims": (16, 16, 32, 32), "num_heads": (2, 2, 4, 4), "depths": (1, 1, 1, 1)},
        64,
    ),
    "twins_pcpvt_small": (
        {"embed_dims": (16, 16, 32, 32), "num_heads": (2, 2, 4, 4), "depths": (1, 1, 1, 1)},
        64,
    ),
    "pvt_v2_b0": ({"depths": (1, 1, 1, 1)}, 64),
    "pit_xs_224": ({"img_size": 64, "base_dims": (8, 8, 8), "depth": (1, 1, 1)}, 64),
    "tnt_s_patch16_224": ({"img_size": 64, "embed_dim": 32, "num_heads_outer": 4, "depth": 2}, 64),
    "crossvit_tiny_240": ({"depth": ((1, 2, 0), (1, 2, 0), (1, 2, 0))}, 64),
    "nest_tiny": ({"img_size": 64}, 64),
    "mvitv2_tiny": ({}, 64),
    "hiera_tiny_224": ({"img_size": 64, "stages": (1, 1, 1, 1)}, 64),
    "samvit_base_patch16": ({**_FOUR, "img_size": 64, "global_attn_indexes": (1,)}, 64),
    "davit_tiny": ({"depths": (1, 1), "embed_dims": (16, 32), "num_heads": (2, 4)}, 64),
    "levit_128": ({"img_size": 64, "depth": (1, 1, 1)}, 64),
    "test_coatnet": ({"img_size": 64}, 64),
    "test_maxvit": ({"img_size": 64}, 64),
    "gcvit_xxtiny": ({"img_size": 64}, 64),
    "visformer_tiny": ({"img_size": 64, "depth": (1, 1, 1)}, 64),
}
"""By name: the options with which it is built, and the pixels of a side of its input."""
