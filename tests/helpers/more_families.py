"""Tiny models of variants of families beyond those of ``tiny``."""

from __future__ import annotations

from unittest.mock import patch

import torch
from transformers import (
    Gemma3TextConfig,
    OPTConfig,
    SmolLM3Config,
)

from helpers import tiny as tiny_models
from helpers.tiny import _COMMON, _GATED, tiny

_OPT = {**_COMMON, "pad_token_id": 1, "ffn_dim": 56}
GEMMA3 = {**_GATED, "head_dim": 16, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
MORE = {
    "gemma3": lambda: Gemma3TextConfig(**GEMMA3),
    "gemma3_biased": lambda: Gemma3TextConfig(**GEMMA3, attention_bias=True),
    "smollm3": lambda: SmolLM3Config(**_GATED, no_rope_layers=[1, 0]),
    "opt_350m": lambda: OPTConfig(**_OPT, word_embed_proj_dim=16, do_layer_norm_before=False),
    "opt_bare": lambda: OPTConfig(
        **_OPT, word_embed_proj_dim=32, enable_bias=False, layer_norm_elementwise_affine=False
    ),
}


def build(family, dtype=torch.float64):
    with patch.dict(tiny_models._CONFIGS, MORE):
        return tiny(family, dtype)
