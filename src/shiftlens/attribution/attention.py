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
) -> tuple[Tensor, None]:
    """Attention in plain tensor operations, in transformers' calling convention.

    Fused kernels have no batched backward and no forward derivative. The library's own ``eager``
    takes the softmax in float32 even for a float64 model, which costs nine digits; here float32
    is the least, not the most.
    """
    if s_aux is not None:
        raise NotImplementedError("attention sinks have no plain form here")
    batch, heads, length, head = query.shape
    query = query * (head**-0.5 if scaling is None else scaling)
    # Grouped queries: each key head serves several query heads, one below the other.
    query = query.reshape(batch, key.shape[1], -1, length, head)
    if torch.is_grad_enabled() or softcap is not None:
        out = _attend(query, key, value, attention_mask, softcap)
    else:
        out, _ = _Attend.apply(query, key, value, attention_mask)
    return out.reshape(batch, heads, length, -1).transpose(1, 2), None


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, softcap: float | None) -> Tensor:
    """[batch, group, repeat, position, all positions]."""
    logits = query @ key[:, :, None].mT
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if mask is not None:
        logits = logits + mask[:, :, None]
    wide = torch.promote_types(logits.dtype, torch.float32)
    return torch.softmax(logits, dim=-1, dtype=wide).to(query.dtype)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, softcap: float | None = None) -> Tensor:
    return _weights(query, key, mask, softcap) @ value[:, :, None]


class _Attend(torch.autograd.Function):
    """The same with its tangent written out: half the passes over maps that there is one of per direction."""

    generate_vmap_rule = True

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        weights = _weights(query, key, mask, None)
        return weights @ value[:, :, None], weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        query, key, value, _ = inputs
        out, weights = output
        ctx.mark_non_differentiable(weights)
        ctx.save_for_forward(query, key, value, out, weights)

    @staticmethod
    def jvp(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor, _: Any) -> tuple[Tensor, None]:
        """``dO = X V - sum(X) O + P dV`` with ``X = P * (dQ K^T + Q dK^T)``."""
        query, key, value, out, weights = ctx.saved_tensors
        x = (dq @ key[:, :, None].mT + query @ dk[:, :, None].mT) * weights
        return x @ value[:, :, None] - x.sum(-1, keepdim=True) * out + weights @ dv[:, :, None], None


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
