"""Run a model with attention that can be differentiated in every way, at full precision, for a while."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from shiftlens.errors import ShiftLensError

_NAME = "shiftlens_plain"
_BLOCK = 128  # query positions at once: skips keys that lie in the future


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
    # Grouped queries: each key head serves several query heads, whose rows lie one below the other.
    query = query.reshape(batch, key.shape[1], -1, head)
    if torch.is_grad_enabled() or softcap is not None:
        out = _weights(query, key, attention_mask, softcap) @ value
    else:
        out, _ = _Attend.apply(query, key, value, attention_mask, length)
    return out.reshape(batch, heads, length, -1).transpose(1, 2), None


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, softcap: float | None) -> Tensor:
    """[batch, group, repeat x position, all positions]."""
    logits = query @ key.mT
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if mask is not None:
        logits = (logits.unflatten(2, (-1, mask.shape[2])) + mask[:, :, None]).flatten(2, 3)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return torch.softmax(logits, dim=-1, dtype=wide).to(query.dtype)


class _Attend(torch.autograd.Function):
    """The same for causal models, with its tangent written out.

    It passes less often over the maps, of which there is one per direction, and skips what lies in the future.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, length: int
    ) -> tuple[Tensor, Tensor]:
        weights = _weights(query, key, mask, None)
        return weights @ value, weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        query, key, value, _, ctx.length = inputs
        out, weights = output
        ctx.mark_non_differentiable(weights)
        ctx.save_for_forward(query, key, value, out, weights)

    @staticmethod
    def jvp(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor, *_: Any) -> tuple[Tensor, None]:
        """``dO = X V - sum(X) O + P dV`` with ``X = P * (dQ K^T + Q dK^T)``."""
        *primal, out, weights = ctx.saved_tensors
        query, key, value = primal
        length, before = ctx.length, key.shape[2] - ctx.length
        parts = []
        for low in range(0, length, _BLOCK):
            high = min(low + _BLOCK, length)

            def rows(x: Tensor, low: int = low, high: int = high) -> Tensor:
                """Positions low to high of every repeat."""
                return x.unflatten(2, (-1, length))[:, :, :, low:high].flatten(2, 3)

            seen = slice(before + high)  # what lies behind has no weight
            x = rows(dq) @ key[:, :, seen].mT + rows(query) @ dk[:, :, seen].mT
            some = rows(weights)[..., seen]
            x = x * some
            part = x @ value[:, :, seen] - x.sum(-1, keepdim=True) * rows(out) + some @ dv[:, :, seen]
            parts.append(part.unflatten(2, (-1, high - low)))
        return torch.cat(parts, dim=3).flatten(2, 3), None


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


_PLAIN: weakref.WeakSet[PreTrainedModel] = weakref.WeakSet()
_PROBE = 16


def check_plain(model: PreTrainedModel, length: int) -> None:
    """Refuse a model that is another one with plain attention, or whose rotations depend on the text's length.

    The first is tried once per model on a few ids. Engines that feed a text in pieces need the second: with
    ``dynamic`` and ``longrope`` rotations a token's embedding changes once the text outgrows the trained length.

    Args:
        model: the model.
        length: number of ids.

    Raises:
        ShiftLensError: the engines would explain something else; it names ``saliency.mode=naive``.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> check_plain(LlamaForCausalLM(LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8,
        ...                                          num_hidden_layers=1, num_attention_heads=2)), 10)
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    trained = rope.get("original_max_position_embeddings") or getattr(config, "max_position_embeddings", None)
    if trained and rope.get("rope_type") in ("dynamic", "longrope") and length > trained:
        raise ShiftLensError(
            f"a text of {length} tokens is longer than the {trained} this model was trained for, and its "
            f"rotations ({rope['rope_type']}) then depend on the length; use saliency.mode=naive, or shorter texts"
        )
    if model in _PLAIN:
        return
    ids = (torch.arange(_PROBE) * 7 % min(config.vocab_size, 1000))[None].to(model.device)
    with torch.no_grad():
        own = model(ids, use_cache=False).logits.float()
        try:
            with plain_attention(model):
                plain = model(ids, use_cache=False).logits.float()
        except NotImplementedError as error:
            raise ShiftLensError(f"{error}; use saliency.mode=naive") from error
    tolerance = 0.02 if model.dtype in (torch.float32, torch.float64) else 0.5
    if bool((own - plain).abs().max() > tolerance * own.std()):
        raise ShiftLensError(
            f"{type(model).__name__} gives other logits with its attention in plain operations, so the fast "
            "engines would explain another model; use saliency.mode=naive"
        )
    _PLAIN.add(model)
