"""Tiny models of variants of families beyond those of ``tiny``."""

from __future__ import annotations

from unittest.mock import patch

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    MixtralConfig,
    OlmoeConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
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


_EXPERTS = {**_GATED, "num_experts": 4, "num_experts_per_tok": 2}
MIXTURES = {
    "mixtral": lambda: MixtralConfig(**_GATED, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": lambda: Qwen2MoeConfig(
        **_EXPERTS, moe_intermediate_size=24, shared_expert_intermediate_size=24, norm_topk_prob=False
    ),
    "qwen3_moe": lambda: Qwen3MoeConfig(**_EXPERTS, moe_intermediate_size=24, head_dim=16, norm_topk_prob=True),
    "olmoe": lambda: OlmoeConfig(**_EXPERTS, norm_topk_prob=False),
}
"""Mixtures of experts; two of four experts read each token."""


def mixture(family: str) -> PreTrainedModel:
    """A tiny mixture of experts in float32, as the library makes it where nobody chooses how experts are computed."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MIXTURES[family](), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()
