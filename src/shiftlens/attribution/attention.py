"""Run a model with attention that can be differentiated in every way, at full precision, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_NAME = "shiftlens_plain"


def _plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention in plain tensor operations, in transformers' calling convention.

    Fused kernels have no batched backward and no forward derivative. The library's own ``eager``
    takes the softmax in float32 even for a float64 model, which costs nine digits; here float32
    is the least, not the most.
    """
    if s_aux is not None:
        raise NotImplementedError("attention sinks have no plain form here")
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:  # grouped queries: each key head serves several query heads
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    weights = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        weights = torch.tanh(weights / softcap) * softcap
    if attention_mask is not None:
        weights = weights + attention_mask
    wide = torch.promote_types(weights.dtype, torch.float32)
    weights = torch.softmax(weights, dim=-1, dtype=wide).to(value.dtype)
    return (weights @ value).transpose(1, 2), weights


ALL_ATTENTION_FUNCTIONS.register(_NAME, _plain_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS["eager"])


@contextmanager
def plain_attention(model: PreTrainedModel) -> Iterator[None]:
    """Switch a model to plain attention and evaluation mode, and put both back on leaving.

    Args:
        model: a Hugging Face model; restored even after an error.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8,
        ...                                      num_hidden_layers=1, num_attention_heads=2))
        >>> before = model.config._attn_implementation
        >>> with plain_attention(model):
        ...     inside = model.config._attn_implementation
        >>> inside != before, model.config._attn_implementation == before
        (True, True)
    """
    training = [module for module in model.modules() if module.training]
    # Written to the configurations directly: set_attn_implementation warns and refuses in some families.
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
    found = [(config, config._attn_implementation_internal) for config in configs.values()]
    try:
        for module in training:
            module.training = False
        for config, _ in found:
            config._attn_implementation_internal = _NAME
        yield
    finally:
        for config, implementation in found:
            config._attn_implementation_internal = implementation
        for module in training:
            module.training = True
