"""Replaces a model's attention, for a while, by plain tensor operations that can be differentiated in any mode.

Forward-mode and batched reverse-mode differentiation need these operations. In shape comments a group is a
key-value head, repeat is the number of query heads per group, and keys are the positions that queries attend to.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shiftlens.attribution.modes.local_rules import shared, with_ratio
from shiftlens.errors import ShiftLensError
from shiftlens.support.libraries.transformers_parts import attention_of, register_attention, set_attention

_NAME = "shiftlens_plain"
_WATCH: ContextVar[Callable[[Tensor], None] | None] = ContextVar("watch", default=None)
_BLOCK = 128  # query positions per block; each block skips the keys after its last query


def attend_plainly(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    *,
    lrp: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute attention in plain tensor operations, in the calling convention of transformers.

    Fused kernels have neither batched backward nor forward derivatives. The ``eager`` attention of transformers
    computes the softmax in float32 even for a float64 model, which costs nine digits; here float32 is only the
    minimum.

    With ``lrp``, derivatives follow the rules of AttnLRP, see :mod:`~shiftlens.attribution.modes.lrp_rules`.

    Returns:
        Output, [batch, positions, heads, head], and None in place of attention weights.
    """
    if s_aux is not None:
        raise NotImplementedError("attention sinks have no plain form here")
    batch, heads, length, head = query.shape  # key and value: [batch, groups, keys, head]
    if lrp:
        # Weights and values share their product; queries and keys share the half of the weights.
        query, key, value = shared(query, 4), shared(key, 4), shared(value, 2)
    query = query * (head**-0.5 if scaling is None else scaling)
    # The query heads of a group are stacked along the positions and share one product with the group's keys.
    query = query.reshape(batch, key.shape[1], -1, head)  # [batch, groups, repeat x positions, head]
    if torch.is_grad_enabled() or softcap is not None:
        weights = _weights(query, key, attention_mask, softcap, lrp)
        out = weights @ value
    else:
        out, weights = _Attend.apply(query, key, value, attention_mask, length)
    # out: [batch, groups, repeat x positions, head]
    if (watch := _WATCH.get()) is not None:
        watch(weights.detach()[0].reshape(heads, length, -1))
    return out.reshape(batch, heads, length, -1).transpose(1, 2), None


def _weights(
    query: Tensor, key: Tensor, mask: Tensor | None, softcap: float | None = None, lrp: bool = False
) -> Tensor:
    """Compute the attention weights, [batch, groups, repeat x positions, keys]."""
    logits = query @ key.mT  # [batch, groups, repeat x positions, keys]
    if softcap is not None:
        capped = torch.tanh(logits / softcap) * softcap
        logits = with_ratio(capped, logits) if lrp else capped
    if mask is not None:  # [batch, 1, positions, keys], added to each query head
        logits = (logits.unflatten(2, (-1, mask.shape[2])) + mask[:, :, None]).flatten(2, 3)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return torch.softmax(logits, dim=-1, dtype=wide).to(query.dtype)


class _Attend(torch.autograd.Function):
    """Attention of a causal model with a hand-written forward derivative.

    This derivative passes over the attention matrices (one per tangent) less often, and skips later keys.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, length: int
    ) -> tuple[Tensor, Tensor]:
        weights = _weights(query, key, mask)  # [batch, groups, repeat x positions, keys]
        return weights @ value, weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        query, key, value, _, ctx.length = inputs
        out, weights = output
        ctx.mark_non_differentiable(weights)
        ctx.save_for_forward(query, key, value, out, weights)

    @staticmethod
    def jvp(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor, *_: Any) -> tuple[Tensor, None]:
        """Compute ``dO = X V - sum(X) O + P dV`` with ``X = P * (dQ K^T + Q dK^T)``.

        Tangents have the shapes of their primal values; :func:`torch.func.vmap` adds the axis of the tangents.
        """
        *primal, out, weights = ctx.saved_tensors
        query, key, value = primal
        length, before = ctx.length, key.shape[2] - ctx.length  # before: keys before the first query
        blocks = []
        for low in range(0, length, _BLOCK):
            high = min(low + _BLOCK, length)

            def rows(x: Tensor, low: int = low, high: int = high) -> Tensor:
                """Select positions low to high of every query head: [batch, groups, repeat x block, ...]."""
                return x.unflatten(2, (-1, length))[:, :, :, low:high].flatten(2, 3)

            seen = slice(before + high)  # later keys have no weight
            x = rows(dq) @ key[:, :, seen].mT + rows(query) @ dk[:, :, seen].mT
            block_weights = rows(weights)[..., seen]
            x = x * block_weights  # [batch, groups, repeat x block, seen keys]
            # [batch, groups, repeat x block, head]
            d_out = x @ value[:, :, seen] - x.sum(-1, keepdim=True) * rows(out) + block_weights @ dv[:, :, seen]
            blocks.append(d_out.unflatten(2, (-1, high - low)))  # [batch, groups, repeat, block, head]
        return torch.cat(blocks, dim=3).flatten(2, 3), None


register_attention(_NAME, attend_plainly)


@contextmanager
def watched(watch: Callable[[Tensor], None]) -> Iterator[None]:
    """Pass the attention weights of each layer with plain attention to a function, in the order of the layers.

    Args:
        watch: Gets the weights of the first text of the batch, [heads, positions, keys].

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8,
        ...                                      num_hidden_layers=1, num_attention_heads=2))
        >>> with torch.no_grad(), plain_attention(model), watched(lambda weights: print(weights.shape)):
        ...     _ = model(torch.tensor([[1, 2, 3]]))
        torch.Size([2, 3, 3])
    """
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


@contextmanager
def plain_attention(model: PreTrainedModel) -> Iterator[None]:
    """Switch a model to plain attention and evaluation mode; restore both on leaving, even after an error.

    Args:
        model: Hugging Face model.

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
    with attention_replaced(model, _NAME):
        yield


@contextmanager
def attention_replaced(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Switch a model to an attention function and evaluation mode, as :func:`plain_attention` does.

    Args:
        model: Hugging Face model.
        name: Name under which the function was registered.
    """
    training = [module for module in model.modules() if module.training]
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}
    implementations = [(config, attention_of(config)) for config in configs.values()]
    try:
        for module in training:
            module.training = False
        for config, _ in implementations:
            set_attention(config, name)
        yield
    finally:
        for config, implementation in implementations:
            set_attention(config, implementation)
        for module in training:
            module.training = True


_PLAIN: weakref.WeakSet[PreTrainedModel] = weakref.WeakSet()
"""Models that passed :func:`check_plain`."""
_PROBE = 16  # ids fed to compare a model's own attention with the plain one


def check_plain(model: PreTrainedModel, length: int) -> None:
    """Refuse a model whose logits change with plain attention, or whose rotations depend on the text's length.

    The logits are compared once per model, on a few ids. Rotations matter because engines feed a text in pieces:
    with ``dynamic`` and ``longrope``, the rotation of a position changes once the text exceeds the trained length.

    Args:
        model: Causal language model.
        length: Number of ids in the text.

    Raises:
        ShiftLensError: The engines would explain a different model; the message suggests ``saliency.mode=naive``.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> check_plain(LlamaForCausalLM(LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8,
        ...                                          num_hidden_layers=1, num_attention_heads=2)), 10)
    """
    config = model.config.get_text_config()
    if rope := changing_rotations(model, length):
        raise ShiftLensError(
            f"a text of {length} tokens is longer than this model was trained for, and its rotations ({rope}) "
            "then depend on the length; use saliency.mode=naive, or shorter texts"
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


def changing_rotations(model: PreTrainedModel, length: int) -> str | None:
    """Return the kind of rotations, where those of a position depend on a text's length; else ``None``.

    Args:
        model: Causal language model.
        length: Number of ids in the text.
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    trained = rope.get("original_max_position_embeddings") or getattr(config, "max_position_embeddings", None)
    kind: str | None = rope.get("rope_type")
    return kind if trained and kind in ("dynamic", "longrope") and length > trained else None
